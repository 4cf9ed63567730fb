// Sixteen f32 and i32 lanes of AVX-512 (F, VL, BW, DQ): what avx512.cpp and avx512vnni.cpp build their loops on.

using V16 = __m512;
constexpr int kAttendSums = 16;    // independent sums in attention (32 registers)
constexpr int kAttendTile = 8;     // queries that share a loaded key or value
constexpr int kAttendDigits = 24;  // independent sums of codes

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
  // scalef rounds once, as the two products of the definition, whose first is exact; NaN comes through by itself.
  const V16 e = _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, set1(-87.33654f), _CMP_NLT_UQ), y, n);
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, set1(88.72283f), _CMP_GT_OQ), e, set1(__builtin_inff()));
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

using I16 = __m512i;
inline I16 splat(int32_t x) { return _mm512_set1_epi32(x); }
inline I16 add(I16 a, I16 b) { return _mm512_add_epi32(a, b); }
inline I16 load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline I16 load_byte_codes(const uint8_t* p) { return load_bytes(p); }  // dot4 takes codes without a sign
constexpr int kByteZero = 128;
inline I16 low_nibbles(I16 v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
inline I16 high_nibbles(I16 v) { return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15)); }
inline I16 shift_left(I16 v, int n) { return _mm512_sll_epi32(v, _mm_cvtsi32_si128(n)); }
inline I16 shift_right(I16 v, int n) { return _mm512_srl_epi32(v, _mm_cvtsi32_si128(n)); }
inline I16 or_masked(I16 a, I16 b, I16 mask) { return _mm512_ternarylogic_epi32(a, b, mask, 0xf8); }  // a | (b & mask)
inline V16 to_float(I16 v) { return _mm512_cvtepi32_ps(v); }
inline V16 load_halves(const uint8_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline V16 load_signed_bytes(const uint8_t* p) { return to_float(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))); }
inline V16 load_bf16(const uint8_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}
inline uint16_t half_of(float x) { return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT)); }
inline void store_halves(uint8_t* p, V16 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void store_bf16(uint8_t* p, V16 v) {  // not the instruction of that name, which flushes small numbers to zero
  const __m512i bits = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i whole = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), rounded, quiet);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(whole, 16)));
}
inline int32_t four_codes(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return four;
}

inline uint32_t greatest_magnitude(V16 lo, V16 hi) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  return _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(lo), magnitude),
                                                  _mm512_and_si512(_mm512_castps_si512(hi), magnitude)));
}
inline uint32_t greatest_magnitude(V16 a, V16 b, V16 c, V16 d) {
  const auto bits = [](V16 x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)); };
  return _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_max_epu32(bits(a), bits(b)), _mm512_max_epu32(bits(c), bits(d))));
}
// Sixteen numbers as the nearest whole ones (ties to even), high · 128 + low with low in [−Bias, 128 − Bias).
template <int Bias>
inline void store_digits(V16 x, int8_t* high, int8_t* low) {
  const __m512i code = _mm512_cvtps_epi32(x), upper = _mm512_srai_epi32(_mm512_add_epi32(code, _mm512_set1_epi32(Bias)), 7);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm512_cvtepi32_epi8(upper));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(_mm512_sub_epi32(code, _mm512_slli_epi32(upper, 7))));
}
// 32 codes, each the nearest whole number (ties to even), −127 to 127, and the sums of the first and last 16.
inline void store_codes(int8_t* to, V16 lo, V16 hi, int32_t* sums) {
  const __m512i a = _mm512_cvtps_epi32(lo), b = _mm512_cvtps_epi32(hi);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(a));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16), _mm512_cvtepi32_epi8(b));
  sums[0] = _mm512_reduce_add_epi32(a), sums[1] = _mm512_reduce_add_epi32(b);
}
