// The search behind quantize() for Q4_K, Q5_K and Q6_K: codes and two levels of scales for one block of 256 values, with the
// squared error as its measure.
#pragma once
#include <cstdint>

namespace fathom::formats {

// value = f16(d) * scale[g] * code - f16(dmin) * minimum[g], eight groups of 32
struct LineCodes {
  uint16_t d = 0, dmin = 0;
  int8_t scale[8] = {}, minimum[8] = {};  // 0 to 63
  uint8_t codes[256] = {};                // 0 to high
};
LineCodes fit_lines(const float* values, int high);  // 15 or 31

// value = f16(d) * scale[g] * (code - 32), sixteen groups of 16
struct ScaleCodes {
  uint16_t d = 0;
  int8_t scale[16] = {};
  uint8_t codes[256] = {};  // 0 to 63
};
ScaleCodes fit_scales(const float* values);

}  // namespace fathom::formats
