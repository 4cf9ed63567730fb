// Sixteen f32 and i32 lanes of AVX2 with FMA and F16C, two registers each: what avx2.cpp and avxvnni.cpp build their loops on.

struct V16 {
  __m256 lo, hi;
};
constexpr int kAttendSums = 4;     // independent sums in attention: 8 of 16 registers
constexpr int kAttendTile = 4;     // queries that share a loaded key or value
constexpr int kAttendDigits = 4;   // independent sums of codes

// Lane i of the mask at offset 16 − n is set when i < n.
alignas(64) constexpr int kMasks[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
inline __m256i mask_lo(int64_t n) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMasks + 16 - n)); }
inline __m256i mask_hi(int64_t n) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMasks + 24 - n)); }

inline V16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline V16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline V16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline V16 load_first(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, mask_lo(n)), _mm256_maskload_ps(p + 8, mask_hi(n))};
}
inline void store(float* p, V16 v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
inline void store_first(float* p, int64_t n, V16 v) {
  _mm256_maskstore_ps(p, mask_lo(n), v.lo);
  _mm256_maskstore_ps(p + 8, mask_hi(n), v.hi);
}
inline V16 add(V16 a, V16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline V16 sub(V16 a, V16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline V16 mul(V16 a, V16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline V16 div(V16 a, V16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline V16 negate(V16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}
inline V16 fma(V16 a, V16 b, V16 c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
inline V16 greater_of(V16 a, V16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }  // as a > b ? a : b
inline V16 tail_select(int64_t n, V16 a, V16 b) {
  return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(mask_lo(n))),
          _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(mask_hi(n)))};
}

inline float sum(V16 v) {
  const __m256 eight = _mm256_add_ps(v.lo, v.hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

inline __m256 exp8(__m256 x) {
  const auto c = [](float f) { return _mm256_set1_ps(f); };
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, c(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fmadd_ps(n, c(-0.693359375f), x);
  r = _mm256_fmadd_ps(n, c(2.12194440e-4f), r);
  __m256 p = c(1.9875691500e-4f);
  p = _mm256_fmadd_ps(p, r, c(1.3981999507e-3f));
  p = _mm256_fmadd_ps(p, r, c(8.3334519073e-3f));
  p = _mm256_fmadd_ps(p, r, c(4.1665795894e-2f));
  p = _mm256_fmadd_ps(p, r, c(1.6666665459e-1f));
  p = _mm256_fmadd_ps(p, r, c(5.0000001201e-1f));
  const __m256 y = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), c(1.0f));
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  const __m256 low = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 high = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23));
  __m256 e = _mm256_mul_ps(_mm256_mul_ps(y, low), high);
  e = _mm256_blendv_ps(e, _mm256_setzero_ps(), _mm256_cmp_ps(x, c(-87.33654f), _CMP_LT_OQ));
  e = _mm256_blendv_ps(e, c(__builtin_inff()), _mm256_cmp_ps(x, c(88.72283f), _CMP_GT_OQ));
  return _mm256_blendv_ps(e, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}
inline V16 exp(V16 x) { return {exp8(x.lo), exp8(x.hi)}; }

struct MaxTracker {
  V16 best = set1(-__builtin_inff());
  __m256i lo = _mm256_setzero_si256(), hi = _mm256_setzero_si256();
  void see(V16 x, int at) {
    const __m256 more_lo = _mm256_cmp_ps(x.lo, best.lo, _CMP_GT_OQ), more_hi = _mm256_cmp_ps(x.hi, best.hi, _CMP_GT_OQ);
    const __m256i block = _mm256_set1_epi32(at);
    best = {_mm256_blendv_ps(best.lo, x.lo, more_lo), _mm256_blendv_ps(best.hi, x.hi, more_hi)};
    lo = _mm256_blendv_epi8(lo, block, _mm256_castps_si256(more_lo));
    hi = _mm256_blendv_epi8(hi, block, _mm256_castps_si256(more_hi));
  }
  void write(float* value, int* at) const {
    store(value, best);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), lo);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at + 8), hi);
  }
};

