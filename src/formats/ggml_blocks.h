// The blocks of ggml's quantised types, byte for byte as they lie in a file (little-endian, no padding). `d`, `m` and `dmin`
// are f16. Codes of four bits lie in nibbles; what a type has beyond four bits lies in `high`. They may be read where they lie,
// at any address: a copy on the stack would be loaded across the stores that made it, which no processor forwards.
#pragma once
#include <cstdint>

namespace fathom::formats {

// x[i] = d * codes[i]
struct [[gnu::packed, gnu::may_alias]] BlockQ8_0 {
  static constexpr int kElements = 32, kGroup = 32;
  uint16_t d;
  int8_t codes[32];
};
// Code i < 16 is the lower nibble of byte i, code i + 16 the upper one. x[i] = d * (code - 8)
struct [[gnu::packed, gnu::may_alias]] BlockQ4_0 {
  static constexpr int kElements = 32, kGroup = 32;
  uint16_t d;
  uint8_t nibbles[16];
};
// x[i] = d * code + m
struct [[gnu::packed, gnu::may_alias]] BlockQ4_1 {
  static constexpr int kElements = 32, kGroup = 32;
  uint16_t d, m;
  uint8_t nibbles[16];
};
// Bit i of `high`, read as a u32, is bit 4 of code i. x[i] = d * (code - 16)
struct [[gnu::packed, gnu::may_alias]] BlockQ5_0 {
  static constexpr int kElements = 32, kGroup = 32;
  uint16_t d;
  uint8_t high[4];
  uint8_t nibbles[16];
};
// x[i] = d * code + m
struct [[gnu::packed, gnu::may_alias]] BlockQ5_1 {
  static constexpr int kElements = 32, kGroup = 32;
  uint16_t d, m;
  uint8_t high[4];
  uint8_t nibbles[16];
};
// Eight groups of 32, each with a scale s and a minimum t of six bits. Nibbles: bytes 32 c to 32 c + 31 hold group 2 c in their
// lower halves and group 2 c + 1 in their upper ones. x[i] = d * s * code - dmin * t
struct [[gnu::packed, gnu::may_alias]] BlockQ4_K {
  static constexpr int kElements = 256, kGroup = 32;
  uint16_t d, dmin;
  uint8_t scales[12];  // see unpack_scales
  uint8_t nibbles[128];
};
// As Q4_K; bit g of high[j] is bit 4 of code j of group g.
struct [[gnu::packed, gnu::may_alias]] BlockQ5_K {
  static constexpr int kElements = 256, kGroup = 32;
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t high[32];
  uint8_t nibbles[128];
};
// Sixteen groups of 16. Of each half of 128 codes `low` has 64 bytes (lower halves: codes 0 to 63, upper: 64 to 127) and `high`
// 32: bits 2 k and 2 k + 1 of byte j are bits 4 and 5 of code 32 k + j. x[i] = d * scales[i / 16] * (code - 32)
struct [[gnu::packed, gnu::may_alias]] BlockQ6_K {
  static constexpr int kElements = 256, kGroup = 16;
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

// The twelve bytes hold eight scales and eight minima of six bits: the first four of each in the lower six bits of bytes
// 0 to 3 and 4 to 7; of the other four the lower nibbles in bytes 8 to 11 (scale below, minimum above) and the upper two
// bits in the upper two of bytes 0 to 3 and 4 to 7.
inline void unpack_scales(const uint8_t* bytes, int8_t* scale, int8_t* minimum) {
  for (int i = 0; i < 4; ++i) {
    scale[i] = static_cast<int8_t>(bytes[i] & 63);
    minimum[i] = static_cast<int8_t>(bytes[i + 4] & 63);
    scale[i + 4] = static_cast<int8_t>((bytes[i + 8] & 15) | (bytes[i] >> 6 << 4));
    minimum[i + 4] = static_cast<int8_t>((bytes[i + 8] >> 4) | (bytes[i + 4] >> 6 << 4));
  }
}
inline void pack_scales(const int8_t* scale, const int8_t* minimum, uint8_t* bytes) {
  for (int i = 0; i < 4; ++i) {
    bytes[i] = static_cast<uint8_t>(scale[i] | (scale[i + 4] >> 4 << 6));
    bytes[i + 4] = static_cast<uint8_t>(minimum[i] | (minimum[i + 4] >> 4 << 6));
    bytes[i + 8] = static_cast<uint8_t>((scale[i + 4] & 15) | ((minimum[i + 4] & 15) << 4));
  }
}

}  // namespace fathom::formats
