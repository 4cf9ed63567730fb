#include <cmath>

#include "model/rope.h"
#include "nn/ops_common.h"

namespace fathom::nn {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::pair<Tensor, Tensor> rope_table(int64_t positions, int64_t width, double theta, at::ScalarType type, const model::RopeScaling& scaling) {
  if (type == at::kFloat) {
    const std::vector<float> frequency = model::rope_frequencies(width, theta, scaling);
    const float factor = static_cast<float>(scaling.attention_factor);
    std::pair<Tensor, Tensor> table = {at::empty({positions, width / 2}, type), at::empty({positions, width / 2}, type)};
    for (int64_t p = 0; p < positions; ++p)
      model::rope_row(p, frequency, table.first.mutable_data_ptr<float>() + p * width / 2, table.second.mutable_data_ptr<float>() + p * width / 2, factor);
    return table;
  }
  FATHOM_ASSERT(scaling.type == model::RopeScaling::Type::none, "scaled positions in double");
  const Tensor i = at::arange(0, width, 2, at::kDouble) / static_cast<double>(width);
  const Tensor angle = at::arange(positions, at::kDouble).unsqueeze(1) * at::pow(theta, -i).unsqueeze(0);
  return {angle.cos().to(type).contiguous(), angle.sin().to(type).contiguous()};
}

namespace {

using Ranges = std::shared_ptr<const Attention>;

// The task of sequence s and key/value head g. kv: where keys begin in a row of kv_rows.
template <class P, class A>
AttentionTask<P, A> task_of(const Attention& a, size_t s, int64_t g, const Tensor& q_rows, const Tensor& kv_rows, int64_t kv, const Tensor& out,
                            const Tensor& lse) {
  const int64_t q0 = a.q_begin[s], k0 = a.k_begin[s], D = a.width, per_group = a.heads / a.groups;
  AttentionTask<P, A> t;
  t.nq = a.q_begin[s + 1] - q0;
  t.nk = a.k_begin[s + 1] - k0;
  t.D = D;
  t.heads = per_group;
  t.key_offset = k0;
  t.q_stride = q_rows.size(1);
  t.kv_stride = kv_rows.size(1);
  t.q = pointer<A>(q_rows) + q0 * t.q_stride + g * per_group * D;
  t.k = pointer<A>(kv_rows) + k0 * t.kv_stride + kv + g * D;
  t.v = t.k + a.groups * D;
  t.lo = a.lo.data() + q0;
  t.hi = a.hi.data() + q0;
  t.q_position = a.q_position.data() + q0;
  t.k_position = a.k_position.data() + k0;
  t.cosine = pointer<P>(a.cosine);
  t.sine = pointer<P>(a.sine);
  t.out_stride = out.size(1);
  t.lse_stride = lse.size(1);
  t.out = pointer<A>(out) + q0 * t.out_stride + g * per_group * D;
  t.lse = pointer<P>(lse) + g * per_group * t.lse_stride + q0;
  return t;
}

// body(s, g, scratch) for every sequence with queries and every key/value head. A task owns its keys' gradients, so nothing is
// added up across threads.
template <class P, class Body>
void each_task(const Attention& a, int64_t (*scratch_of)(int64_t, int64_t, int64_t), const Body& body) {
  const int64_t sequences = static_cast<int64_t>(a.q_begin.size()) - 1;
  int64_t most = 0;
  for (size_t s = 0; s + 1 < a.q_begin.size(); ++s)
    most = std::max(most, scratch_of(a.q_begin[s + 1] - a.q_begin[s], a.k_begin[s + 1] - a.k_begin[s], a.width));
  at::parallel_for(0, sequences * a.groups, 1, [&](int64_t begin, int64_t end) {
    const Tensor scratch = at::empty({most}, at::CppTypeToScalarType<P>::value);
    for (int64_t i = begin; i < end; ++i) {
      const size_t s = static_cast<size_t>(i / a.groups);
      if (a.q_begin[s + 1] > a.q_begin[s]) body(s, i % a.groups, pointer<P>(scratch));
    }
  });
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q_rows, const std::optional<Tensor>& kv_rows, const Ranges& ranges) {
    const Attention& a = *ranges;
    const int64_t N = q_rows.size(0), HD = a.heads * a.width;
    const Tensor& kv = kv_rows ? *kv_rows : q_rows;
    const int64_t offset = kv_rows ? 0 : HD;
    FATHOM_ASSERT(q_rows.is_contiguous() && kv.is_contiguous() && kv.size(1) >= offset + 2 * a.groups * a.width);
    const Tensor out = at::empty({N, HD}, q_rows.options()), lse = at::empty({a.heads, N}, a.cosine.options());
    dispatch(a.cosine.scalar_type(), q_rows.scalar_type(), [&]<class P, class A>(P*, A*) {
      const auto& k = kernels<P, A>();
      each_task<P>(a, k.attention_scratch, [&](size_t s, int64_t g, P* scratch) { k.attention(task_of<P, A>(a, s, g, q_rows, kv, offset, out, lse), scratch); });
    });
    ctx->save_for_backward({q_rows, kv_rows ? *kv_rows : Tensor(), out, lse});
    keep(ctx, ranges);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &q_rows = saved[0], &kv_rows = saved[1], &out = saved[2], &lse = saved[3];
    const Attention& a = *kept<Ranges>(ctx);
    const int64_t offset = kv_rows.defined() ? 0 : a.heads * a.width;
    const Tensor& kv = kv_rows.defined() ? kv_rows : q_rows;
    const Tensor dout = grads[0].contiguous();
    // Keys of a sequence without queries get no task: their gradient must be zero all the same.
    const Tensor dq = at::empty_like(q_rows), dkv = kv_rows.defined() ? at::zeros_like(kv_rows) : dq;
    dispatch(a.cosine.scalar_type(), q_rows.scalar_type(), [&]<class P, class A>(P*, A*) {
      const auto& k = kernels<P, A>();
      each_task<P>(a, k.attention_scratch, [&](size_t s, int64_t g, P* scratch) {
        auto t = task_of<P, A>(a, s, g, q_rows, kv, offset, out, lse);
        t.dout = pointer<A>(dout) + (t.out - pointer<A>(out));
        t.dq = pointer<A>(dq) + (t.q - pointer<A>(q_rows));
        t.dk = pointer<A>(dkv) + (t.k - pointer<A>(kv));
        t.dv = pointer<A>(dkv) + (t.v - pointer<A>(kv));
        k.attention_backward(t, scratch);
      });
    });
    return {dq, kv_rows.defined() ? dkv : Tensor(), Tensor()};
  }
};

}  // namespace

Tensor norm_heads(const Tensor& rows, int64_t queries, int64_t keys, const Tensor& q_norm, const Tensor& k_norm, double eps) {
  const int64_t N = rows.size(0), D = q_norm.size(0), normed = (queries + keys) * D;
  const Tensor heads = rows.narrow(1, 0, normed).view({N, queries + keys, D}).to(q_norm.scalar_type());
  const Tensor weight = at::cat({q_norm.expand({queries, D}), k_norm.expand({keys, D})});
  const Tensor y = (heads * (heads.square().mean(-1, true) + eps).rsqrt() * weight).to(rows.scalar_type()).reshape({N, normed});
  return normed == rows.size(1) ? y : at::cat({y, rows.narrow(1, normed, rows.size(1) - normed)}, 1);
}

Tensor rope_attention(const Tensor& q_rows, const Tensor& kv_rows, const Ranges& attention) {
  return AttentionFunction::apply(q_rows, kv_rows.defined() ? std::optional<Tensor>(kv_rows) : std::nullopt, attention);
}

}  // namespace fathom::nn
