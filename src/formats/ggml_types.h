// Element types of GGUF tensors: plain numbers (F32, F16, BF16) and blocks of small integers with shared scales. Here are
// their names and sizes, dequantize() and quantize(), and unpack(), which takes blocks apart into integers and scales without
// loss for whoever packs them anew. The layouts of the blocks are in ggml_blocks.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::formats {

enum class GgmlType : uint32_t { F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14, BF16 = 30 };  // the file's numbers

const char* ggml_type_name(GgmlType type);                              // "Q4_K"
std::optional<GgmlType> ggml_type_from_name(std::string_view name);     // in either case: "q4_k"
std::optional<GgmlType> ggml_type_from_number(uint32_t number);         // nothing for types that are not read here
std::string ggml_type_text(uint32_t number);                            // for messages, also of types not read here: "Q2_K (10)"
std::string ggml_type_names();                                          // all that are read, for messages
int64_t ggml_block_elements(GgmlType type);                             // 1, 32 or 256
int64_t ggml_block_bytes(GgmlType type);
int64_t ggml_bytes(GgmlType type, int64_t elements);                    // of whole blocks

// Whole blocks to f32: bytes / ggml_block_bytes * ggml_block_elements numbers. `blocks` need not be aligned.
void dequantize(GgmlType type, std::span<const std::byte> blocks, float* out);

// f32 to whole blocks; `out` holds ggml_bytes(type, values.size()) and need not be aligned. Values should be finite and their
// scales in the range of f16, else codes are arbitrary (never undefined). Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 round to the
// nearest code of the block's range, F16 and BF16 to the nearest, ties to even; Q4_K, Q5_K and Q6_K search for
// the scales with the least squared error. Equal input gives equal bytes; rows are independent, so threads may share the work.
void quantize(GgmlType type, std::span<const float> values, std::byte* out);

// How a quantised type is built. A block of `block` elements holds groups of `group` that share a scale. Two-level types (K)
// keep small integers per group and one f16 per block by which they are multiplied.
struct QuantLayout {
  int bits = 0;    // of a code, 4 to 8
  int group = 0;   // 32, or 16 for Q6_K
  int block = 0;   // 32, or 256 for K types
  int offset = 0;  // the code that stands for 0 (half of the range), 0 where a minimum is stored
  bool has_minimum = false;
  bool two_level = false;
};
bool is_quantized(GgmlType type);  // all but F32, F16 and BF16
QuantLayout quant_layout(GgmlType type);

// Whole blocks taken apart. Element i with group g = i / layout.group and block b = i / layout.block is
//   value = scale(g) * (codes[i] - layout.offset) - minimum(g)          (without the last term where the type has no minimum)
// The product is exact in f32 (11 bits of an f16, at most 8 of a second-level scale, at most 8 of a code, 24 in all at
// most), so the value is rounded once, by the subtraction, fused or not, and equals dequantize() bit for bit.
//   one level:  scale(g) = f16(d[g]),                  minimum(g) = -f16(dmin[g])     Q4_1 and Q5_1 store what is added
//   two levels: scale(g) = f16(d[b]) * sub_scale[g],   minimum(g) = f16(dmin[b]) * sub_minimum[g]     both products exact
struct UnpackedBlocks {
  QuantLayout layout;
  std::vector<uint8_t> codes;         // [elements], 0 to 2^bits - 1; Q8_0's signed bytes plus 128
  std::vector<int8_t> sub_scale, sub_minimum;  // [elements / group]: 0 to 63, Q6_K -128 to 127; empty but for two levels
  std::vector<uint16_t> d, dmin;      // [elements / block], f16 as in the file

  float scale(size_t g) const;        // of a group
  float minimum(size_t g) const;      // where the type has any
};
// `out` keeps its allocations from call to call.
void unpack(GgmlType type, std::span<const std::byte> blocks, UnpackedBlocks& out);

// Whether dequantize() gives neither NaN nor infinity, of quantised types by their scales and minima alone.
bool is_finite(GgmlType type, std::span<const std::byte> blocks);

}  // namespace fathom::formats
