// Part of kernels_impl.h: loops over rows — norm, SwiGLU, loss, a routed block's entrance and exit.
#pragma once
#include <cmath>
#include <cstdint>

#include "nn/kernels_value_impl.h"

namespace fathom::nn {
namespace {

// `omp simd` also says that no iteration reads what another one writes: some callers give the same memory as in- and output,
// element for element, which a compiler's own check for overlap would take for an obstacle.

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
    const A *ai = a + i * C, *mi = m ? m + i * C : nullptr;
    P* to = x + row[i] * C;
    const P gi = g ? g[i] : P(1);
    if (m) {
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) to[c] = (to[c] + gi * static_cast<P>(get(ai[c]))) + gi * static_cast<P>(get(mi[c]));
    } else {
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) to[c] = to[c] + gi * static_cast<P>(get(ai[c]));
    }
  }
}

template <class P, class A>
void scatter_backward(int64_t n, int64_t C, const int64_t* row, const P* d, const A* a, const A* m, const P* g, A* da, P* dg) {
  for (int64_t i = 0; i < n; ++i) {
    const P* di = d + row[i] * C;
    const A *ai = a + i * C, *mi = m ? m + i * C : nullptr;
    A* to = da + i * C;
    const P gi = g ? g[i] : P(1);
    P dot = 0;
    if (m) {
#pragma omp simd reduction(+ : dot)
      for (int64_t c = 0; c < C; ++c) {
        put(to + c, gi * di[c]);
        dot += di[c] * (static_cast<P>(get(ai[c])) + static_cast<P>(get(mi[c])));
      }
    } else {
#pragma omp simd reduction(+ : dot)
      for (int64_t c = 0; c < C; ++c) {
        put(to + c, gi * di[c]);
        dot += di[c] * static_cast<P>(get(ai[c]));
      }
    }
    if (dg) dg[i] = dot;
  }
}

}  // namespace
}  // namespace fathom::nn
