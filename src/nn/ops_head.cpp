// The two ends of the network: embedding, and final norm + head + cross-entropy in chunks of rows.
#include "nn/ops_common.h"

namespace fathom::nn {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Logits that exist at a time: a quarter of an L3 slice, and enough rows for a full-speed product.
constexpr int64_t kLogitsAtOnce = int64_t{1} << 21;

struct EmbedFunction : torch::autograd::Function<EmbedFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& weight, const Tensor& tokens) {
    ctx->save_for_backward({tokens});
    ctx->saved_data["V"] = weight.size(0);
    return weight.index_select(0, tokens);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor tokens = ctx->get_saved_variables()[0].contiguous(), d = grads[0].contiguous();
    const int64_t N = d.size(0), C = d.size(1);
    const Tensor dw = at::zeros({ctx->saved_data.at("V").toInt(), C}, d.options());
    const int64_t* token = tokens.const_data_ptr<int64_t>();
    dispatch(d.scalar_type(), d.scalar_type(), [&]<class P, class A>(P*, A*) {
      // Threads share out the columns: each sum runs over the tokens in order.
      at::parallel_for(0, C, 64, [&](int64_t c0, int64_t c1) {
        for (int64_t i = 0; i < N; ++i) {
          const P* from = pointer<P>(d) + i * C;
          P* to = pointer<P>(dw) + token[i] * C;
          for (int64_t c = c0; c < c1; ++c) to[c] += from[c];
        }
      });
    });
    return {dw, Tensor()};
  }
};

struct HeadGradients {
  Tensor dx, da, dnorm, dw;
  Weight w;
};

struct HeadLossFunction : torch::autograd::Function<HeadLossFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& delta, const Tensor& norm, at::TensorList,
                        const Tensor& targets, double eps, const Weight& w, at::ScalarType compute, const HeadTerms& terms, bool wants_gradient,
                        HeadLoss& result) {
    const int64_t N = x.size(0), C = x.size(1), V = w.joined.size(0), slots = row_slots();
    const Tensor weight = w.as(compute);
    const int64_t* target = targets.const_data_ptr<int64_t>();
    result.targets = 0;
    const Tensor weights = terms.weights.defined() ? terms.weights.to(x.scalar_type()).contiguous() : Tensor();
    for (int64_t i = 0; i < N; ++i) {
      FATHOM_ASSERT(target[i] < V, "target ", target[i], " of ", V);
      result.targets += target[i] >= 0;
    }
    double count = static_cast<double>(std::max<int64_t>(result.targets, 1));
    if (weights.defined()) count = (weights * targets.ge(0)).sum(at::kDouble).item<double>();
    if (!(count > 0)) count = 1;  // nothing counts
    result.nll = at::empty({N}, x.options());
    const Teacher& teacher = terms.teacher;
    const Tensor kl = teacher.defined() ? at::empty({N}, x.options()) : Tensor();
    const Tensor log_probability = teacher.ids.defined() ? teacher.log_probability.to(x.scalar_type()).contiguous() : Tensor();
    const int64_t k = teacher.ids.defined() ? teacher.ids.size(1) : 0;
    HeadGradients g;
    g.w = w;
    if (wants_gradient) {
      g.dx = at::empty_like(x);
      if (delta && compute != x.scalar_type()) g.da = at::empty_like(*delta);
      g.dnorm = at::zeros({slots, C}, x.options());
      if (trains(w)) g.dw = at::zeros({V, C}, w.joined.options());
    }
    const int64_t chunk = std::min(N, std::max<int64_t>(64, kLogitsAtOnce / V));
    const auto in_compute = x.options().dtype(compute);
    const Tensor h = at::empty({chunk, C}, x.options()), rstd = at::empty({chunk}, x.options()), u = at::empty({chunk, C}, in_compute);
    const Tensor logits = at::empty({chunk, V}, in_compute), scratch = k > 0 ? at::empty({chunk, k}, x.options()) : Tensor();
    dispatch(x.scalar_type(), compute, [&]<class P, class A>(P*, A*) {
      const auto& kernel = kernels<P, A>();
      const P scale = wants_gradient ? P(1) / static_cast<P>(count) : P(0);
      for (int64_t first = 0; first < N; first += chunk) {
        const int64_t n = std::min(chunk, N - first);
        const P* xs = pointer<P>(x) + first * C;
        const P* hs = delta ? pointer<P>(h) : xs;
        parallel_rows(n, [&](int64_t, int64_t i, int64_t end) {
          kernel.add_norm(end - i, C, xs + i * C, delta ? pointer<A>(*delta) + (first + i) * C : nullptr, pointer<P>(norm), eps,
                     delta ? pointer<P>(h) + i * C : nullptr, pointer<A>(u) + i * C, pointer<P>(rstd) + i);
        });
        Tensor some_logits = logits.narrow(0, 0, n), some_u = u.narrow(0, 0, n);
        at::mm_out(some_logits, some_u, weight.t());
        if (kl.defined()) {
          const Tensor all = teacher.logits.defined() ? teacher.logits.narrow(0, first, n).to(x.scalar_type()).contiguous() : Tensor();
          DistillTask<P, A> task;
          task.V = V, task.k = k;
          task.logits = pointer<A>(logits);
          task.target = target + first;
          if (k > 0) task.ids = pointer<int32_t>(teacher.ids) + first * k, task.log_probability = pointer<P>(log_probability) + first * k;
          task.teacher = pointer<P>(all);
          task.scratch = pointer<P>(scratch);
          task.loss_scale = scale * static_cast<P>(terms.loss_weight), task.kl_scale = scale * static_cast<P>(terms.kl_weight);
          task.gradient = wants_gradient;
          task.nll = pointer<P>(result.nll) + first, task.kl = pointer<P>(kl) + first;
          parallel_rows(n, [&](int64_t, int64_t i, int64_t end) { kernel.distill_loss(task, i, end); });
        } else {
          parallel_rows(n, [&](int64_t, int64_t i, int64_t end) {
            kernel.softmax_loss(end - i, V, pointer<A>(logits) + i * V, target + first + i, scale, pointer<P>(result.nll) + first + i);
          });
        }
        if (!wants_gradient) continue;
        if (weights.defined()) some_logits.mul_(weights.narrow(0, first, n).to(compute).unsqueeze(1));
        if (!g.dw.defined())
          ;  // a frozen head
        else if (compute == x.scalar_type())
          g.dw.addmm_(some_logits.t(), some_u);
        else
          g.dw.add_(at::mm(some_logits.t(), some_u));
        at::mm_out(some_u, some_logits, weight);
        parallel_rows(n, [&](int64_t slot, int64_t i, int64_t end) {
          kernel.norm_backward(end - i, C, hs + i * C, pointer<P>(rstd) + i, pointer<P>(norm), nullptr, pointer<P>(g.dx) + (first + i) * C,
                          g.da.defined() ? pointer<A>(g.da) + (first + i) * C : nullptr, pointer<A>(u) + i * C, pointer<P>(g.dnorm) + slot * C);
        });
      }
    });
    if (wants_gradient) {
      if (delta && !g.da.defined()) g.da = g.dx;
      g.dnorm = g.dnorm.sum(0);
    }
    keep(ctx, std::move(g));
    const auto mean = [&](const Tensor& of) { return (weights.defined() ? (of * weights).sum() : of.sum()) / count; };
    const Tensor loss = mean(result.nll);
    if (!kl.defined()) return loss;
    result.loss = loss;
    result.kl = mean(kl);
    return loss * terms.loss_weight + result.kl * terms.kl_weight;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const HeadGradients& g = kept<HeadGradients>(ctx);
    const bool as_it_is = grads[0].item<double>() == 1.0;
    const auto scaled = [&](const Tensor& t) { return as_it_is || !t.defined() ? t : t * grads[0].to(t.scalar_type()); };
    const Tensor dx = scaled(g.dx);
    variable_list out{dx, g.da.is_same(g.dx) ? dx : scaled(g.da), scaled(g.dnorm)};
    push_part_gradients(out, g.w, scaled(g.dw));
    out.resize(out.size() + 7);
    return out;
  }
};

}  // namespace

