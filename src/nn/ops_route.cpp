// Around a routed block: the router's score, gathering of rows, and their way back with the gate on the delta.
#include "nn/ops_common.h"

namespace fathom::nn {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct AddDeltaFunction : torch::autograd::Function<AddDeltaFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& delta) {
    const Tensor h = at::empty_like(x);
    dispatch(x.scalar_type(), delta.scalar_type(), [&]<class P, class A>(P*, A*) {
      parallel_rows(x.size(0), [&](int64_t, int64_t i, int64_t end) {
        const int64_t C = x.size(1);
        kernels<P, A>().add((end - i) * C, pointer<P>(x) + i * C, pointer<A>(delta) + i * C, pointer<P>(h) + i * C);
      });
    });
    ctx->saved_data["type"] = static_cast<int64_t>(delta.scalar_type());
    return h;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {grads[0], grads[0].to(static_cast<at::ScalarType>(ctx->saved_data.at("type").toInt()))};
  }
};

struct ScoreFunction : torch::autograd::Function<ScoreFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, bool normed, double eps) {
    const int64_t N = x.size(0), C = x.size(1);
    const Tensor r = at::empty({N}, x.options()), rstd = normed ? at::empty({N}, x.options()) : Tensor();
    dispatch(x.scalar_type(), x.scalar_type(), [&]<class P, class A>(P*, A*) {
      parallel_rows(N, [&](int64_t, int64_t i, int64_t end) {
        kernels<P, P>().score(end - i, C, pointer<P>(x) + i * C, pointer<P>(w), normed, eps, pointer<P>(r) + i, normed ? pointer<P>(rstd) + i : nullptr);
      });
    });
    ctx->save_for_backward({x, w, r, rstd});
    return r;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1], &r = saved[2], &rstd = saved[3];
    const int64_t C = x.size(1);
    const Tensor d = rstd.defined() ? grads[0] * rstd : grads[0];
    Tensor dx = at::outer(d, w.reshape({-1}));
    // r = (x·w)·rstd and d rstd/dx = −rstd³ x / C give −r·rstd² x / C besides w·rstd.
    if (rstd.defined()) dx.addcmul_(x, (grads[0] * r * rstd.square()).unsqueeze(1), -1.0 / static_cast<double>(C));
    return {dx, at::mv(x.t(), d).view_as(w), Tensor(), Tensor()};
  }
};

struct GatherFunction : torch::autograd::Function<GatherFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& rows) {
    ctx->save_for_backward({rows});
    ctx->saved_data["N"] = x.size(0);
    return x.index_select(0, rows);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor rows = ctx->get_saved_variables()[0];
    Tensor dx = at::zeros({ctx->saved_data.at("N").toInt(), grads[0].size(1)}, grads[0].options());
    return {dx.index_copy_(0, rows, grads[0]), Tensor()};  // rows are unique: nothing is added up
  }
};

struct ScatterFunction : torch::autograd::Function<ScatterFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& rows, const Tensor& a, const Tensor& m, const std::optional<Tensor>& g) {
    const int64_t C = x.size(1);
    const Tensor out = x.clone();
    dispatch(x.scalar_type(), a.scalar_type(), [&]<class P, class A>(P*, A*) {
      parallel_rows(rows.size(0), [&](int64_t, int64_t i, int64_t end) {
        kernels<P, A>().scatter(end - i, C, pointer<int64_t>(rows) + i, pointer<P>(x), pointer<A>(a) + i * C, pointer<A>(m) + i * C,
                                g ? pointer<P>(*g) + i : nullptr, pointer<P>(out));
      });
    });
    ctx->save_for_backward({rows, a, m, g ? *g : Tensor()});
    return out;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &rows = saved[0], &a = saved[1], &m = saved[2], &g = saved[3];
    const Tensor d = grads[0].contiguous(), da = at::empty_like(a), dg = g.defined() ? at::empty_like(g) : Tensor();
    const int64_t C = d.size(1);
    dispatch(d.scalar_type(), a.scalar_type(), [&]<class P, class A>(P*, A*) {
      parallel_rows(rows.size(0), [&](int64_t, int64_t i, int64_t end) {
        kernels<P, A>().scatter_backward(end - i, C, pointer<int64_t>(rows) + i, pointer<P>(d), pointer<A>(a) + i * C, pointer<A>(m) + i * C,
                                         g.defined() ? pointer<P>(g) + i : nullptr, pointer<A>(da) + i * C, dg.defined() ? pointer<P>(dg) + i : nullptr);
      });
    });
    return {d, Tensor(), da, da, dg};  // every row of x passes through: the gate is on the delta alone
  }
};

}  // namespace

Tensor add_delta(const Tensor& x, const Tensor& delta) { return delta.defined() ? AddDeltaFunction::apply(x, delta) : x; }

Tensor router_score(const Tensor& x, const Tensor& w, const Tensor& b, bool normed, double eps) {
  const Tensor r = ScoreFunction::apply(x, w, normed, eps);
  return b.defined() ? r + b : r;
}

Tensor gather_rows(const Tensor& x, const Tensor& rows) { return GatherFunction::apply(x, rows); }

Tensor scatter_delta(const Tensor& x, const Tensor& rows, const Tensor& a, const Tensor& m, const Tensor& g) {
  return ScatterFunction::apply(x, rows, a, m, g.defined() ? std::optional<Tensor>(g.contiguous()) : std::nullopt);
}

}  // namespace fathom::nn
