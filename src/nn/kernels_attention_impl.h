// Part of kernels_impl.h: attention of one head, and the small products that it is made of.
#pragma once
#include <cmath>
#include <cstdint>

#include "nn/kernels_value_impl.h"

namespace fathom::nn {
namespace {

// ---- small products ------------------------------------------------------------------------------------------------
// C[m, n] (+)= Σ_k A[m·a_row + k·a_k] · B[k·ldb + n]. A is read element by element (broadcast), so either of its strides may
// be 1; B and C in vectors of `kLanes`, whose rows are padded to whole vectors.

template <class P>
constexpr int kLanes = FATHOM_VECTOR_BYTES / static_cast<int>(sizeof(P));
template <class P>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(FATHOM_VECTOR_BYTES), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(FATHOM_VECTOR_BYTES), aligned(8), may_alias));
};

template <class P, int MR, int NV>
inline __attribute__((always_inline)) void tile(int64_t K, const P* A, int64_t a_row, int64_t a_k, const P* B, int64_t ldb, P* C, int64_t ldc, bool add_c) {
  using V = typename VectorOf<P>::type;
  V sum[MR][NV];
  for (int m = 0; m < MR; ++m)
    for (int n = 0; n < NV; ++n) sum[m][n] = add_c ? *reinterpret_cast<const V*>(C + m * ldc + n * kLanes<P>) : V{};
  for (int64_t k = 0; k < K; ++k) {
    V b[NV];
    for (int n = 0; n < NV; ++n) b[n] = *reinterpret_cast<const V*>(B + k * ldb + n * kLanes<P>);
    for (int m = 0; m < MR; ++m) {
      const P a = A[m * a_row + k * a_k];
      for (int n = 0; n < NV; ++n) sum[m][n] += a * b[n];
    }
  }
  for (int m = 0; m < MR; ++m)
    for (int n = 0; n < NV; ++n) *reinterpret_cast<V*>(C + m * ldc + n * kLanes<P>) = sum[m][n];
}

template <class P, int NV>
inline void columns(int64_t M, int64_t K, const P* A, int64_t a_row, int64_t a_k, const P* B, int64_t ldb, P* C, int64_t ldc, bool add_c) {
  constexpr int MR = FATHOM_TILE_ROWS;
  int64_t m = 0;
  for (; m + MR <= M; m += MR) tile<P, MR, NV>(K, A + m * a_row, a_row, a_k, B, ldb, C + m * ldc, ldc, add_c);
  for (; m + 2 <= M; m += 2) tile<P, 2, NV>(K, A + m * a_row, a_row, a_k, B, ldb, C + m * ldc, ldc, add_c);
  for (; m < M; ++m) tile<P, 1, NV>(K, A + m * a_row, a_row, a_k, B, ldb, C + m * ldc, ldc, add_c);
}

template <class P>
inline void product(int64_t M, int64_t N, int64_t K, const P* A, int64_t a_row, int64_t a_k, const P* B, int64_t ldb, P* C, int64_t ldc, bool add_c) {
  constexpr int NV = FATHOM_TILE_VECTORS, L = kLanes<P>;
  int64_t n = 0;
  for (; n + NV * L <= N; n += NV * L) columns<P, NV>(M, K, A, a_row, a_k, B + n, ldb, C + n, ldc, add_c);
  if constexpr (NV > 2)
    for (; n + 2 * L <= N; n += 2 * L) columns<P, 2>(M, K, A, a_row, a_k, B + n, ldb, C + n, ldc, add_c);
  for (; n < N; n += L) columns<P, 1>(M, K, A, a_row, a_k, B + n, ldb, C + n, ldc, add_c);
}

// ---- attention -----------------------------------------------------------------------------------------------------

constexpr int64_t kQueries = 32;  // queries at a time: 1/16 of the products at T 256 falls on masked keys; 64 wasted 1/8

template <class P>
inline int64_t padded(int64_t n) {
  return (n + kLanes<P> - 1) / kLanes<P> * kLanes<P>;
}

template <class P>
int64_t attention_scratch(int64_t nq, int64_t nk, int64_t D) {
  const int64_t d = padded<P>(D), n = padded<P>(nk);
  return 3 * nq * d + 4 * nk * d + 2 * D * n + 2 * kQueries * n + nq + 64;
}

// Rows of a head, turned by their positions and scaled, padded with zeros to whole vectors.
template <class P, class A>
void pack_rotated(int64_t n, int64_t D, const A* from, int64_t stride, const int32_t* position, const P* cosine, const P* sine, P scale, P* to) {
  const int64_t half = D / 2, ld = padded<P>(D);
  for (int64_t i = 0; i < n; ++i) {
    const A* x = from + i * stride;
    const P *c = cosine + position[i] * half, *s = sine + position[i] * half;
    P* y = to + i * ld;
#pragma omp simd
    for (int64_t j = 0; j < half; ++j) {
      const P a = static_cast<P>(get(x[j])), b = static_cast<P>(get(x[j + half]));
      y[j] = scale * (a * c[j] - b * s[j]);
      y[j + half] = scale * (b * c[j] + a * s[j]);
    }
    for (int64_t j = D; j < ld; ++j) y[j] = 0;
  }
}

