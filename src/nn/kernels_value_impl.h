// Part of kernels_impl.h: one value at a time, loaded, stored, and its e^x.
#pragma once
#include <cstdint>

#include "nn/kernels.h"

namespace fathom::nn {
namespace {

inline float get(float x) { return x; }
inline double get(double x) { return x; }
inline float get(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}
inline void put(float* to, float x) { *to = x; }
inline void put(double* to, double x) { *to = x; }
inline void put(Bf16* to, float x) {  // to nearest, ties to even
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  to->bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// e^x without a branch, so that loops over it become vector code: 2^n · p(r), |r| ≤ ln2/2, Cephes' polynomial, 2 ulp.
inline float exponential(float x) {
  x = x > -87.0f ? x : -87.0f;
  x = x < 88.0f ? x : 88.0f;
  const float shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5·2^23: the integer ends up in the low bits
  int32_t n;
  __builtin_memcpy(&n, &shifted, 4);
  n -= 0x4b400000;
  const float m = static_cast<float>(n);
  const float r = (x - m * 0.693359375f) - m * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (n + 127) << 23;
  float scale;
  __builtin_memcpy(&scale, &bits, 4);
  return p * scale;
}
inline double exponential(double x) { return __builtin_exp(x); }

template <class P>
inline P silu_sigmoid(P x) {
  return P(1) / (P(1) + exponential(-x));
}

template <class P>
constexpr P kMinusInfinity = -__builtin_huge_val();

}  // namespace
}  // namespace fathom::nn
