// Kernels for aarch64 with dot products of bytes (ARMv8.2's dotprod): those of NEON, but for products with quantised weights.
#include <arm_neon.h>

#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

#include "kernels/cpu/neon.inl"

inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

inline I16 dot4(I16 acc, I16 codes, Activations x) {
  return wholes([x](auto sum, auto code) { return vdotq_s32(sum, bytes_of(code), x); }, acc, codes);
}

#include "kernels/cpu/quantized.inl"

}  // namespace
void (*const kDotMatmul)(const QuantizedMatmul&) = quantized_matmul;
}  // namespace fathom::kernels
