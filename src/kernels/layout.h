// What every packing holds of one output, as constants for pack.cpp and the kernels; pack.h says where it lies. Not for other rooms.
#pragma once
#include "kernels/kernels.h"

namespace fathom::kernels {

inline constexpr int64_t kSuperBlock = 8;  // blocks that share f16 scales where these have two levels

struct Layout {
  const char* name = "";
  int plain_bytes = 0;      // of a weight that is a plain number; 0: codes and scales, and the rest holds
  int step = 1;             // inner elements of an output that lie beside each other: plain numbers fill 4 bytes, or 2 of f16
  int low_bits = 4;         // of a code among the codes: 8, or 4 of two codes to a byte
  int high_bits = 0;        // that a code has beyond these: 0 to 2
  int offset = 0;           // the code that stands for 0
  int scales = 1;           // of a block: 2 are of 16 elements each
  bool minimum = false;
  bool two_levels = false;  // a block's scales and minimum are i8, multiplied by f16 ones of its super-block

  // Bytes of one output, by quantized(): in a block the low bits and all codes, and these with scales and minimum; in the head of
  // a super-block.
  int low_bytes = 0, code_bytes = 0, record_bytes = 0, head_bytes = 0;
};

consteval Layout quantized(Layout l) {
  l.low_bytes = l.low_bits * 4;
  l.code_bytes = l.low_bytes + l.high_bits * 4;
  l.record_bytes = l.code_bytes + (l.scales + l.minimum) * (l.two_levels ? 1 : 2);
  l.head_bytes = l.two_levels ? 2 + 2 * l.minimum : 0;
  return l;
}

inline constexpr Layout kLayouts[] = {
    {.name = "f32", .plain_bytes = 4},
    {.name = "bf16", .plain_bytes = 2, .step = 2},
    {.name = "f16", .plain_bytes = 2},
    quantized({.name = "q8", .low_bits = 8, .offset = 128}),
    quantized({.name = "q4", .offset = 8}),
    quantized({.name = "q4_min", .minimum = true}),
    quantized({.name = "q5", .high_bits = 1, .offset = 16}),
    quantized({.name = "q5_min", .high_bits = 1, .minimum = true}),
    quantized({.name = "q4_k", .minimum = true, .two_levels = true}),
    quantized({.name = "q5_k", .high_bits = 1, .minimum = true, .two_levels = true}),
    quantized({.name = "q6_k", .high_bits = 2, .offset = 32, .scales = 2, .two_levels = true}),
};
static_assert(sizeof kLayouts / sizeof *kLayouts == static_cast<int>(Packing::q6_k) + 1);

template <Packing P>
inline constexpr Layout kLayoutOf = kLayouts[static_cast<int>(P)];

// Steps of one output, and bytes of one output, whose inner elements are plain numbers.
static constexpr int64_t plain_steps(const Layout& l, int64_t inner) { return (inner + l.step - 1) / l.step; }
static constexpr int64_t plain_output_bytes(const Layout& l, int64_t inner) { return plain_steps(l, inner) * l.step * l.plain_bytes; }

// Bytes of one output in `blocks` blocks. Static: a shared copy could be one that was compiled for another CPU.
static constexpr int64_t quantized_bytes(const Layout& l, int64_t blocks) {
  return blocks * l.record_bytes + (blocks + kSuperBlock - 1) / kSuperBlock * l.head_bytes;
}

}  // namespace fathom::kernels
