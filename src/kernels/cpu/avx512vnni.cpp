// Kernels for AVX-512 with VNNI: those of AVX-512, but for products with quantised weights and a q8_0 cache.
#include <immintrin.h>

#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

#include "kernels/cpu/avx512.inl"

#include "kernels/cpu/block.inl"

using Activations = __m512i;
inline Activations broadcast4(const int8_t* p) { return _mm512_set1_epi32(four_codes(p)); }
// By hand: GCC 12 copies and spills the sums of the intrinsic.
inline I16 dot4(I16 acc, I16 codes, Activations x) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(x));
  return acc;
}
// So that the f32 sums stay in registers too. With 6, whose sums are stored and loaded for every block, Zen 4 does 255 Gop/s of q8 and 250 of
// q4 on one core instead of 286 and 315 (of 473; the law's two f32 operations for eight dot4 leave 378).
constexpr int kQuantizedRows = 3;
constexpr int kSumRegisters = 24;

#include "kernels/cpu/quantized.inl"

inline I16 dot_bytes(I16 acc, I16 plain, I16 with_sign) { return dot4(acc, plain, with_sign); }
#include "kernels/cpu/attend_pages.inl"
#include "kernels/cpu/attend_codes.inl"

}  // namespace
const CodeLoops kVnniLoops{quantized_matmul, code_scores, code_values};
}  // namespace fathom::kernels

