// Norm + product, product, SwiGLU + product. What can be computed again on the way of a pass over memory that happens
// anyhow (the normed rows, the SwiGLU's product) is not kept between forward and backward.
#include "nn/ops_common.h"

namespace fathom::nn {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct NormLinearFunction : torch::autograd::Function<NormLinearFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& delta, const Tensor& norm, at::TensorList,
                               double eps, const Weight& w, at::ScalarType compute) {
    const int64_t N = x.size(0), C = x.size(1);
    const Tensor h = delta ? at::empty_like(x) : x;
    const Tensor rstd = at::empty({N}, x.options()), u = at::empty({N, C}, x.options().dtype(compute));
    dispatch(x.scalar_type(), compute, [&]<class P, class A>(P*, A*) {
      const auto& k = kernels<P, A>();
      parallel_rows(N, [&](int64_t, int64_t i, int64_t end) {
        k.add_norm(end - i, C, pointer<P>(x) + i * C, delta ? pointer<A>(*delta) + i * C : nullptr, pointer<P>(norm), eps,
                   delta ? pointer<P>(h) + i * C : nullptr, pointer<A>(u) + i * C, pointer<P>(rstd) + i);
      });
    });
    ctx->save_for_backward({h, rstd, norm});
    ctx->saved_data["delta"] = delta.has_value();
    ctx->set_materialize_grads(false);
    keep(ctx, w);
    return {h, product(u, w)};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &h = saved[0], &rstd = saved[1], &norm = saved[2];
    const Weight& w = kept<Weight>(ctx);
    const bool has_delta = ctx->saved_data.at("delta").toBool();
    const Tensor dh = grads[0].defined() ? grads[0].contiguous() : Tensor();
    const int64_t N = h.size(0), C = h.size(1);
    FATHOM_ASSERT(grads[1].defined());
    const Tensor dy = grads[1].contiguous();
    const at::ScalarType compute = dy.scalar_type();
    const InputGradient back = product_backward(dy, w);
    const Tensor& u = back.dx;  // du, and after norm_backward u itself
    const Tensor dx = at::empty_like(h);
    const Tensor da = has_delta && compute != h.scalar_type() ? at::empty({N, C}, h.options().dtype(compute)) : Tensor();
    const Tensor dnorm = at::zeros({row_slots(), C}, h.options());
    dispatch(h.scalar_type(), compute, [&]<class P, class A>(P*, A*) {
      const auto& k = kernels<P, A>();
      parallel_rows(N, [&](int64_t slot, int64_t i, int64_t end) {
        k.norm_backward(end - i, C, pointer<P>(h) + i * C, pointer<P>(rstd) + i, pointer<P>(norm), dh.defined() ? pointer<P>(dh) + i * C : nullptr,
                        pointer<P>(dx) + i * C, da.defined() ? pointer<A>(da) + i * C : nullptr, pointer<A>(u) + i * C, pointer<P>(dnorm) + slot * C);
      });
    });
    variable_list out{dx, has_delta ? (da.defined() ? da : dx) : Tensor(), dnorm.sum(0)};
    push_weight_gradients(out, w, dy, u, back.low);
    out.resize(out.size() + 3);
    return out;
  }
};

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, at::TensorList, const Weight& w) {
    // Nobody reads the rows of a product whose weight stays as it is.
    const bool needed = trains(w) || !w.adapters.empty();
    ctx->save_for_backward({needed ? x : Tensor()});
    keep(ctx, w);
    return product(x, w);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor x = ctx->get_saved_variables()[0], dy = grads[0].contiguous();
    const Weight& w = kept<Weight>(ctx);
    const InputGradient back = product_backward(dy, w);
    variable_list out{back.dx};
    push_weight_gradients(out, w, dy, x, back.low);
    out.emplace_back();
    return out;
  }
};

struct SwigluLinearFunction : torch::autograd::Function<SwigluLinearFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate_up, at::TensorList, const Weight& w) {
    const int64_t N = gate_up.size(0), F = gate_up.size(1) / 2;
    const Tensor act = at::empty({N, F}, gate_up.options());
    dispatch(w.joined.scalar_type(), gate_up.scalar_type(), [&]<class P, class A>(P*, A*) {
      parallel_rows(N, [&](int64_t, int64_t i, int64_t end) {
        kernels<P, A>().swiglu(end - i, F, pointer<A>(gate_up) + i * 2 * F, pointer<A>(act) + i * F);
      });
    });
    ctx->save_for_backward({gate_up});
    keep(ctx, w);
    return product(act, w);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor gate_up = ctx->get_saved_variables()[0], dy = grads[0].contiguous();
    const Weight& w = kept<Weight>(ctx);
    const int64_t N = gate_up.size(0), F = gate_up.size(1) / 2;
    const InputGradient back = product_backward(dy, w);
    const Tensor& dact = back.dx;
    const Tensor dgate_up = at::empty_like(gate_up);
    dispatch(w.joined.scalar_type(), gate_up.scalar_type(), [&]<class P, class A>(P*, A*) {
      parallel_rows(N, [&](int64_t, int64_t i, int64_t end) {
        // dact is read before act is written over it, element by element.
        kernels<P, A>().swiglu_backward(end - i, F, pointer<A>(gate_up) + i * 2 * F, pointer<A>(dact) + i * F, pointer<A>(dgate_up) + i * 2 * F,
                                        pointer<A>(dact) + i * F);
      });
    });
    variable_list out{dgate_up};
    push_weight_gradients(out, w, dy, dact, back.low);
    out.emplace_back();
    return out;
  }
};

}  // namespace

NormLinear add_norm_linear(const Tensor& x, const Tensor& delta, const Tensor& norm, double eps, const Weight& w, at::ScalarType compute) {
  const std::vector<Tensor> leaves = w.leaves();
  const auto out = NormLinearFunction::apply(x.contiguous(), delta.defined() ? std::optional<Tensor>(delta) : std::nullopt, norm,
                                             at::TensorList(leaves), eps, w, compute);
  return {out[0], out[1]};
}

Tensor linear(const Tensor& x, const Weight& w) {
  const std::vector<Tensor> leaves = w.leaves();
  return LinearFunction::apply(x, at::TensorList(leaves), w);
}

Tensor swiglu_linear(const Tensor& gate_up, const Weight& w) {
  const std::vector<Tensor> leaves = w.leaves();
  return SwigluLinearFunction::apply(gate_up, at::TensorList(leaves), w);
}

}  // namespace fathom::nn
