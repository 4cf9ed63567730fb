// Kernels for AVX-VNNI, the dot products of bytes that processors without AVX-512 have: those of AVX2, but for products with quantised weights and a q8_0 cache.
#include <immintrin.h>

#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

#include "kernels/cpu/avx2.inl"

#include "kernels/cpu/block.inl"

using Activations = __m256i;
inline Activations broadcast4(const int8_t* p) {
  int32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return _mm256_set1_epi32(bytes);
}
// A tile of one row and four panels has all its sums in registers, and the codes of a panel beside them.
constexpr int kQuantizedRows = 1;
constexpr int kSumRegisters = 8;

#include "kernels/cpu/attend_pages.inl"

// The instruction has two encodings. Processors with AVX-512 may lack the short one of AVX-VNNI; their own for 256 bits computes the same.
namespace own {
inline __m256i dot4(__m256i acc, __m256i codes, Activations x) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(x));
  return acc;
}
inline I16 dot4(I16 acc, I16 codes, Activations x) { return {dot4(acc.lo, codes.lo, x), dot4(acc.hi, codes.hi, x)}; }
#include "kernels/cpu/quantized.inl"
inline I16 dot_bytes(I16 acc, I16 plain, I16 with_sign) { return {dot4(acc.lo, plain.lo, with_sign.lo), dot4(acc.hi, plain.hi, with_sign.hi)}; }
#include "kernels/cpu/attend_codes.inl"
}  // namespace own

namespace of_avx512 {
inline __m256i dot4(__m256i acc, __m256i codes, Activations x) {
  __asm__("%{evex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(x));
  return acc;
}
inline I16 dot4(I16 acc, I16 codes, Activations x) { return {dot4(acc.lo, codes.lo, x), dot4(acc.hi, codes.hi, x)}; }
#include "kernels/cpu/quantized.inl"
inline I16 dot_bytes(I16 acc, I16 plain, I16 with_sign) { return {dot4(acc.lo, plain.lo, with_sign.lo), dot4(acc.hi, plain.hi, with_sign.hi)}; }
#include "kernels/cpu/attend_codes.inl"
}  // namespace of_avx512

}  // namespace
const CodeLoops kAvxVnniLoops{own::quantized_matmul, own::code_scores, own::code_values};
const CodeLoops kAvx512VnniLoops256{of_avx512::quantized_matmul, of_avx512::code_scores, of_avx512::code_values};
}  // namespace fathom::kernels
