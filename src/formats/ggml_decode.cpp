// dequantize() and unpack(). Each type has one function for its codes and one for its scales; both products are made of these.
#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"
#include "core/float16.h"
#include "formats/ggml_blocks.h"
#include "formats/ggml_types.h"

namespace fathom::formats {
namespace {

// Codes of 32 elements from 16 bytes: lower halves, then upper ones.
void nibbles(const uint8_t* bytes, uint8_t* __restrict out) {
  for (int i = 0; i < 16; ++i) out[i] = bytes[i] & 15, out[i + 16] = bytes[i] >> 4;
}
// Eight bits of a byte as bit 4 of eight bytes.
constexpr std::array<uint64_t, 256> kFifthBits = [] {
  std::array<uint64_t, 256> out{};
  for (uint64_t b = 0; b < 256; ++b)
    for (uint64_t i = 0; i < 8; ++i) out[b] |= (b >> i & 1) << (8 * i + 4);
  return out;
}();
void fifth_bits(const uint8_t* high, uint8_t* __restrict out) {
  for (int i = 0; i < 4; ++i) {
    uint64_t eight;
    std::memcpy(&eight, out + 8 * i, sizeof eight);
    eight |= kFifthBits[high[i]];
    std::memcpy(out + 8 * i, &eight, sizeof eight);
  }
}
// The same of 256 elements from 128 bytes, in steps of 64 elements.
void nibbles_of_superblock(const uint8_t* bytes, uint8_t* __restrict out) {
  for (int c = 0; c < 4; ++c)
    for (int i = 0; i < 32; ++i) out[64 * c + i] = bytes[32 * c + i] & 15, out[64 * c + 32 + i] = bytes[32 * c + i] >> 4;
}

void codes(const BlockQ8_0& b, uint8_t* __restrict out) {
  for (int i = 0; i < 32; i += 8) {  // adding 128 to a byte turns its highest bit over
    uint64_t eight;
    std::memcpy(&eight, b.codes + i, sizeof eight);
    eight ^= 0x8080808080808080u;
    std::memcpy(out + i, &eight, sizeof eight);
  }
}
void codes(const BlockQ4_0& b, uint8_t* __restrict out) { nibbles(b.nibbles, out); }
void codes(const BlockQ4_1& b, uint8_t* __restrict out) { nibbles(b.nibbles, out); }
void codes(const BlockQ5_0& b, uint8_t* __restrict out) { nibbles(b.nibbles, out), fifth_bits(b.high, out); }
void codes(const BlockQ5_1& b, uint8_t* __restrict out) { nibbles(b.nibbles, out), fifth_bits(b.high, out); }
void codes(const BlockQ4_K& b, uint8_t* __restrict out) { nibbles_of_superblock(b.nibbles, out); }
void codes(const BlockQ5_K& b, uint8_t* __restrict out) {
  nibbles_of_superblock(b.nibbles, out);
  uint8_t high[32];  // a copy that `out` cannot alias, shifted from group to group: this loop is compiled to vectors
  std::memcpy(high, b.high, sizeof high);
  for (int g = 0; g < 8; ++g)
    for (int j = 0; j < 32; ++j) {
      out[32 * g + j] = static_cast<uint8_t>(out[32 * g + j] | (high[j] & 1) << 4);
      high[j] = high[j] >> 1;
    }
}
void codes(const BlockQ6_K& b, uint8_t* __restrict out) {
  for (int half = 0; half < 2; ++half, out += 128) {
    const uint8_t *low = b.low + 64 * half, *high = b.high + 32 * half;
    for (int j = 0; j < 32; ++j) {
      out[j] = static_cast<uint8_t>((low[j] & 15) | ((high[j] & 3) << 4));
      out[j + 32] = static_cast<uint8_t>((low[j + 32] & 15) | ((high[j] >> 2 & 3) << 4));
      out[j + 64] = static_cast<uint8_t>((low[j] >> 4) | ((high[j] >> 4 & 3) << 4));
      out[j + 96] = static_cast<uint8_t>((low[j + 32] >> 4) | ((high[j] >> 6) << 4));
    }
  }
}

// Scales and minima of the groups of one block.
struct Scales {
  float scale[16], minimum[16];
};

template <class Block>
void scales(const Block& b, Scales& s) {
  s.scale[0] = f16_to_f32(b.d);
  if constexpr (requires { b.m; }) s.minimum[0] = -f16_to_f32(b.m);
}
template <class Block>
void scales_and_minima(const Block& b, Scales& s) {
  int8_t scale[8], minimum[8];
  unpack_scales(b.scales, scale, minimum);
  const float d = f16_to_f32(b.d), dmin = f16_to_f32(b.dmin);
  for (int g = 0; g < 8; ++g) s.scale[g] = d * static_cast<float>(scale[g]), s.minimum[g] = dmin * static_cast<float>(minimum[g]);
}
void scales(const BlockQ4_K& b, Scales& s) { scales_and_minima(b, s); }
void scales(const BlockQ5_K& b, Scales& s) { scales_and_minima(b, s); }
void scales(const BlockQ6_K& b, Scales& s) {
  const float d = f16_to_f32(b.d);
  for (int g = 0; g < 16; ++g) s.scale[g] = d * static_cast<float>(b.scales[g]);
}

// f(block, index) for every block, where it lies.
template <class Block, class F>
void each_block(std::span<const std::byte> bytes, F f) {
  const auto* const blocks = reinterpret_cast<const Block*>(bytes.data());
  for (size_t i = 0; i < bytes.size() / sizeof(Block); ++i) f(blocks[i], i);
}

template <class Block>
void dequantize_blocks(GgmlType type, std::span<const std::byte> bytes, float* out) {
  constexpr int kGroup = Block::kGroup;  // constant counts let the loops be compiled to vectors
  const QuantLayout layout = quant_layout(type);
  constexpr bool kMinimum = requires(Block b) { b.m; } || requires(Block b) { b.dmin; };
  FATHOM_ASSERT(layout.group == kGroup && layout.block == Block::kElements && layout.has_minimum == kMinimum, ggml_type_name(type));
  each_block<Block>(bytes, [&](const Block& b, size_t) {
    uint8_t c[Block::kElements];
    Scales s;
    codes(b, c);
    scales(b, s);
    for (int g = 0; g < Block::kElements / kGroup; ++g) {
      const float scale = s.scale[g];
      const uint8_t* group = c + g * kGroup;
      if constexpr (kMinimum) {
        const float minimum = s.minimum[g];
        for (int i = 0; i < kGroup; ++i) out[i] = scale * static_cast<float>(group[i] - layout.offset) - minimum;
      } else {
        for (int i = 0; i < kGroup; ++i) out[i] = scale * static_cast<float>(group[i] - layout.offset);
      }
      out += kGroup;
    }
  });
}

template <class Block>
void unpack_blocks(std::span<const std::byte> bytes, UnpackedBlocks& out) {
  uint8_t* const to = out.codes.data();
  uint16_t *const d = out.d.data(), *const dmin = out.dmin.data();
  int8_t *const sub_scale = out.sub_scale.data(), *const sub_minimum = out.sub_minimum.data();
  constexpr size_t kGroups = Block::kElements / Block::kGroup;
  each_block<Block>(bytes, [=](const Block& b, size_t n) {
    codes(b, to + n * Block::kElements);
    d[n] = b.d;
    if constexpr (requires { b.m; }) dmin[n] = b.m;
    if constexpr (requires { b.dmin; }) dmin[n] = b.dmin, unpack_scales(b.scales, sub_scale + n * kGroups, sub_minimum + n * kGroups);
    else if constexpr (requires { b.scales; }) std::memcpy(sub_scale + n * kGroups, b.scales, kGroups);
  });
}

template <class Sample, class Convert>
void convert(std::span<const std::byte> bytes, float* out, Convert f) {
  for (size_t i = 0; i < bytes.size() / sizeof(Sample); ++i) {
    Sample sample;
    std::memcpy(&sample, bytes.data() + i * sizeof sample, sizeof sample);
    out[i] = f(sample);
  }
}

bool half_is_finite(uint16_t bits) { return (bits & 0x7c00u) != 0x7c00u; }

// A block's codes are finite whatever they are, and f16 times integers of eight bits never leaves f32.
template <class Block>
bool blocks_are_finite(std::span<const std::byte> bytes) {
  bool finite = true;  // without a branch: files are sound
  each_block<Block>(bytes, [&](const Block& b, size_t) {
    finite &= half_is_finite(b.d);
    if constexpr (requires { b.m; }) finite &= half_is_finite(b.m);
    if constexpr (requires { b.dmin; }) finite &= half_is_finite(b.dmin);
  });
  return finite;
}

template <class Bits>
bool numbers_are_finite(std::span<const std::byte> numbers, Bits exponent) {
  constexpr size_t kAtOnce = 64;  // bytes: a constant count lets the loop be compiled to vectors
  Bits found = 0;
  const auto look = [&](const std::byte* at) {
    Bits bits[kAtOnce / sizeof(Bits)];
    std::memcpy(bits, at, kAtOnce);
    for (const Bits b : bits) found = static_cast<Bits>(found | ((b & exponent) == exponent));
  };
  for (; numbers.size() >= kAtOnce; numbers = numbers.subspan(kAtOnce)) look(numbers.data());
  std::byte rest[kAtOnce] = {};
  std::ranges::copy(numbers, rest);
  look(rest);
  return found == 0;
}

void check_whole(GgmlType type, std::span<const std::byte> blocks) {
  FATHOM_ASSERT(blocks.size() % static_cast<size_t>(ggml_block_bytes(type)) == 0, blocks.size(), " bytes of ", ggml_type_name(type));
}

}  // namespace

void dequantize(GgmlType type, std::span<const std::byte> blocks, float* out) {
  check_whole(type, blocks);
  if (blocks.empty()) return;
  switch (type) {
    case GgmlType::F32: std::memcpy(out, blocks.data(), blocks.size()); return;
    case GgmlType::F16: return convert<uint16_t>(blocks, out, f16_to_f32);
    case GgmlType::BF16: return convert<uint16_t>(blocks, out, bf16_to_f32);
    case GgmlType::Q8_0: return dequantize_blocks<BlockQ8_0>(type, blocks, out);
    case GgmlType::Q4_0: return dequantize_blocks<BlockQ4_0>(type, blocks, out);
    case GgmlType::Q4_1: return dequantize_blocks<BlockQ4_1>(type, blocks, out);
    case GgmlType::Q5_0: return dequantize_blocks<BlockQ5_0>(type, blocks, out);
    case GgmlType::Q5_1: return dequantize_blocks<BlockQ5_1>(type, blocks, out);
    case GgmlType::Q4_K: return dequantize_blocks<BlockQ4_K>(type, blocks, out);
    case GgmlType::Q5_K: return dequantize_blocks<BlockQ5_K>(type, blocks, out);
    case GgmlType::Q6_K: return dequantize_blocks<BlockQ6_K>(type, blocks, out);
  }
}

float UnpackedBlocks::scale(size_t g) const {
  const float top = f16_to_f32(d[g * static_cast<size_t>(layout.group) / static_cast<size_t>(layout.block)]);
  return layout.two_level ? top * static_cast<float>(sub_scale[g]) : top;
}

float UnpackedBlocks::minimum(size_t g) const {
  const float top = f16_to_f32(dmin[g * static_cast<size_t>(layout.group) / static_cast<size_t>(layout.block)]);
  return layout.two_level ? top * static_cast<float>(sub_minimum[g]) : -top;
}

void unpack(GgmlType type, std::span<const std::byte> blocks, UnpackedBlocks& out) {
  check_whole(type, blocks);
  out.layout = quant_layout(type);
  const size_t n = blocks.size() / static_cast<size_t>(ggml_block_bytes(type));
  const size_t elements = n * static_cast<size_t>(out.layout.block), groups = elements / static_cast<size_t>(out.layout.group);
  const bool minimum = out.layout.has_minimum, two = out.layout.two_level;
  out.codes.resize(elements);
  out.sub_scale.resize(two ? groups : 0);
  out.sub_minimum.resize(two && minimum ? groups : 0);
  out.d.resize(n);
  out.dmin.resize(minimum ? n : 0);
  switch (type) {
    case GgmlType::Q8_0: return unpack_blocks<BlockQ8_0>(blocks, out);
    case GgmlType::Q4_0: return unpack_blocks<BlockQ4_0>(blocks, out);
    case GgmlType::Q4_1: return unpack_blocks<BlockQ4_1>(blocks, out);
    case GgmlType::Q5_0: return unpack_blocks<BlockQ5_0>(blocks, out);
    case GgmlType::Q5_1: return unpack_blocks<BlockQ5_1>(blocks, out);
    case GgmlType::Q4_K: return unpack_blocks<BlockQ4_K>(blocks, out);
    case GgmlType::Q5_K: return unpack_blocks<BlockQ5_K>(blocks, out);
    case GgmlType::Q6_K: return unpack_blocks<BlockQ6_K>(blocks, out);
    default: FATHOM_ASSERT(false, ggml_type_name(type));
  }
}

bool is_finite(GgmlType type, std::span<const std::byte> blocks) {
  check_whole(type, blocks);
  switch (type) {
    case GgmlType::F32: return numbers_are_finite<uint32_t>(blocks, 0x7f800000u);
    case GgmlType::F16: return numbers_are_finite<uint16_t>(blocks, 0x7c00u);
    case GgmlType::BF16: return numbers_are_finite<uint16_t>(blocks, 0x7f80u);
    case GgmlType::Q8_0: return blocks_are_finite<BlockQ8_0>(blocks);
    case GgmlType::Q4_0: return blocks_are_finite<BlockQ4_0>(blocks);
    case GgmlType::Q4_1: return blocks_are_finite<BlockQ4_1>(blocks);
    case GgmlType::Q5_0: return blocks_are_finite<BlockQ5_0>(blocks);
    case GgmlType::Q5_1: return blocks_are_finite<BlockQ5_1>(blocks);
    case GgmlType::Q4_K: return blocks_are_finite<BlockQ4_K>(blocks);
    case GgmlType::Q5_K: return blocks_are_finite<BlockQ5_K>(blocks);
    case GgmlType::Q6_K: return blocks_are_finite<BlockQ6_K>(blocks);
  }
  FATHOM_ASSERT(false, "ggml type ", static_cast<int>(type));
}

}  // namespace fathom::formats
