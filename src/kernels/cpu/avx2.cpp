// Kernels for AVX2 with FMA.
#include <immintrin.h>

#include "kernels/bf16.h"
#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

#include "kernels/cpu/avx2.inl"

// Even and odd bytes as 16-bit numbers: the products of 8-bit ones, added in pairs, pass 2^15.
struct Activations {
  __m256i even, odd;
};
inline Activations broadcast4(const int8_t* p) {
  int32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  const __m256i four = _mm256_set1_epi32(bytes);
  return {_mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8), _mm256_srai_epi16(four, 8)};
}
inline __m256i dot4(__m256i acc, __m256i codes, Activations x) {
  const __m256i even = _mm256_and_si256(codes, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(codes, 8);
  return _mm256_add_epi32(acc, _mm256_add_epi32(_mm256_madd_epi16(even, x.even), _mm256_madd_epi16(odd, x.odd)));
}
inline I16 dot4(I16 acc, I16 codes, Activations x) { return {dot4(acc.lo, codes.lo, x), dot4(acc.hi, codes.hi, x)}; }

#include "kernels/cpu/block.inl"
#include "kernels/cpu/loops.inl"

// Four products of a byte without a sign and one with, of which two fit in 16 bits.
inline __m256i dot_bytes(__m256i acc, __m256i plain, __m256i with_sign) {
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(plain, with_sign), _mm256_set1_epi16(1)));
}
inline I16 dot_bytes(I16 acc, I16 plain, I16 with_sign) { return {dot_bytes(acc.lo, plain.lo, with_sign.lo), dot_bytes(acc.hi, plain.hi, with_sign.hi)}; }
#include "kernels/cpu/attend_pages.inl"
#include "kernels/cpu/attend_codes.inl"
#include "kernels/cpu/attention.inl"

constexpr int kQuantizedRows = 1;
constexpr int kSumRegisters = 8;

#include "kernels/cpu/quantized.inl"
#include "kernels/cpu/quantize_rows.inl"

struct Pairs {
  V16 even, odd;
};
inline __m256 even_of(__m256 pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16)); }
inline __m256 odd_of(__m256 pairs) { return _mm256_and_ps(pairs, _mm256_castsi256_ps(_mm256_set1_epi32(-0x10000))); }
inline Pairs split(V16 pairs) { return {{even_of(pairs.lo), even_of(pairs.hi)}, {odd_of(pairs.lo), odd_of(pairs.hi)}}; }
template <Packing P>
inline auto load_weights(const uint8_t* p) {
  if constexpr (P == Packing::f16) {
    const auto eight = [p](int i) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + i)); };
    return V16{eight(0), eight(1)};
  } else {
    const V16 four_bytes = {_mm256_castsi256_ps(load32(p)), _mm256_castsi256_ps(load32(p + 32))};
    if constexpr (P == Packing::f32) return four_bytes;
    else return split(four_bytes);
  }
}
// 6 × 1 sums of two registers, a weight, a broadcast: 15 of 16 registers; with pairs 4 × 1 sums, 4 and 2.
constexpr int tile_panels(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }
constexpr int tile_rows(Packing packing) { return packing == Packing::bf16 ? 4 : 6; }

#include "kernels/cpu/matmul.inl"

constexpr Kernels kTable{Isa::avx2, "avx2", matmul, quantized_matmul, round_rows, quantize_rows, dot, rms_norm, rope, silu_mul, silu, add, scaled_add,
                         store_slot, attend_scores, code_scores, attend_softmax, attend_values, code_values, log_sum_exp, exp_shifted, argmax};

}  // namespace
const Kernels* const kAvx2 = &kTable;
}  // namespace fathom::kernels

