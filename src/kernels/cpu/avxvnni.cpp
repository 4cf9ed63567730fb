// Kernels for AVX-VNNI, the dot products of bytes that processors without AVX-512 have: those of AVX2, but for products with quantised weights.
#include <immintrin.h>

#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

#include "kernels/cpu/avx2.inl"

inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

using Activations = __m256i;
inline Activations broadcast4(const int8_t* p) {
  int32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return _mm256_set1_epi32(bytes);
}
// A tile of one row and four panels has all its sums in registers, and the codes of a panel beside them.
constexpr int kQuantizedRows = 1;
constexpr int kSumRegisters = 8;

// The instruction has two encodings. Processors with AVX-512 may lack the short one of AVX-VNNI; their own for 256 bits computes the same.
namespace own {
inline __m256i dot4(__m256i acc, __m256i codes, Activations x) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(x));
  return acc;
}
inline I16 dot4(I16 acc, I16 codes, Activations x) { return {dot4(acc.lo, codes.lo, x), dot4(acc.hi, codes.hi, x)}; }
#include "kernels/cpu/quantized.inl"
}  // namespace own

namespace of_avx512 {
inline __m256i dot4(__m256i acc, __m256i codes, Activations x) {
  __asm__("%{evex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(x));
  return acc;
}
inline I16 dot4(I16 acc, I16 codes, Activations x) { return {dot4(acc.lo, codes.lo, x), dot4(acc.hi, codes.hi, x)}; }
#include "kernels/cpu/quantized.inl"
}  // namespace of_avx512

}  // namespace
void (*const kAvxVnniMatmul)(const QuantizedMatmul&) = own::quantized_matmul;
void (*const kAvx512VnniMatmul256)(const QuantizedMatmul&) = of_avx512::quantized_matmul;
}  // namespace fathom::kernels
