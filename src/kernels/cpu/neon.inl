// Sixteen f32 and i32 lanes of NEON, four registers each: what neon.cpp and neondot.cpp build their loops on.

struct V16 {
  float32x4_t q[4];
};
struct I16 {
  int32x4_t q[4];
};
constexpr int kAttendSums = 4;     // independent sums in attention: 16 of 32 registers
constexpr int kAttendTile = 4;     // queries that share a loaded key or value
constexpr int kAttendDigits = 4;   // independent sums of codes

// `op` of each register.
template <typename Op, typename... Values>
inline V16 floats(Op op, const Values&... v) { return {op(v.q[0]...), op(v.q[1]...), op(v.q[2]...), op(v.q[3]...)}; }
template <typename Op, typename... Values>
inline I16 wholes(Op op, const Values&... v) { return {op(v.q[0]...), op(v.q[1]...), op(v.q[2]...), op(v.q[3]...)}; }

// Lane i of the mask at offset 16 − n is set when i < n.
alignas(64) constexpr uint32_t kMasks[32] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};

inline V16 set1(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {v, v, v, v};
}
inline V16 zero() { return set1(0); }
inline V16 load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
inline V16 load_first(const float* p, int64_t n) {
  float lane[kLanes] = {};
  __builtin_memcpy(lane, p, static_cast<size_t>(n) * sizeof *p);
  return load(lane);
}
inline void store(float* p, V16 v) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, v.q[i]);
}
inline void store_first(float* p, int64_t n, V16 v) {
  float lane[kLanes];
  store(lane, v);
  __builtin_memcpy(p, lane, static_cast<size_t>(n) * sizeof *p);
}
inline V16 add(V16 a, V16 b) { return floats([](auto x, auto y) { return vaddq_f32(x, y); }, a, b); }
inline V16 sub(V16 a, V16 b) { return floats([](auto x, auto y) { return vsubq_f32(x, y); }, a, b); }
inline V16 mul(V16 a, V16 b) { return floats([](auto x, auto y) { return vmulq_f32(x, y); }, a, b); }
inline V16 div(V16 a, V16 b) { return floats([](auto x, auto y) { return vdivq_f32(x, y); }, a, b); }
inline V16 negate(V16 a) { return floats([](auto x) { return vnegq_f32(x); }, a); }
inline V16 fma(V16 a, V16 b, V16 c) { return floats([](auto x, auto y, auto z) { return vfmaq_f32(z, x, y); }, a, b, c); }
inline V16 greater_of(V16 a, V16 b) {  // a > b ? a : b, not vmaxq, whose result is NaN where one of them is
  return floats([](auto x, auto y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }, a, b);
}
inline V16 tail_select(int64_t n, V16 a, V16 b) {
  const uint32_t* const mask = kMasks + 16 - n;
  V16 out;
  for (int i = 0; i < 4; ++i) out.q[i] = vbslq_f32(vld1q_u32(mask + 4 * i), a.q[i], b.q[i]);
  return out;
}

inline float sum(V16 v) {
  const float32x4_t four = vaddq_f32(vaddq_f32(v.q[0], v.q[2]), vaddq_f32(v.q[1], v.q[3]));
  return vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}

inline float32x4_t exp4(float32x4_t x) {
  const auto c = [](float f) { return vdupq_n_f32(f); };
  const float32x4_t n = vrndnq_f32(vmulq_f32(x, c(1.44269504f)));
  float32x4_t r = vfmaq_f32(x, n, c(-0.693359375f));
  r = vfmaq_f32(r, n, c(2.12194440e-4f));
  float32x4_t p = c(1.9875691500e-4f);
  p = vfmaq_f32(c(1.3981999507e-3f), p, r);
  p = vfmaq_f32(c(8.3334519073e-3f), p, r);
  p = vfmaq_f32(c(4.1665795894e-2f), p, r);
  p = vfmaq_f32(c(1.6666665459e-1f), p, r);
  p = vfmaq_f32(c(5.0000001201e-1f), p, r);
  const float32x4_t y = vaddq_f32(vfmaq_f32(r, p, vmulq_f32(r, r)), c(1.0f));
  const int32x4_t whole = vcvtnq_s32_f32(n), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
  const float32x4_t low = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
  const float32x4_t high = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23));
  float32x4_t e = vmulq_f32(vmulq_f32(y, low), high);
  e = vbslq_f32(vcltq_f32(x, c(-87.33654f)), c(0.0f), e);
  e = vbslq_f32(vcgtq_f32(x, c(88.72283f)), c(__builtin_inff()), e);
  return vbslq_f32(vceqq_f32(x, x), e, x);
}
inline V16 exp(V16 x) { return floats(exp4, x); }

struct MaxTracker {
  V16 best = set1(-__builtin_inff());
  int32x4_t block[4] = {};
  void see(V16 x, int at) {
    for (int i = 0; i < 4; ++i) {
      const uint32x4_t more = vcgtq_f32(x.q[i], best.q[i]);
      best.q[i] = vbslq_f32(more, x.q[i], best.q[i]);
      block[i] = vbslq_s32(more, vdupq_n_s32(at), block[i]);
    }
  }
  void write(float* value, int* at) const {
    store(value, best);
    for (int i = 0; i < 4; ++i) vst1q_s32(at + 4 * i, block[i]);
  }
};