Tensor embed(const Tensor& weight, const Tensor& tokens) { return EmbedFunction::apply(weight, tokens); }

HeadLoss head_loss(const Tensor& x, const Tensor& delta, const Tensor& norm, double eps, const Weight& w, const Tensor& targets,
                   at::ScalarType compute, const HeadTerms& terms) {
  const Teacher& t = terms.teacher;
  const int64_t N = x.size(0), V = w.joined.size(0);
  if (t.logits.defined()) FATHOM_ASSERT(t.logits.dim() == 2 && t.logits.size(0) == N && t.logits.size(1) == V, "a teacher of another vocabulary");
  if (terms.weights.defined()) FATHOM_ASSERT(terms.weights.dim() == 1 && terms.weights.size(0) == N, "a weight for every target");
  HeadTerms checked = terms;
  if (t.ids.defined()) {
    FATHOM_ASSERT(!t.logits.defined() && t.ids.dim() == 2 && t.ids.size(0) == N && t.log_probability.sizes() == t.ids.sizes() && t.ids.numel() > 0);
    checked.teacher.ids = t.ids.to(at::kInt).contiguous();
    FATHOM_ASSERT(checked.teacher.ids.min().item<int64_t>() >= 0 && checked.teacher.ids.max().item<int64_t>() < V, "a teacher of another vocabulary");
  }
  HeadLoss result;
  result.total = HeadLossFunction::apply(x.contiguous(), delta.defined() ? std::optional<Tensor>(delta) : std::nullopt, norm, at::TensorList(w.parts),
                                         targets.contiguous(), eps, w, compute, checked, at::GradMode::is_enabled(), result);
  if (t.defined()) return result;
  result.loss = result.total;
  if (terms.loss_weight != 1) result.total = result.loss * terms.loss_weight;
  return result;
}

}  // namespace fathom::nn