struct I16 {
  __m256i lo, hi;
};
inline I16 splat(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I16 add(I16 a, I16 b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
inline __m256i load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline I16 load_bytes(const uint8_t* p) { return {load32(p), load32(p + 32)}; }
inline I16 load_byte_codes(const uint8_t* p) { return load_bytes(p); }  // dot4 takes codes without a sign
constexpr int kByteZero = 128;
inline I16 low_nibbles(I16 v) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(v.lo, mask), _mm256_and_si256(v.hi, mask)};
}
inline I16 high_nibbles(I16 v) { return low_nibbles({_mm256_srli_epi16(v.lo, 4), _mm256_srli_epi16(v.hi, 4)}); }
inline I16 shift_left(I16 v, int n) {
  const __m128i by = _mm_cvtsi32_si128(n);
  return {_mm256_sll_epi32(v.lo, by), _mm256_sll_epi32(v.hi, by)};
}
inline I16 shift_right(I16 v, int n) {
  const __m128i by = _mm_cvtsi32_si128(n);
  return {_mm256_srl_epi32(v.lo, by), _mm256_srl_epi32(v.hi, by)};
}
inline I16 or_masked(I16 a, I16 b, I16 mask) {  // a | (b & mask)
  return {_mm256_or_si256(a.lo, _mm256_and_si256(b.lo, mask.lo)), _mm256_or_si256(a.hi, _mm256_and_si256(b.hi, mask.hi))};
}
inline V16 to_float(I16 v) { return {_mm256_cvtepi32_ps(v.lo), _mm256_cvtepi32_ps(v.hi)}; }
inline V16 load_halves(const uint8_t* p) {
  const __m256i halves = load32(p);
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}
inline V16 load_signed_bytes(const uint8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return to_float({_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes))});
}
inline __m256 bf16_eight(const uint8_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
inline V16 load_bf16(const uint8_t* p) { return {bf16_eight(p), bf16_eight(p + 16)}; }
inline uint16_t half_of(float x) { return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT)); }
inline void store16(uint8_t* p, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
inline void store_halves(uint8_t* p, V16 v) {
  store16(p, _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT));
  store16(p + 16, _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT));
}
inline __m256i bf16_whole(__m256 v) {  // in the upper half of each lane
  const __m256i bits = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q))), 16);
}
inline void store_bf16(uint8_t* p, V16 v) {
  const __m256i both = _mm256_packus_epi32(bf16_whole(v.lo), bf16_whole(v.hi));  // four of each in turn
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(both, 0xd8));
}
inline __m256i magnitudes(__m256 x) { return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff)); }
inline __m256i greatest_of(V16 a, V16 b) {
  return _mm256_max_epu32(_mm256_max_epu32(magnitudes(a.lo), magnitudes(a.hi)), _mm256_max_epu32(magnitudes(b.lo), magnitudes(b.hi)));
}
inline uint32_t greatest_lane(__m256i v) {
  const __m128i four = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  const __m128i two = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32(two, 1))));
}
inline uint32_t greatest_magnitude(V16 lo, V16 hi) { return greatest_lane(greatest_of(lo, hi)); }
inline uint32_t greatest_magnitude(V16 a, V16 b, V16 c, V16 d) { return greatest_lane(_mm256_max_epu32(greatest_of(a, b), greatest_of(c, d))); }
// Sixteen numbers as the nearest whole ones (ties to even), high · 128 + low with low in [−Bias, 128 − Bias).
template <int Bias>
inline void store_digits(V16 x, int8_t* high, int8_t* low) {
  const __m256i a = _mm256_cvtps_epi32(x.lo), b = _mm256_cvtps_epi32(x.hi), bias = _mm256_set1_epi32(Bias);
  const __m256i upper_a = _mm256_srai_epi32(_mm256_add_epi32(a, bias), 7), upper_b = _mm256_srai_epi32(_mm256_add_epi32(b, bias), 7);
  const __m256i lower_a = _mm256_sub_epi32(a, _mm256_slli_epi32(upper_a, 7)), lower_b = _mm256_sub_epi32(b, _mm256_slli_epi32(upper_b, 7));
  // Four of each in turn: upper_a, upper_b, lower_a, lower_b in a lane of 16 bytes.
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(_mm256_packs_epi32(upper_a, upper_b), _mm256_packs_epi32(lower_a, lower_b)),
                                                    _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm256_castsi256_si128(bytes));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm256_extracti128_si256(bytes, 1));
}
inline int32_t sum_of(__m256i v) {
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
// 32 codes, each the nearest whole number (ties to even), −127 to 127, and the sums of the first and last 16.
inline void store_codes(int8_t* to, V16 lo, V16 hi, int32_t* sums) {
  const __m256i a = _mm256_cvtps_epi32(lo.lo), b = _mm256_cvtps_epi32(lo.hi), c = _mm256_cvtps_epi32(hi.lo), d = _mm256_cvtps_epi32(hi.hi);
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));  // four of each in turn
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  sums[0] = sum_of(_mm256_add_epi32(a, b)), sums[1] = sum_of(_mm256_add_epi32(c, d));
}
