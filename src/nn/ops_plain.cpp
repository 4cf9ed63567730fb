#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "nn/ops.h"

namespace fathom::nn {

using at::Tensor;

namespace {

Tensor whole(const Weight& w) { return w.parts.size() == 1 ? w.parts[0] : at::cat(w.parts, 0); }

Tensor rms_norm(const Tensor& x, const Tensor& norm, double eps) {
  return x * at::rsqrt(x.square().mean(-1, true) + eps) * norm;
}

// x [N, heads, D]
Tensor rotate(const Tensor& x, const std::vector<int32_t>& position, const Attention& a) {
  const Tensor index = at::tensor(at::ArrayRef<int32_t>(position), at::kInt).to(at::kLong);
  const Tensor c = a.cosine.index_select(0, index).unsqueeze(1), s = a.sine.index_select(0, index).unsqueeze(1);
  const Tensor xf = x.to(a.cosine.scalar_type());
  const auto half = xf.chunk(2, -1);
  return at::cat({half[0] * c - half[1] * s, half[1] * c + half[0] * s}, -1);
}

}  // namespace

Weight Weight::rows(size_t first_part, size_t count) const {
  Weight w;
  int64_t start = 0, n = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i < first_part) start += parts[i].size(0);
    else if (i < first_part + count) {
      n += parts[i].size(0);
      w.parts.push_back(parts[i]);
    }
  }
  w.joined = joined.narrow(0, start, n);
  if (low.defined()) w.low = low.narrow(0, start, n);
  return w;
}

std::pair<Tensor, Tensor> rope_table(int64_t positions, int64_t width, double theta, at::ScalarType type) {
  const Tensor i = at::arange(0, width, 2, at::kDouble) / static_cast<double>(width);
  const Tensor angle = at::arange(positions, at::kDouble).unsqueeze(1) * at::pow(theta, -i).unsqueeze(0);
  return {angle.cos().to(type).contiguous(), angle.sin().to(type).contiguous()};
}

Tensor embed(const Tensor& weight, const Tensor& tokens) { return at::embedding(weight, tokens); }

Tensor add_delta(const Tensor& x, const Tensor& delta) { return delta.defined() ? x + delta : x; }

NormLinear add_norm_linear(const Tensor& x, const Tensor& delta, const Tensor& norm, double eps, const Weight& w, at::ScalarType compute) {
  const Tensor h = add_delta(x, delta);
  return {h, at::linear(rms_norm(h, norm, eps).to(compute), whole(w).to(compute))};
}

Tensor rope_attention(const Tensor& q_rows, const Tensor& kv_rows, const std::shared_ptr<const Attention>& attention) {
  const Attention& a = *attention;
  const int64_t nq = q_rows.size(0), hd = a.heads * a.width, gd = a.groups * a.width;
  const Tensor kv = kv_rows.defined() ? kv_rows : q_rows.narrow(1, hd, 2 * gd);
  const int64_t nk = kv.size(0);
  const Tensor q = rotate(q_rows.narrow(1, 0, hd).reshape({nq, a.heads, a.width}), a.q_position, a);
  const auto repeat = [&](const Tensor& t) { return t.repeat_interleave(a.heads / a.groups, 1); };
  const Tensor k = repeat(rotate(kv.narrow(1, 0, gd).reshape({nk, a.groups, a.width}), a.k_position, a));
  const Tensor v = repeat(kv.narrow(1, gd, gd).reshape({nk, a.groups, a.width}).to(k.scalar_type()));
  const Tensor lo = at::tensor(at::ArrayRef<int32_t>(a.lo), at::kInt), hi = at::tensor(at::ArrayRef<int32_t>(a.hi), at::kInt);
  std::vector<Tensor> out;
  for (size_t s = 0; s + 1 < a.q_begin.size(); ++s) {
    const int64_t q0 = a.q_begin[s], qn = a.q_begin[s + 1] - q0, k0 = a.k_begin[s], kn = a.k_begin[s + 1] - k0;
    if (qn == 0) continue;
    const Tensor key = at::arange(k0, k0 + kn, at::kInt).unsqueeze(0);
    const Tensor seen = (key >= lo.narrow(0, q0, qn).unsqueeze(1)) & (key < hi.narrow(0, q0, qn).unsqueeze(1));  // [qn, kn]
    const Tensor qs = q.narrow(0, q0, qn).transpose(0, 1), ks = k.narrow(0, k0, kn).transpose(0, 1), vs = v.narrow(0, k0, kn).transpose(0, 1);
    const Tensor score = (qs.matmul(ks.transpose(1, 2)) / std::sqrt(static_cast<double>(a.width))).masked_fill(~seen.unsqueeze(0), -INFINITY);
    out.push_back(score.softmax(-1).matmul(vs).transpose(0, 1).reshape({qn, hd}));
  }
  return at::cat(out, 0).to(q_rows.scalar_type());
}

Tensor linear(const Tensor& x, const Weight& w) { return at::linear(x, whole(w).to(x.scalar_type())); }

Tensor swiglu_linear(const Tensor& gate_up, const Weight& w) {
  const auto half = gate_up.chunk(2, -1);
  return at::linear(at::silu(half[0]) * half[1], whole(w).to(gate_up.scalar_type()));
}

HeadLoss head_loss(const Tensor& x, const Tensor& delta, const Tensor& norm, double eps, const Weight& w, const Tensor& targets,
                   at::ScalarType compute) {
  const Tensor logits = add_norm_linear(x, delta, norm, eps, w, compute).y.to(x.scalar_type());
  HeadLoss out;
  out.targets = targets.ne(-100).sum().item<int64_t>();
  const Tensor nll = at::nll_loss_nd(at::log_softmax(logits, -1), targets, {}, at::Reduction::None, -100);
  out.loss = nll.sum() / static_cast<double>(std::max<int64_t>(out.targets, 1));
  out.nll = nll.detach();
  return out;
}

Tensor router_score(const Tensor& x, const Tensor& w, const Tensor& b, bool normed, double eps) {
  const Tensor u = normed ? x * at::rsqrt(x.square().mean(-1, true) + eps) : x;
  const Tensor r = u.matmul(w.reshape({-1}));
  return b.defined() ? r + b : r;
}

Tensor gather_rows(const Tensor& x, const Tensor& rows) { return x.index_select(0, rows); }

Tensor scatter_delta(const Tensor& x, const Tensor& rows, const Tensor& a, const Tensor& m, const Tensor& g) {
  const Tensor xs = x.index_select(0, rows);
  const Tensor ga = g.defined() ? g.unsqueeze(1) * a : a, gm = g.defined() ? g.unsqueeze(1) * m : m;
  return x.index_copy(0, rows, (xs + ga) + gm);
}

}  // namespace fathom::nn
