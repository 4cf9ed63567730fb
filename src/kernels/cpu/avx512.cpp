// Kernels for AVX-512 (F, VL, BW, DQ): a V16 is one register.
#include "kernels/tables.h"

#if defined(__AVX512F__) && defined(__AVX512VL__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#include <immintrin.h>

namespace fathom::kernels {
namespace {

using V16 = __m512;
constexpr int kAttendSums = 16;    // independent sums in attention (32 registers)
constexpr int kAttendQueries = 8;  // of one tile

inline __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
inline V16 zero() { return _mm512_setzero_ps(); }
inline V16 set1(float x) { return _mm512_set1_ps(x); }
inline V16 load(const float* p) { return _mm512_loadu_ps(p); }
inline V16 load_first(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void store(float* p, V16 v) { _mm512_storeu_ps(p, v); }
inline void store_first(float* p, int64_t n, V16 v) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
inline V16 add(V16 a, V16 b) { return _mm512_add_ps(a, b); }
inline V16 sub(V16 a, V16 b) { return _mm512_sub_ps(a, b); }
inline V16 mul(V16 a, V16 b) { return _mm512_mul_ps(a, b); }
inline V16 div(V16 a, V16 b) { return _mm512_div_ps(a, b); }
inline V16 negate(V16 a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
inline V16 fma(V16 a, V16 b, V16 c) { return _mm512_fmadd_ps(a, b, c); }
inline V16 greater_of(V16 a, V16 b) { return _mm512_max_ps(a, b); }  // b when either is NaN, as a > b ? a : b
inline V16 tail_select(int64_t n, V16 a, V16 b) { return _mm512_mask_blend_ps(first_lanes(n), b, a); }

inline float sum(V16 v) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

inline V16 exp(V16 x) {
  const V16 n = _mm512_roundscale_ps(mul(x, set1(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  V16 r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  V16 p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  const V16 y = add(fma(p, mul(r, r), r), set1(1.0f));
  const __m512i whole = _mm512_cvtps_epi32(n), half = _mm512_srai_epi32(whole, 1), bias = _mm512_set1_epi32(127);
  const V16 low = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
  const V16 high = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_sub_epi32(whole, half), bias), 23));
  V16 e = mul(mul(y, low), high);
  e = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, set1(-87.33654f), _CMP_LT_OQ), e, zero());
  e = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, set1(88.72283f), _CMP_GT_OQ), e, set1(__builtin_inff()));
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), e, x);
}

struct MaxTracker {
  V16 best = set1(-__builtin_inff());
  __m512i block = _mm512_setzero_si512();
  void see(V16 x, int at) {
    const __mmask16 more = _mm512_cmp_ps_mask(x, best, _CMP_GT_OQ);
    best = _mm512_mask_blend_ps(more, best, x);
    block = _mm512_mask_set1_epi32(block, more, at);
  }
  void write(float* value, int* at) const {
    _mm512_storeu_ps(value, best);
    _mm512_storeu_si512(at, block);
  }
};

#include "kernels/cpu/loops.inl"

// R rows of x with W vectors of outputs: R·W sums in registers, the weights read once for the R rows.
template <int R, int W>
void product_tile(const float* x, int64_t x_stride, const float* w, int64_t inner, float* y, int64_t y_stride,
                  int64_t outputs) {
  V16 acc[R][W];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < W; ++n) acc[r][n] = zero();
  const float* row[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) row[r] = x + r * x_stride;
  for (int64_t k = 0; k < inner; ++k) {
    V16 weight[W];
#pragma GCC unroll 8
    for (int n = 0; n < W; ++n) weight[n] = load(w + (k * W + n) * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V16 value = set1(row[r][k]);
#pragma GCC unroll 8
      for (int n = 0; n < W; ++n) acc[r][n] = fma(value, weight[n], acc[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < W; ++n) {
      const int64_t left = outputs - n * kLanes;
      if (left >= kLanes) store(y + r * y_stride + n * kLanes, acc[r][n]);
      else store_first(y + r * y_stride + n * kLanes, left, acc[r][n]);
    }
}

constexpr int kRows = 6;  // 6 × 4 sums, 4 weights, 1 broadcast: 29 of 32 registers

template <int W>
void product_group(const Matmul& a, const float* w, int64_t first) {
  const int64_t outputs = min64(kGroup, a.outputs - first);
  int64_t r = 0;
  for (; r + kRows <= a.rows; r += kRows)
    product_tile<kRows, W>(a.x + r * a.x_stride, a.x_stride, w, a.inner, a.y + r * a.y_stride + first, a.y_stride, outputs);
  const float* const x = a.x + r * a.x_stride;
  float* const y = a.y + r * a.y_stride + first;
  switch (a.rows - r) {
    case 5: return product_tile<5, W>(x, a.x_stride, w, a.inner, y, a.y_stride, outputs);
    case 4: return product_tile<4, W>(x, a.x_stride, w, a.inner, y, a.y_stride, outputs);
    case 3: return product_tile<3, W>(x, a.x_stride, w, a.inner, y, a.y_stride, outputs);
    case 2: return product_tile<2, W>(x, a.x_stride, w, a.inner, y, a.y_stride, outputs);
    case 1: return product_tile<1, W>(x, a.x_stride, w, a.inner, y, a.y_stride, outputs);
  }
}

void matmul(const Matmul& a) {
  for (int64_t group = a.group_begin; group < a.group_end; ++group) {
    const int64_t first = group * kGroup;
    const float* const w = a.packed + first * a.inner;
    switch (min64(kGroup, a.outputs - first + kLanes - 1) / kLanes) {
      case 4: product_group<4>(a, w, first); break;
      case 3: product_group<3>(a, w, first); break;
      case 2: product_group<2>(a, w, first); break;
      default: product_group<1>(a, w, first); break;
    }
  }
}

constexpr Kernels kTable{Isa::avx512, "avx512", matmul, dot, rms_norm, rope, silu_mul, silu, add, gated_add,
                         attend, log_sum_exp, exp_shifted, argmax};

}  // namespace
const Kernels* const kAvx512 = &kTable;
}  // namespace fathom::kernels

#else
namespace fathom::kernels {
const Kernels* const kAvx512 = nullptr;
}
#endif
