// Included by kernels_base/v3/v4.cpp, each with its own flags and FATHOM_ISA; never by anyone else. Everything is in an
// anonymous namespace and uses no library template, so that no function built for AVX-512 can be linked into another file.
#pragma once
#include <cmath>
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

// `omp simd` also says that no iteration reads what another one writes: some callers give the same memory as in- and output,
// element for element, which a compiler's own check for overlap would take for an obstacle.

// ---- rows ----------------------------------------------------------------------------------------------------------

template <class P, class A>
void add_norm(int64_t rows, int64_t C, const P* x, const A* delta, const P* norm, double eps, P* h, A* u, P* rstd) {
  for (int64_t i = 0; i < rows; ++i) {
    const P* source = x + i * C;
    P sum = 0;
    if (delta) {
      const A* d = delta + i * C;
      P* to = h + i * C;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < C; ++c) {
        const P v = source[c] + static_cast<P>(get(d[c]));
        to[c] = v;
        sum += v * v;
      }
      source = to;
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < C; ++c) sum += source[c] * source[c];
    }
    const P r = P(1) / static_cast<P>(__builtin_sqrt(static_cast<double>(sum) / static_cast<double>(C) + eps));
    rstd[i] = r;
    A* to = u + i * C;
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) put(to + c, source[c] * r * norm[c]);
  }
}

template <class P, class A>
void norm_backward(int64_t rows, int64_t C, const P* h, const P* rstd, const P* norm, const P* dh, P* dx, A* da, A* du, P* dnorm) {
  for (int64_t i = 0; i < rows; ++i) {
    const P *hi = h + i * C, r = rstd[i];
    A* di = du + i * C;
    P dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t c = 0; c < C; ++c) {
      const P n = hi[c] * r, d = static_cast<P>(get(di[c]));
      dnorm[c] += d * n;
      dot += d * norm[c] * n;
    }
    const P mean = dot / static_cast<P>(C);
    P* to = dx + i * C;
    const P* add = dh ? dh + i * C : nullptr;
    if (add) {
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) {
        const P n = hi[c] * r;
        to[c] = add[c] + r * (static_cast<P>(get(di[c])) * norm[c] - n * mean);
        put(di + c, n * norm[c]);
      }
    } else {
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) {
        const P n = hi[c] * r;
        to[c] = r * (static_cast<P>(get(di[c])) * norm[c] - n * mean);
        put(di + c, n * norm[c]);
      }
    }
    if (da)
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) put(da + i * C + c, to[c]);
  }
}

template <class P, class A>
void swiglu(int64_t rows, int64_t F, const A* gate_up, A* act) {
  for (int64_t i = 0; i < rows; ++i) {
    const A *gate = gate_up + i * 2 * F, *up = gate + F;
    A* to = act + i * F;
#pragma omp simd
    for (int64_t f = 0; f < F; ++f) {
      const P g = static_cast<P>(get(gate[f]));
      put(to + f, g * silu_sigmoid(g) * static_cast<P>(get(up[f])));
    }
  }
}

template <class P, class A>
void swiglu_backward(int64_t rows, int64_t F, const A* gate_up, const A* dact, A* dgate_up, A* act) {
  for (int64_t i = 0; i < rows; ++i) {
    const A *gate = gate_up + i * 2 * F, *up = gate + F, *d = dact + i * F;
    A *dgate = dgate_up + i * 2 * F, *dup = dgate + F, *to = act + i * F;
#pragma omp simd
    for (int64_t f = 0; f < F; ++f) {
      const P g = static_cast<P>(get(gate[f])), u = static_cast<P>(get(up[f])), dy = static_cast<P>(get(d[f]));
      const P s = silu_sigmoid(g), silu = g * s;
      put(to + f, silu * u);
      put(dup + f, dy * silu);
      put(dgate + f, dy * u * (s + silu * (P(1) - s)));
    }
  }
}

template <class P, class A>
void softmax_loss(int64_t rows, int64_t V, A* logits, const int64_t* target, P scale, P* nll) {
  for (int64_t i = 0; i < rows; ++i) {
    A* row = logits + i * V;
    nll[i] = 0;
    if (target[i] < 0) {
      if (scale != 0)
#pragma omp simd
        for (int64_t v = 0; v < V; ++v) put(row + v, P(0));
      continue;
    }
    P largest = kMinusInfinity<P>;
#pragma omp simd reduction(max : largest)
    for (int64_t v = 0; v < V; ++v) {
      const P x = static_cast<P>(get(row[v]));
      largest = x > largest ? x : largest;
    }
    P sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t v = 0; v < V; ++v) sum += exponential(static_cast<P>(get(row[v])) - largest);
    nll[i] = largest + static_cast<P>(__builtin_log(static_cast<double>(sum))) - static_cast<P>(get(row[target[i]]));
    if (scale == 0) continue;
    const P factor = scale / sum;
    const P of_target = exponential(static_cast<P>(get(row[target[i]])) - largest) * factor - scale;
#pragma omp simd
    for (int64_t v = 0; v < V; ++v) put(row + v, exponential(static_cast<P>(get(row[v])) - largest) * factor);
    put(row + target[i], of_target);
  }
}

