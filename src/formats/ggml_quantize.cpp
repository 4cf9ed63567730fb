#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/float16.h"
#include "formats/ggml_blocks.h"
#include "formats/ggml_quantize_k.h"
#include "formats/ggml_types.h"

namespace fathom::formats {
namespace {

// The arithmetic of these types is part of the format by custom: f32 throughout, the code from the scale before it is
// rounded to f16. Every other implementation gives the same bytes.

float inverse(float d) { return d == 0 ? 0 : 1 / d; }

// Towards zero, within 0 to high; NaN becomes 0 and what no int can hold never reaches the cast.
uint8_t code(float v, int high) { return static_cast<uint8_t>(!(v > 0) ? 0 : v >= static_cast<float>(high) ? high : static_cast<int>(v)); }

// The value of the largest magnitude with its sign; the first of equals.
float extreme(const float* x) {
  float best = x[0];
  for (int i = 1; i < 32; ++i)
    if (std::fabs(x[i]) > std::fabs(best)) best = x[i];
  return best;
}

void pack_nibbles(const uint8_t* codes, uint8_t* out) {
  for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>((codes[i] & 15) | ((codes[i + 16] & 15) << 4));
}
void pack_fifth_bits(const uint8_t* codes, uint8_t* out) {
  for (int i = 0; i < 4; ++i) out[i] = 0;
  for (int i = 0; i < 32; ++i) out[i / 8] = static_cast<uint8_t>(out[i / 8] | (codes[i] >> 4) << (i % 8));
}

// Codes around `half`: the extreme value gets code 0, which has no counterpart above. Returns the scale.
uint16_t around_zero(const float* x, int half, uint8_t* codes) {
  const float d = extreme(x) / static_cast<float>(-half), inv = inverse(d);
  for (int i = 0; i < 32; ++i) codes[i] = code(x[i] * inv + (static_cast<float>(half) + 0.5f), 2 * half - 1);
  return f32_to_f16(d);
}
// Codes from the least value up.
template <class Block>
void from_minimum(const float* x, int high, uint8_t* codes, Block& b) {
  const auto [low, top] = std::minmax_element(x, x + 32);
  const float d = (*top - *low) / static_cast<float>(high), inv = inverse(d);
  for (int i = 0; i < 32; ++i) codes[i] = code((x[i] - *low) * inv + 0.5f, high);
  b.d = f32_to_f16(d), b.m = f32_to_f16(*low);
}

void encode(const float* x, BlockQ8_0& b) {
  const float d = std::fabs(extreme(x)) / 127, inv = inverse(d);
  b.d = f32_to_f16(d);
  for (int i = 0; i < 32; ++i) {
    const float v = x[i] * inv, a = std::fabs(v) < 127 ? std::fabs(v) : 127;
    const int whole = static_cast<int>(a), q = whole + (a - static_cast<float>(whole) >= 0.5f);  // halves away from zero
    b.codes[i] = static_cast<int8_t>(v < 0 ? -q : q);
  }
}
void encode(const float* x, BlockQ4_0& b) {
  uint8_t codes[32];
  b.d = around_zero(x, 8, codes);
  pack_nibbles(codes, b.nibbles);
}
void encode(const float* x, BlockQ5_0& b) {
  uint8_t codes[32];
  b.d = around_zero(x, 16, codes);
  pack_nibbles(codes, b.nibbles);
  pack_fifth_bits(codes, b.high);
}
void encode(const float* x, BlockQ4_1& b) {
  uint8_t codes[32];
  from_minimum(x, 15, codes, b);
  pack_nibbles(codes, b.nibbles);
}
void encode(const float* x, BlockQ5_1& b) {
  uint8_t codes[32];
  from_minimum(x, 31, codes, b);
  pack_nibbles(codes, b.nibbles);
  pack_fifth_bits(codes, b.high);
}

template <class Block>
void pack_lines(const LineCodes& fit, Block& b) {
  b.d = fit.d, b.dmin = fit.dmin;
  pack_scales(fit.scale, fit.minimum, b.scales);
  for (int c = 0; c < 4; ++c)
    for (int i = 0; i < 32; ++i) b.nibbles[32 * c + i] = static_cast<uint8_t>((fit.codes[64 * c + i] & 15) | ((fit.codes[64 * c + 32 + i] & 15) << 4));
}
void encode(const float* x, BlockQ4_K& b) { pack_lines(fit_lines(x, 15), b); }
void encode(const float* x, BlockQ5_K& b) {
  const LineCodes fit = fit_lines(x, 31);
  pack_lines(fit, b);
  for (int j = 0; j < 32; ++j) {
    b.high[j] = 0;
    for (int g = 0; g < 8; ++g) b.high[j] = static_cast<uint8_t>(b.high[j] | (fit.codes[32 * g + j] >> 4) << g);
  }
}
void encode(const float* x, BlockQ6_K& b) {
  const ScaleCodes fit = fit_scales(x);
  b.d = fit.d;
  std::copy(fit.scale, fit.scale + 16, b.scales);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* c = fit.codes + 128 * half;
    for (int j = 0; j < 64; ++j) b.low[64 * half + j] = static_cast<uint8_t>((c[j] & 15) | ((c[j + 64] & 15) << 4));
    for (int j = 0; j < 32; ++j)
      b.high[32 * half + j] = static_cast<uint8_t>(c[j] >> 4 | c[j + 32] >> 4 << 2 | c[j + 64] >> 4 << 4 | c[j + 96] >> 4 << 6);
  }
}

template <class Block>
void quantize_blocks(std::span<const float> values, std::byte* out) {
  for (size_t i = 0; i < values.size(); i += Block::kElements, out += sizeof(Block)) {
    Block b;
    encode(values.data() + i, b);
    std::memcpy(out, &b, sizeof b);
  }
}

template <class Convert>
void convert(std::span<const float> values, std::byte* out, Convert f) {
  for (const float v : values) {
    const uint16_t bits = f(v);
    std::memcpy(out, &bits, sizeof bits);
    out += sizeof bits;
  }
}

}  // namespace

void quantize(GgmlType type, std::span<const float> values, std::byte* out) {
  FATHOM_ASSERT(values.size() % static_cast<size_t>(ggml_block_elements(type)) == 0, values.size(), " values as ", ggml_type_name(type));
  if (values.empty()) return;
  switch (type) {
    case GgmlType::F32: std::memcpy(out, values.data(), values.size_bytes()); return;
    case GgmlType::F16: return convert(values, out, f32_to_f16);
    case GgmlType::BF16: return convert(values, out, f32_to_bf16);
    case GgmlType::Q8_0: return quantize_blocks<BlockQ8_0>(values, out);
    case GgmlType::Q4_0: return quantize_blocks<BlockQ4_0>(values, out);
    case GgmlType::Q4_1: return quantize_blocks<BlockQ4_1>(values, out);
    case GgmlType::Q5_0: return quantize_blocks<BlockQ5_0>(values, out);
    case GgmlType::Q5_1: return quantize_blocks<BlockQ5_1>(values, out);
    case GgmlType::Q4_K: return quantize_blocks<BlockQ4_K>(values, out);
    case GgmlType::Q5_K: return quantize_blocks<BlockQ5_K>(values, out);
    case GgmlType::Q6_K: return quantize_blocks<BlockQ6_K>(values, out);
  }
}

}  // namespace fathom::formats
