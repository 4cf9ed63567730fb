// Kernels for aarch64 with dot products of bytes (ARMv8.2's dotprod): those of NEON, but for products with quantised weights and a q8_0 cache.
#include <arm_neon.h>

#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

#include "kernels/cpu/neon.inl"

#include "kernels/cpu/block.inl"

inline I16 dot4(I16 acc, I16 codes, Activations x) {
  return wholes([x](auto sum, auto code) { return vdotq_s32(sum, bytes_of(code), x); }, acc, codes);
}

#include "kernels/cpu/quantized.inl"

inline I16 dot_bytes(I16 acc, I16 a, I16 b) {
  return wholes([](auto sum, auto x, auto y) { return vdotq_s32(sum, bytes_of(x), bytes_of(y)); }, acc, a, b);
}
#include "kernels/cpu/attend_pages.inl"
#include "kernels/cpu/attend_codes.inl"

}  // namespace
const CodeLoops kDotLoops{quantized_matmul, code_scores, code_values};
}  // namespace fathom::kernels
