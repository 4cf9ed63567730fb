// Part of kernels_impl.h: the loss against a target and a teacher.
#pragma once
#include <cstdint>

#include "nn/kernels_value_impl.h"

namespace fathom::nn {
namespace {

template <class P, class X>
P largest_of(const X* row, int64_t V) {
  P largest = kMinusInfinity<P>;
#pragma omp simd reduction(max : largest)
  for (int64_t v = 0; v < V; ++v) {
    const P x = static_cast<P>(get(row[v]));
    largest = x > largest ? x : largest;
  }
  return largest;
}

template <class P, class X>
P sum_of_exponentials(const X* row, int64_t V, P largest) {
  P sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t v = 0; v < V; ++v) sum += exponential(static_cast<P>(get(row[v])) - largest);
  return sum;
}

template <class P>
P log_of(P x) { return static_cast<P>(__builtin_log(static_cast<double>(x))); }

// q: softmax of the row; p: the teacher's probabilities at its ids, p_rest what is left of 1. KL = Σ p·log(p/q) + p_rest·log(p_rest/q_rest), whose
// derivative by a logit is M·q_v − p_v at an id and q_v·(M − p_rest/q_rest) elsewhere, M = Σ p + p_rest.
template <class P, class A>
void distill_top(const DistillTask<P, A>& t, int64_t i) {
  const int64_t V = t.V, target = t.target[i];
  A* row = t.logits + i * V;
  const int32_t* id = t.ids + i * t.k;
  const P* log_p = t.log_probability + i * t.k;
  P* z = t.scratch + i * t.k;
  const P largest = largest_of<P>(row, V), of_target = static_cast<P>(get(row[target]));
  // The rest of q is summed by itself: 1 − Σ q at the ids would have lost its digits where a student is sure.
  for (int64_t j = 0; j < t.k; ++j) {
    z[j] = static_cast<P>(get(row[id[j]]));
    put(row + id[j], kMinusInfinity<P>);
  }
  const P rest = t.k < V ? sum_of_exponentials<P>(row, V, largest) : P(0);
  P sum = rest, mass = 0;
  for (int64_t j = 0; j < t.k; ++j) {
    put(row + id[j], z[j]);
    sum += exponential(z[j] - largest);
    mass += exponential(log_p[j]);
  }
  const P log_sum = largest + log_of(sum), p_rest = mass < P(1) && rest > P(0) ? P(1) - mass : P(0);
  t.nll[i] = log_sum - of_target;
  P kl = p_rest > P(0) ? p_rest * (log_of(p_rest) - (log_of(rest) - log_of(sum))) : P(0);
  for (int64_t j = 0; j < t.k; ++j) kl += exponential(log_p[j]) * (log_p[j] - (z[j] - log_sum));
  t.kl[i] = kl;
  if (!t.gradient) return;
  const P at_ids = (t.loss_scale + t.kl_scale * (mass + p_rest)) / sum;
  const P elsewhere = p_rest > P(0) ? at_ids - t.kl_scale * p_rest / rest : at_ids;
  P at_target = exponential(of_target - largest) * elsewhere;
#pragma omp simd
  for (int64_t v = 0; v < V; ++v) put(row + v, exponential(static_cast<P>(get(row[v])) - largest) * elsewhere);
  for (int64_t j = 0; j < t.k; ++j) {
    const P d = exponential(z[j] - largest) * at_ids - t.kl_scale * exponential(log_p[j]);
    put(row + id[j], d);
    if (id[j] == target) at_target = d;
  }
  put(row + target, at_target - t.loss_scale);
}

template <class P, class A>
void distill_all(const DistillTask<P, A>& t, int64_t i) {
  const int64_t V = t.V, target = t.target[i];
  A* row = t.logits + i * V;
  const P* teacher = t.teacher + i * V;
  const P largest = largest_of<P>(row, V), of_target = static_cast<P>(get(row[target])), sum = sum_of_exponentials<P>(row, V, largest);
  const P most = largest_of<P>(teacher, V), total = sum_of_exponentials<P>(teacher, V, most);
  const P log_sum = largest + log_of(sum), log_total = most + log_of(total);
  P kl = 0;
#pragma omp simd reduction(+ : kl)
  for (int64_t v = 0; v < V; ++v) kl += exponential(teacher[v] - log_total) * ((teacher[v] - log_total) - (static_cast<P>(get(row[v])) - log_sum));
  t.nll[i] = log_sum - of_target;
  t.kl[i] = kl;
  if (!t.gradient) return;
  const P own = (t.loss_scale + t.kl_scale) / sum, other = t.kl_scale / total;
  const P at_target = exponential(of_target - largest) * own - exponential(teacher[target] - most) * other - t.loss_scale;
#pragma omp simd
  for (int64_t v = 0; v < V; ++v) put(row + v, exponential(static_cast<P>(get(row[v])) - largest) * own - exponential(teacher[v] - most) * other);
  put(row + target, at_target);
}

template <class P, class A>
void distill_loss(const DistillTask<P, A>& t, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (t.target[i] >= 0) {
      if (t.teacher) distill_all(t, i);
      else distill_top(t, i);
      continue;
    }
    t.nll[i] = t.kl[i] = 0;
    for (int64_t v = 0; t.gradient && v < t.V; ++v) put(t.logits + i * t.V + v, P(0));
  }
}

}  // namespace
}  // namespace fathom::nn
