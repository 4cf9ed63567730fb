// Kernels for AVX-512 (F, VL, BW, DQ): a V16 is one register.
#include <immintrin.h>

#include "kernels/bf16.h"
#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

#include "kernels/cpu/avx512.inl"

#include "kernels/cpu/block.inl"
#include "kernels/cpu/loops.inl"

// Four products of a byte without a sign and one with, of which two fit in 16 bits.
inline I16 dot_bytes(I16 acc, I16 plain, I16 with_sign) {
  return _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(plain, with_sign), _mm512_set1_epi16(1)));
}
#include "kernels/cpu/attend_pages.inl"
#include "kernels/cpu/attend_codes.inl"
#include "kernels/cpu/attention.inl"

// Without VNNI: even and odd bytes as 16-bit numbers, whose products are added in pairs.
struct Activations {
  __m512i even, odd;
};
inline Activations broadcast4(const int8_t* p) {
  const __m512i four = _mm512_set1_epi32(four_codes(p));
  return {_mm512_srai_epi16(_mm512_slli_epi16(four, 8), 8), _mm512_srai_epi16(four, 8)};
}
inline I16 dot4(I16 acc, I16 codes, Activations x) {
  const __m512i even = _mm512_and_si512(codes, _mm512_set1_epi16(255)), odd = _mm512_srli_epi16(codes, 8);
  return _mm512_add_epi32(acc, _mm512_add_epi32(_mm512_madd_epi16(even, x.even), _mm512_madd_epi16(odd, x.odd)));
}
constexpr int kQuantizedRows = 3;
constexpr int kSumRegisters = 24;

#include "kernels/cpu/quantized.inl"
#include "kernels/cpu/quantize_rows.inl"

struct Pairs {
  V16 even, odd;
};
inline Pairs split(V16 pairs) {
  const __m512i bits = _mm512_castps_si512(pairs);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)), _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(-0x10000)))};
}
template <Packing P>
inline auto load_weights(const uint8_t* p) {
  if constexpr (P == Packing::f32) return _mm512_loadu_ps(p);
  else if constexpr (P == Packing::f16) return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  else return split(_mm512_loadu_ps(p));
}
// 6 × 4 sums, 4 weights, 1 broadcast: 29 of 32 registers; with pairs 5 × 4, 8 and 2.
constexpr int tile_panels(int) { return 4; }
constexpr int tile_rows(Packing packing) { return packing == Packing::bf16 ? 5 : 6; }

#include "kernels/cpu/matmul.inl"

constexpr Kernels kTable{Isa::avx512, "avx512", matmul, quantized_matmul, round_rows, quantize_rows, dot, rms_norm, rope, silu_mul, silu, add, scaled_add,
                         store_slot, attend_scores, code_scores, attend_softmax, attend_values, code_values, log_sum_exp, exp_shifted, argmax};

}  // namespace
const Kernels* const kAvx512 = &kTable;
}  // namespace fathom::kernels

