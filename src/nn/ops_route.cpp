// Around a routed block: the router's score, gathering of rows, and their way back with the gate on the delta.
#include "nn/ops_common.h"

namespace fathom::nn {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct GatherFunction : torch::autograd::Function<GatherFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& delta, const Tensor& w, const ScoredRows& scored,
                               const std::optional<Tensor>& rows, int64_t count) {
    const Tensor gathered = rows ? scored.h.index_select(0, *rows) : Tensor();
    // Not the tensors themselves: they become the outputs, and a node that keeps its outputs is never freed.
    ScoredRows inside = {{}, {}, scored.h.variable_data(), scored.score.variable_data(), scored.rstd};
    ctx->save_for_backward({w});
    keep(ctx, Inside{std::move(inside), gathered.defined() ? gathered.variable_data() : Tensor(), rows.value_or(Tensor()), count,
                     delta ? delta->scalar_type() : x.scalar_type(), delta.has_value()});
    ctx->set_materialize_grads(false);
    variable_list out{scored.h, scored.score};
    if (gathered.defined()) out.push_back(gathered);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Inside& in = kept<Inside>(ctx);
    const Tensor w = ctx->get_saved_variables()[0], &h = in.scored.h;
    const int64_t N = h.size(0), C = h.size(1);
    const auto whole = [](const Tensor& t) { return t.defined() ? t.contiguous() : t; };
    const Tensor dh = whole(grads[0]), dscore = whole(grads[1]), dg = in.rows.defined() ? whole(grads[2]) : Tensor();
    const Tensor dx = at::empty_like(h), dw = at::zeros({row_slots(), C}, h.options());
    const Tensor da = in.has_delta && in.delta_type != h.scalar_type() ? at::empty({N, C}, h.options().dtype(in.delta_type)) : Tensor();
    dispatch(h.scalar_type(), in.delta_type, [&]<class P, class A>(P*, A*) {
      EntranceTask<P, A> t;
      t.C = C;
      t.count = in.rows.defined() ? in.count : 0;
      t.row = pointer<int64_t>(in.rows);
      t.h = pointer<P>(h);
      t.gathered = pointer<P>(in.gathered);
      t.w = pointer<P>(w);
      t.score = pointer<P>(in.scored.score);
      t.rstd = pointer<P>(in.scored.rstd);
      t.dh = pointer<P>(dh);
      t.dg = pointer<P>(dg);
      t.dscore = pointer<P>(dscore);
      t.dx = pointer<P>(dx);
      t.da = pointer<A>(da);
      parallel_rows(N, [&](int64_t slot, int64_t i, int64_t end) { kernels<P, A>().entrance_backward(t, i, end, pointer<P>(dw) + slot * C); });
    });
    return {dx, in.has_delta ? (da.defined() ? da : dx) : Tensor(), dw.sum(0).view_as(w), Tensor(), Tensor(), Tensor()};
  }

 private:
  struct Inside {
    ScoredRows scored;
    Tensor gathered, rows;
    int64_t count;
    at::ScalarType delta_type;
    bool has_delta;
  };
};

struct ScatterFunction : torch::autograd::Function<ScatterFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& rows, const Tensor& a, const std::optional<Tensor>& m,
                        const std::optional<Tensor>& g, bool in_place) {
    const int64_t C = x.size(1);
    const Tensor out = in_place ? x.variable_data() : x.clone();
    dispatch(x.scalar_type(), a.scalar_type(), [&]<class P, class A>(P*, A*) {
      parallel_rows(rows.size(0), [&](int64_t, int64_t i, int64_t end) {
        kernels<P, A>().scatter(end - i, C, pointer<int64_t>(rows) + i, pointer<A>(a) + i * C, m ? pointer<A>(*m) + i * C : nullptr,
                                g ? pointer<P>(*g) + i : nullptr, pointer<P>(out));
      });
    });
    ctx->save_for_backward({rows, a, m ? *m : Tensor(), g ? *g : Tensor()});
    return out;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &rows = saved[0], &a = saved[1], &m = saved[2], &g = saved[3];
    const Tensor d = grads[0].contiguous(), da = at::empty_like(a), dg = g.defined() ? at::empty_like(g) : Tensor();
    const int64_t C = d.size(1);
    da.narrow(0, rows.size(0), da.size(0) - rows.size(0)).zero_();
    dispatch(d.scalar_type(), a.scalar_type(), [&]<class P, class A>(P*, A*) {
      parallel_rows(rows.size(0), [&](int64_t, int64_t i, int64_t end) {
        kernels<P, A>().scatter_backward(end - i, C, pointer<int64_t>(rows) + i, pointer<P>(d), pointer<A>(a) + i * C, m.defined() ? pointer<A>(m) + i * C : nullptr,
                                         g.defined() ? pointer<P>(g) + i : nullptr, pointer<A>(da) + i * C, dg.defined() ? pointer<P>(dg) + i : nullptr);
      });
    });
    return {d, Tensor(), da, m.defined() ? da : Tensor(), dg, Tensor()};  // every row of x passes through: the gate is on the delta alone
  }
};

}  // namespace

ScoredRows score_rows(const Tensor& x, const Tensor& delta, const Tensor& w, bool normed, double eps) {
  const at::NoGradGuard no_grad;
  const int64_t N = x.size(0), C = x.size(1);
  FATHOM_ASSERT(x.is_contiguous() && (!delta.defined() || delta.is_contiguous()) && w.numel() == C);
  ScoredRows s = {x, delta, at::empty(x.sizes(), x.options()), at::empty({N}, x.options()), normed ? at::empty({N}, x.options()) : Tensor()};
  dispatch(x.scalar_type(), delta.defined() ? delta.scalar_type() : x.scalar_type(), [&]<class P, class A>(P*, A*) {
    parallel_rows(N, [&](int64_t, int64_t i, int64_t end) {
      kernels<P, A>().score(end - i, C, pointer<P>(x) + i * C, delta.defined() ? pointer<A>(delta) + i * C : nullptr, pointer<P>(w), eps,
                            pointer<P>(s.h) + i * C, pointer<P>(s.score) + i, normed ? pointer<P>(s.rstd) + i : nullptr);
    });
  });
  return s;
}

GatheredRows gather_rows(const ScoredRows& s, const Tensor& w, const Tensor& rows, std::optional<int64_t> count) {
  const auto out = GatherFunction::apply(s.x, s.delta.defined() ? std::optional<Tensor>(s.delta) : std::nullopt, w, s,
                                         rows.defined() ? std::optional<Tensor>(rows) : std::nullopt, count.value_or(rows.defined() ? rows.numel() : 0));
  return {out[0], out[1], rows.defined() ? out[2] : Tensor()};
}

Tensor scatter_delta(const Tensor& x, const Tensor& rows, const Tensor& a, const Tensor& m, const Tensor& g, bool in_place) {
  return ScatterFunction::apply(x, rows, a, m.defined() ? std::optional<Tensor>(m) : std::nullopt,
                                g.defined() ? std::optional<Tensor>(g.contiguous()) : std::nullopt, in_place);
}

}  // namespace fathom::nn