// The gradient's way back: turned by minus the angle.
template <class P, class A>
void unpack_rotated(int64_t n, int64_t D, const P* from, const int32_t* position, const P* cosine, const P* sine, P scale, A* to, int64_t stride) {
  const int64_t half = D / 2, ld = padded<P>(D);
  for (int64_t i = 0; i < n; ++i) {
    const P* x = from + i * ld;
    const P *c = cosine + position[i] * half, *s = sine + position[i] * half;
    A* y = to + i * stride;
#pragma omp simd
    for (int64_t j = 0; j < half; ++j) {
      const P a = x[j], b = x[j + half];
      put(y + j, scale * (a * c[j] + b * s[j]));
      put(y + j + half, scale * (b * c[j] - a * s[j]));
    }
  }
}

template <class P, class A>
void pack(int64_t n, int64_t D, const A* from, int64_t stride, P* to) {
  const int64_t ld = padded<P>(D);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < D; ++j) to[i * ld + j] = static_cast<P>(get(from[i * stride + j]));
    for (int64_t j = D; j < ld; ++j) to[i * ld + j] = 0;
  }
}

template <class P>
void transpose(int64_t n, int64_t D, const P* from, P* to) {  // [n, padded D] → [D, padded n]
  const int64_t ld = padded<P>(D), lt = padded<P>(n);
  for (int64_t i0 = 0; i0 < n; i0 += 16)
    for (int64_t j = 0; j < D; ++j) {
      const int64_t end = i0 + 16 < n ? i0 + 16 : n;
      for (int64_t i = i0; i < end; ++i) to[j * lt + i] = from[i * ld + j];
    }
  for (int64_t j = 0; j < D; ++j)
    for (int64_t i = n; i < lt; ++i) to[j * lt + i] = 0;
}

template <class P>
struct Buffers {
  int64_t d, n;  // padded D and nk
  P *q, *dout, *dq, *k, *v, *dk, *dv, *kt, *vt, *s, *dp, *delta;
  Buffers(int64_t nq, int64_t nk, int64_t D, P* p) : d(padded<P>(D)), n(padded<P>(nk)) {
    const auto take = [&p](int64_t count) { P* r = p; p += count; return r; };
    q = take(nq * d);
    dout = take(nq * d);
    dq = take(nq * d);
    k = take(nk * d);
    v = take(nk * d);
    dk = take(nk * d);
    dv = take(nk * d);
    kt = take(D * n);
    vt = take(D * n);
    s = take(kQueries * n);
    dp = take(kQueries * n);
    delta = take(nq);
  }
};

template <class P, class A>
void attention(const AttentionTask<P, A>& t, P* scratch) {
  const Buffers<P> b(t.nq, t.nk, t.D, scratch);
  const P scale = P(1) / static_cast<P>(__builtin_sqrt(static_cast<double>(t.D)));
  pack_rotated<P, A>(t.nk, t.D, t.k, t.kv_stride, t.k_position, t.cosine, t.sine, P(1), b.k);
  transpose<P>(t.nk, t.D, b.k, b.kt);
  pack<P, A>(t.nk, t.D, t.v, t.kv_stride, b.v);
  for (int64_t h = 0; h < t.heads; ++h) {
    pack_rotated<P, A>(t.nq, t.D, t.q + h * t.D, t.q_stride, t.q_position, t.cosine, t.sine, scale, b.q);
    for (int64_t i0 = 0; i0 < t.nq; i0 += kQueries) {
      const int64_t rows = i0 + kQueries < t.nq ? kQueries : t.nq - i0;
      const int64_t first = (t.lo[i0] - t.key_offset) / kLanes<P> * kLanes<P>, last = t.hi[i0 + rows - 1] - t.key_offset;
      const int64_t width = padded<P>(last - first);
      product<P>(rows, width, t.D, b.q + i0 * b.d, b.d, 1, b.kt + first, b.n, b.s, b.n, false);
      P sums[kQueries];
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t lo = t.lo[i0 + i] - t.key_offset - first, hi = t.hi[i0 + i] - t.key_offset - first;
        P* s = b.s + i * b.n;
        P largest = kMinusInfinity<P>, sum = 0;
#pragma omp simd reduction(max : largest)
        for (int64_t j = lo; j < hi; ++j) largest = s[j] > largest ? s[j] : largest;
        for (int64_t j = 0; j < lo; ++j) s[j] = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = lo; j < hi; ++j) {
          const P e = exponential(s[j] - largest);
          s[j] = e;
          sum += e;
        }
        for (int64_t j = hi; j < width; ++j) s[j] = 0;
        sums[i] = sum;
        t.lse[h * t.lse_stride + i0 + i] = largest + static_cast<P>(__builtin_log(static_cast<double>(sum)));
      }
      // dq is free in the forward: it holds the output's rows.
      product<P>(rows, b.d, last - first, b.s, b.n, 1, b.v + first * b.d, b.d, b.dq, b.d, false);
      for (int64_t i = 0; i < rows; ++i) {
        const P inverse = P(1) / sums[i];
        A* to = t.out + (i0 + i) * t.out_stride + h * t.D;
        for (int64_t j = 0; j < t.D; ++j) put(to + j, b.dq[i * b.d + j] * inverse);
      }
    }
  }
}