inline int8x16_t bytes_of(int32x4_t v) { return vreinterpretq_s8_s32(v); }
inline I16 splat(int32_t x) {
  const int32x4_t v = vdupq_n_s32(x);
  return {v, v, v, v};
}
inline I16 add(I16 a, I16 b) { return wholes([](auto x, auto y) { return vaddq_s32(x, y); }, a, b); }
inline int32x4_t load16(const uint8_t* p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
inline I16 load_bytes(const uint8_t* p) { return {load16(p), load16(p + 16), load16(p + 32), load16(p + 48)}; }
inline I16 load_byte_codes(const uint8_t* p) {  // dot4 takes bytes with a sign: code − 128
  return wholes([](auto x) { return veorq_s32(x, vdupq_n_s32(static_cast<int32_t>(0x80808080))); }, load_bytes(p));
}
constexpr int kByteZero = 0;
inline I16 low_nibbles(I16 v) { return wholes([](auto x) { return vandq_s32(x, vdupq_n_s32(0x0f0f0f0f)); }, v); }
inline I16 high_nibbles(I16 v) { return wholes([](auto x) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(x), 4)); }, v); }
inline I16 shift_left(I16 v, int n) { return wholes([n](auto x) { return vshlq_s32(x, vdupq_n_s32(n)); }, v); }
inline I16 shift_right(I16 v, int n) {
  return wholes([n](auto x) { return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), vdupq_n_s32(-n))); }, v);
}
inline I16 or_masked(I16 a, I16 b, I16 mask) {  // a | (b & mask)
  return wholes([](auto x, auto y, auto m) { return vorrq_s32(x, vandq_s32(y, m)); }, a, b, mask);
}
inline V16 to_float(I16 v) { return floats([](auto x) { return vcvtq_f32_s32(x); }, v); }
inline float32x4_t load_halves4(const uint8_t* p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
inline V16 load_halves(const uint8_t* p) { return {load_halves4(p), load_halves4(p + 8), load_halves4(p + 16), load_halves4(p + 24)}; }
inline V16 load_bf16(const uint8_t* p) {
  const auto widened = [p](int i) { return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vreinterpret_u16_u8(vld1_u8(p + 8 * i))), 16)); };
  return {widened(0), widened(1), widened(2), widened(3)};
}
inline void store_halves(uint8_t* p, V16 v) {
  for (int i = 0; i < 4; ++i) vst1_u8(p + 8 * i, vreinterpret_u8_f16(vcvt_f16_f32(v.q[i])));
}
inline uint16_t half_of(float x) { return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(x))), 0); }
inline void store_bf16(uint8_t* p, V16 v) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v.q[i]), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    vst1_u8(p + 8 * i, vreinterpret_u8_u16(vshrn_n_u32(vbslq_u32(vceqq_f32(v.q[i], v.q[i]), rounded, quiet), 16)));
  }
}
inline V16 load_signed_bytes(const uint8_t* p) {
  const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(p));
  const int16x8_t lo = vmovl_s8(vget_low_s8(bytes)), hi = vmovl_high_s8(bytes);
  return to_float({vmovl_s16(vget_low_s16(lo)), vmovl_high_s16(lo), vmovl_s16(vget_low_s16(hi)), vmovl_high_s16(hi)});
}
using Activations = int8x16_t;
inline Activations broadcast4(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return bytes_of(vdupq_n_s32(four));
}
constexpr int kQuantizedRows = 1;
constexpr int kSumRegisters = 8;

inline uint32x4_t greatest_of(V16 v) {
  const auto bits = [](float32x4_t x) { return vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7fffffff)); };
  return vmaxq_u32(vmaxq_u32(bits(v.q[0]), bits(v.q[1])), vmaxq_u32(bits(v.q[2]), bits(v.q[3])));
}
inline uint32_t greatest_magnitude(V16 lo, V16 hi) { return vmaxvq_u32(vmaxq_u32(greatest_of(lo), greatest_of(hi))); }
inline uint32_t greatest_magnitude(V16 a, V16 b, V16 c, V16 d) {
  return vmaxvq_u32(vmaxq_u32(vmaxq_u32(greatest_of(a), greatest_of(b)), vmaxq_u32(greatest_of(c), greatest_of(d))));
}
inline void store_bytes(int8_t* to, I16 v) {  // their low bytes
  const int16x8_t lo = vcombine_s16(vmovn_s32(v.q[0]), vmovn_s32(v.q[1])), hi = vcombine_s16(vmovn_s32(v.q[2]), vmovn_s32(v.q[3]));
  vst1q_s8(to, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
}
// Sixteen numbers as the nearest whole ones (ties to even), high · 128 + low with low in [−Bias, 128 − Bias).
template <int Bias>
inline void store_digits(V16 x, int8_t* high, int8_t* low) {
  I16 upper, lower;
  for (int i = 0; i < 4; ++i) {
    const int32x4_t code = vcvtnq_s32_f32(x.q[i]);
    upper.q[i] = vshrq_n_s32(vaddq_s32(code, vdupq_n_s32(Bias)), 7);
    lower.q[i] = vsubq_s32(code, vshlq_n_s32(upper.q[i], 7));
  }
  store_bytes(high, upper), store_bytes(low, lower);
}
// Sixteen codes, each the nearest whole number (ties to even), −127 to 127; returns their sum.
inline int32_t store_half(int8_t* to, V16 v) {
  const I16 code = wholes([](auto x) { return vcvtnq_s32_f32(x); }, v);
  store_bytes(to, code);
  return vaddvq_s32(vaddq_s32(vaddq_s32(code.q[0], code.q[1]), vaddq_s32(code.q[2], code.q[3])));
}
inline void store_codes(int8_t* to, V16 lo, V16 hi, int32_t* sums) { sums[0] = store_half(to, lo), sums[1] = store_half(to + 16, hi); }