template <class P, class A>
void score(int64_t rows, int64_t C, const P* x, const A* delta, const P* w, double eps, P* h, P* r, P* rstd) {
  for (int64_t i = 0; i < rows; ++i) {
    const P* from = x + i * C;
    const A* d = delta ? delta + i * C : nullptr;
    P *to = h + i * C, dot = 0, square = 0;
    if (d) {
#pragma omp simd reduction(+ : dot, square)
      for (int64_t c = 0; c < C; ++c) {
        const P v = from[c] + static_cast<P>(get(d[c]));
        to[c] = v;
        dot += v * w[c];
        square += v * v;
      }
    } else {
#pragma omp simd reduction(+ : dot, square)
      for (int64_t c = 0; c < C; ++c) {
        to[c] = from[c];
        dot += from[c] * w[c];
        square += from[c] * from[c];
      }
    }
    r[i] = dot;
    if (rstd) {
      rstd[i] = P(1) / static_cast<P>(__builtin_sqrt(static_cast<double>(square) / static_cast<double>(C) + eps));
      r[i] = dot * rstd[i];
    }
  }
}

template <class P, class A>
void entrance_backward(const EntranceTask<P, A>& t, int64_t begin, int64_t end, P* dw) {
  const int64_t C = t.C;
  int64_t next = 0;
  while (next < t.count && t.row[next] < begin) ++next;
  for (int64_t i = begin; i < end; ++i) {
    P* to = t.dx + i * C;
    if (t.dh) {
      const P* from = t.dh + i * C;
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) to[c] = from[c];
    } else {
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) to[c] = 0;
    }
    const P* h = t.h + i * C;
    if (next < t.count && t.row[next] == i) {
      h = t.gathered + next * C;
      if (t.dg) {
        const P* from = t.dg + next * C;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) to[c] += from[c];
      }
      ++next;
    }
    // Through the gate alone a score has a gradient only where its row runs: most rows end here.
    if (t.dscore && t.dscore[i] != 0) {
      // r = (h·w)·rstd and d rstd/dh = −rstd³ h / C give −r·rstd² h / C besides w·rstd.
      const P s = t.rstd ? t.dscore[i] * t.rstd[i] : t.dscore[i];
      const P q = t.rstd ? -s * t.rstd[i] * t.score[i] / static_cast<P>(C) : P(0);
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) {
        to[c] += s * t.w[c] + q * h[c];
        dw[c] += s * h[c];
      }
    }
    if (t.da)
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) put(t.da + i * C + c, to[c]);
  }
}

template <class P, class A>
void scatter(int64_t n, int64_t C, const int64_t* row, const A* a, const A* m, const P* g, P* x) {
  for (int64_t i = 0; i < n; ++i) {
    const A *ai = a + i * C, *mi = m + i * C;
    P* to = x + row[i] * C;
    const P gi = g ? g[i] : P(1);
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) to[c] = (to[c] + gi * static_cast<P>(get(ai[c]))) + gi * static_cast<P>(get(mi[c]));
  }
}

template <class P, class A>
void scatter_backward(int64_t n, int64_t C, const int64_t* row, const P* d, const A* a, const A* m, const P* g, A* da, P* dg) {
  for (int64_t i = 0; i < n; ++i) {
    const P* di = d + row[i] * C;
    const A *ai = a + i * C, *mi = m + i * C;
    A* to = da + i * C;
    const P gi = g ? g[i] : P(1);
    P dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t c = 0; c < C; ++c) {
      put(to + c, gi * di[c]);
      dot += di[c] * (static_cast<P>(get(ai[c])) + static_cast<P>(get(mi[c])));
    }
    if (dg) dg[i] = dot;
  }
}

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

template <class P, class A>
constexpr Kernels<P, A> make_table(const char* isa) {
  return {isa, add_norm<P, A>, norm_backward<P, A>, swiglu<P, A>, swiglu_backward<P, A>, softmax_loss<P, A>, score<P, A>,
          entrance_backward<P, A>, scatter<P, A>, scatter_backward<P, A>, attention_scratch<P>, attention<P, A>, attention_backward<P, A>};
}

}  // namespace

#define FATHOM_JOIN2(a, b) a##b
#define FATHOM_JOIN(a, b) FATHOM_JOIN2(a, b)
extern const Kernels<float, float> FATHOM_JOIN(kernels_f32_, FATHOM_ISA);
extern const Kernels<double, double> FATHOM_JOIN(kernels_f64_, FATHOM_ISA);
extern const Kernels<float, Bf16> FATHOM_JOIN(kernels_bf16_, FATHOM_ISA);
#define FATHOM_TEXT2(a) #a
#define FATHOM_TEXT(a) FATHOM_TEXT2(a)
constexpr Kernels<float, float> FATHOM_JOIN(kernels_f32_, FATHOM_ISA) = make_table<float, float>(FATHOM_TEXT(FATHOM_ISA));
constexpr Kernels<double, double> FATHOM_JOIN(kernels_f64_, FATHOM_ISA) = make_table<double, double>(FATHOM_TEXT(FATHOM_ISA));
constexpr Kernels<float, Bf16> FATHOM_JOIN(kernels_bf16_, FATHOM_ISA) = make_table<float, Bf16>(FATHOM_TEXT(FATHOM_ISA));

}  // namespace fathom::nn