template <class P, class A>
void attention_backward(const AttentionTask<P, A>& t, P* scratch) {
  const Buffers<P> b(t.nq, t.nk, t.D, scratch);
  const P scale = P(1) / static_cast<P>(__builtin_sqrt(static_cast<double>(t.D)));
  pack_rotated<P, A>(t.nk, t.D, t.k, t.kv_stride, t.k_position, t.cosine, t.sine, P(1), b.k);
  transpose<P>(t.nk, t.D, b.k, b.kt);
  pack<P, A>(t.nk, t.D, t.v, t.kv_stride, b.v);
  transpose<P>(t.nk, t.D, b.v, b.vt);
  for (int64_t i = 0; i < t.nk * b.d; ++i) b.dk[i] = b.dv[i] = 0;
  for (int64_t h = 0; h < t.heads; ++h) {
    pack_rotated<P, A>(t.nq, t.D, t.q + h * t.D, t.q_stride, t.q_position, t.cosine, t.sine, scale, b.q);
    pack<P, A>(t.nq, t.D, t.dout + h * t.D, t.out_stride, b.dout);
    for (int64_t i = 0; i < t.nq; ++i) {
      const A* o = t.out + i * t.out_stride + h * t.D;
      P dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t j = 0; j < t.D; ++j) dot += static_cast<P>(get(o[j])) * b.dout[i * b.d + j];
      b.delta[i] = dot;
    }
    for (int64_t i0 = 0; i0 < t.nq; i0 += kQueries) {
      const int64_t rows = i0 + kQueries < t.nq ? kQueries : t.nq - i0;
      const int64_t first = (t.lo[i0] - t.key_offset) / kLanes<P> * kLanes<P>, last = t.hi[i0 + rows - 1] - t.key_offset;
      const int64_t width = padded<P>(last - first), keys = last - first;
      const P *q = b.q + i0 * b.d, *dout = b.dout + i0 * b.d;
      product<P>(rows, width, t.D, q, b.d, 1, b.kt + first, b.n, b.s, b.n, false);
      product<P>(rows, width, t.D, dout, b.d, 1, b.vt + first, b.n, b.dp, b.n, false);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t lo = t.lo[i0 + i] - t.key_offset - first, hi = t.hi[i0 + i] - t.key_offset - first;
        const P lse = t.lse[h * t.lse_stride + i0 + i], delta = b.delta[i0 + i];
        P *s = b.s + i * b.n, *dp = b.dp + i * b.n;
        for (int64_t j = 0; j < lo; ++j) s[j] = dp[j] = 0;
#pragma omp simd
        for (int64_t j = lo; j < hi; ++j) {
          s[j] = exponential(s[j] - lse);
          dp[j] = s[j] * (dp[j] - delta);
        }
        for (int64_t j = hi; j < width; ++j) s[j] = dp[j] = 0;
      }
      product<P>(rows, b.d, keys, b.dp, b.n, 1, b.k + first * b.d, b.d, b.dq + i0 * b.d, b.d, false);
      product<P>(keys, b.d, rows, b.dp, 1, b.n, q, b.d, b.dk + first * b.d, b.d, true);
      product<P>(keys, b.d, rows, b.s, 1, b.n, dout, b.d, b.dv + first * b.d, b.d, true);
    }
    unpack_rotated<P, A>(t.nq, t.D, b.dq, t.q_position, t.cosine, t.sine, scale, t.dq + h * t.D, t.q_stride);
  }
  unpack_rotated<P, A>(t.nk, t.D, b.dk, t.k_position, t.cosine, t.sine, P(1), t.dk, t.kv_stride);
  for (int64_t i = 0; i < t.nk; ++i)
    for (int64_t j = 0; j < t.D; ++j) put(t.dv + i * t.kv_stride + j, b.dv[i * b.d + j]);
}

}  // namespace
}  // namespace fathom::nn
