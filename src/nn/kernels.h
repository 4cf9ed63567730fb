// The loops of the network over plain pointers, built once per instruction set (kernels_base/v3/v4.cpp around
// kernels_impl.h) and chosen at run time. P: type of parameters and of all sums (float, double); A: type of activations (P or
// Bf16). Every function works on the rows that it is given, in one thread; splitting is the caller's.
#pragma once
#include <cstdint>

namespace fathom::nn {

struct Bf16 {  // the upper half of an f32; same layout as c10::BFloat16
  uint16_t bits;
};

// One sequence and one key/value head: nq queries of `heads` query heads, nk keys. Rows lie `stride` elements apart, heads
// within a row D apart. lo and hi count from `key_offset`.
template <class P, class A>
struct AttentionTask {
  int64_t nq = 0, nk = 0, D = 0, heads = 0, key_offset = 0;
  const A *q = nullptr, *k = nullptr, *v = nullptr;
  int64_t q_stride = 0, kv_stride = 0;
  const int32_t *lo = nullptr, *hi = nullptr, *q_position = nullptr, *k_position = nullptr;
  const P *cosine = nullptr, *sine = nullptr;  // [positions, D / 2]
  A* out = nullptr;                            // heads D apart, written forward, read backward
  P* lse = nullptr;                            // log of the softmax's denominator, [nq] per head, lse_stride apart
  int64_t out_stride = 0, lse_stride = 0;
  const A* dout = nullptr;                     // same rows as out
  A *dq = nullptr, *dk = nullptr, *dv = nullptr;  // same rows as q, k, v
};

// The way back through the entrance of a routed block (ops.h, score_rows and gather_rows). dx = dh + dg at the gathered rows +
// the score's own; null: that part is 0. Gathered rows are read from `gathered`, for `h` may have been written over there.
template <class P, class A>
struct EntranceTask {
  int64_t C = 0, count = 0;              // gathered rows, ascending
  const int64_t* row = nullptr;          // [count]
  const P *h = nullptr, *gathered = nullptr;
  const P *w = nullptr, *score = nullptr, *rstd = nullptr;  // rstd null: not normed
  const P *dh = nullptr, *dg = nullptr, *dscore = nullptr;
  P* dx = nullptr;
  A* da = nullptr;  // dx in A, or null
};

// Cross-entropy against a target, and the divergence from a teacher's distribution, of rows whose target is not negative: of the others both are 0.
// The teacher is known either at k ids of a row, the rest of its mass as one bucket, or everywhere.
template <class P, class A>
struct DistillTask {
  int64_t V = 0, k = 0;
  A* logits = nullptr;                  // [rows, V]; with `gradient` they become loss_scale · (q − onehot) + kl_scale · dKL
  const int64_t* target = nullptr;      // [rows]
  const int32_t* ids = nullptr;         // [rows, k]
  const P* log_probability = nullptr;   // [rows, k]
  const P* teacher = nullptr;           // [rows, V] logits, instead of the two
  P* scratch = nullptr;                 // [rows, k]
  P loss_scale = 0, kl_scale = 0;
  bool gradient = false;
  P *nll = nullptr, *kl = nullptr;      // [rows]
};

template <class P, class A>
struct Kernels {
  const char* isa;
  // h = x + delta (both null: h is x), rstd = 1 / rms(h), u = h · rstd · norm
  void (*add_norm)(int64_t rows, int64_t C, const P* x, const A* delta, const P* norm, double eps, P* h, A* u, P* rstd);
  // dx = dh + d(rms_norm)/dh · du (dh null: 0); da = dx in A (null: not written); du becomes u again; dnorm [C] is added to
  void (*norm_backward)(int64_t rows, int64_t C, const P* h, const P* rstd, const P* norm, const P* dh, P* dx, A* da, A* du, P* dnorm);
  // gate_up [rows, 2F] → act [rows, F] = silu(gate) · up
  void (*swiglu)(int64_t rows, int64_t F, const A* gate_up, A* act);
  void (*swiglu_backward)(int64_t rows, int64_t F, const A* gate_up, const A* dact, A* dgate_up, A* act);
  // nll [rows]; with `scale` not 0 logits become scale · (softmax − onehot); a negative target: both 0
  void (*softmax_loss)(int64_t rows, int64_t V, A* logits, const int64_t* target, P scale, P* nll);
  void (*distill_loss)(const DistillTask<P, A>& task, int64_t begin, int64_t end);
  // h = x + delta (delta null: x); r = h · w, times 1 / rms(h) when rstd is not null, which is then written
  void (*score)(int64_t rows, int64_t C, const P* x, const A* delta, const P* w, double eps, P* h, P* r, P* rstd);
  // Rows [begin, end) of dx and da; dw [C] is added to
  void (*entrance_backward)(const EntranceTask<P, A>& task, int64_t begin, int64_t end, P* dw);
  // x[row[i]] = (x[row[i]] + g·a) + g·m; g null: 1; m null: 0
  void (*scatter)(int64_t n, int64_t C, const int64_t* row, const A* a, const A* m, const P* g, P* x);
  // da = g · d[row[i]], dg = d[row[i]] · (a + m)
  void (*scatter_backward)(int64_t n, int64_t C, const int64_t* row, const P* d, const A* a, const A* m, const P* g, A* da, P* dg);
  int64_t (*attention_scratch)(int64_t nq, int64_t nk, int64_t D);  // elements of P, for one task of either direction
  void (*attention)(const AttentionTask<P, A>& task, P* scratch);
  void (*attention_backward)(const AttentionTask<P, A>& task, P* scratch);
};

template <class P, class A>
const Kernels<P, A>& kernels();

// All that this machine can run, for tests; the last one is what kernels() gives.
template <class P, class A>
int kernels_available(const Kernels<P, A>** out, int max);

}  // namespace fathom::nn
