#include "nn/pass.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"

namespace fathom::nn {

using at::Tensor;

namespace {

Rows rows_of(const Batch& batch) {
  Rows rows;
  FATHOM_ASSERT(batch.tokens.dim() == 2 && batch.tokens.scalar_type() == at::kLong, "tokens must be [B, T] int64");
  rows.batch = batch.tokens.size(0);
  rows.tokens = batch.tokens.size(1);
  const size_t n = static_cast<size_t>(rows.batch * rows.tokens);
  rows.length.assign(static_cast<size_t>(rows.batch), rows.tokens);
  if (batch.lengths.defined()) {
    const Tensor lengths = batch.lengths.to(at::kLong).contiguous();
    FATHOM_ASSERT(lengths.numel() == rows.batch);
    std::copy_n(lengths.const_data_ptr<int64_t>(), rows.batch, rows.length.begin());
    for (int64_t length : rows.length) FATHOM_ASSERT(length >= 0 && length <= rows.tokens);
  }
  rows.document_start.assign(n, 0);
  if (batch.document_start.defined()) {
    const Tensor starts = batch.document_start.to(at::kInt).contiguous();
    FATHOM_ASSERT(starts.numel() == static_cast<int64_t>(n));
    std::copy_n(starts.const_data_ptr<int32_t>(), n, rows.document_start.begin());
  }
  rows.position.resize(n);
  for (int64_t b = 0; b < rows.batch; ++b)
    for (int64_t t = 0; t < rows.tokens; ++t) {
      const size_t i = static_cast<size_t>(b * rows.tokens + t);
      const int32_t start = rows.document_start[i];
      FATHOM_ASSERT(start >= 0 && start <= t && (t == 0 || start >= rows.document_start[i - 1]));
      rows.position[i] = static_cast<int32_t>(t) - start;
      rows.one_document = rows.one_document && start == 0;
    }
  return rows;
}

Tensor predictor_mlp(const UnitWeights& w, const Tensor& u) {
  return at::linear(at::silu(at::linear(u, w.fc1, w.fc1_bias)), w.fc2, w.fc2_bias).squeeze(-1);
}

}  // namespace

std::vector<int64_t> filled_up(const std::vector<int64_t>& rows, int64_t filler) {
  constexpr size_t kMultiple = 64;
  std::vector<int64_t> out = rows;
  out.resize((rows.size() + kMultiple - 1) / kMultiple * kMultiple, filler);
  return out;
}

Tensor index_tensor(const std::vector<int64_t>& values) { return at::tensor(at::ArrayRef<int64_t>(values), at::kLong); }

Tensor membership(const Selected& selected, const Tensor& like) { return at::zeros_like(like).index_fill_(0, index_tensor(selected.rows), 1.0); }

Pass::Pass(TransformerState& state, const Batch& batch, Compute compute)
    : state_(state),
      compute_(compute == Compute::bf16 && state.type == at::kFloat ? at::kBFloat16 : state.type),
      tokens_(batch.tokens.reshape({-1})),
      rows_(rows_of(batch)) {
  state_.ensure_positions(rows_.tokens);
  if (compute_ == at::kBFloat16) state_.refresh_low();
  auto a = attention();
  const size_t n = rows_.position.size();
  a->q_position = a->k_position = rows_.position;
  a->lo.resize(n);
  a->hi.resize(n);
  for (int64_t b = 0; b <= rows_.batch; ++b) a->q_begin.push_back(b * rows_.tokens);
  a->k_begin = a->q_begin;
  for (size_t i = 0; i < n; ++i) {
    a->lo[i] = static_cast<int32_t>(i) - rows_.position[i];
    a->hi[i] = static_cast<int32_t>(i) + 1;
  }
  whole_ = a;
}

std::shared_ptr<Attention> Pass::attention() const {
  auto a = std::make_shared<Attention>();
  a->heads = state_.config.num_attention_heads;
  a->groups = state_.config.num_key_value_heads;
  a->width = state_.config.head_dim;
  a->cosine = state_.cosine;
  a->sine = state_.sine;
  return a;
}

Stream Pass::embedded() const { return {embed(state_.embedding, tokens_), {}}; }

Tensor Pass::heads(size_t block, const Tensor& rows, int64_t queries, int64_t keys) const {
  const BlockWeights& w = state_.blocks[block];
  return w.q_norm.defined() ? norm_heads(rows, queries, keys, w.q_norm, w.k_norm, state_.config.rms_norm_eps) : rows;
}

Tensor Pass::whole_attention(size_t block, const Tensor& qkv) const {
  return rope_attention(heads(block, qkv, state_.config.num_attention_heads, state_.config.num_key_value_heads), {}, whole_);
}

void Pass::dense_block(size_t block, Stream& stream) const {
  const BlockWeights& w = state_.blocks[block];
  const double eps = state_.config.rms_norm_eps;
  const NormLinear qkv = add_norm_linear(stream.x, stream.delta, w.input_norm, eps, w.qkv, compute_);
  const Tensor a = linear(whole_attention(block, qkv.y), w.o);
  const NormLinear gate_up = add_norm_linear(qkv.h, a, w.post_norm, eps, w.gate_up, compute_);
  stream = {gate_up.h, swiglu_linear(gate_up.y, w.down)};
}

Pass::Scores Pass::scores(size_t unit, const Stream& stream) const {
  const UnitWeights& w = state_.units[unit];
  const auto& routing = state_.config.routing;
  const double eps = state_.config.rms_norm_eps;
  const bool normed = routing.router_input == routing::RouterInput::normed;
  Scores s;
  s.rows = score_rows(stream.x.contiguous(), stream.delta, w.router, normed, eps);
  s.raw = w.router_bias.defined() ? s.rows.score + w.router_bias.detach() : s.rows.score;
  s.decision = s.raw;
  if (routing.rule == routing::CausalRule::predictor) {
    // Memory of its own: the block writes into h.
    const Tensor u = normed ? s.rows.h * s.rows.rstd.unsqueeze(1) : s.rows.h.clone();
    s.decision = predictor_mlp(w, u);
  }
  return s;
}

Tensor Pass::predict(size_t unit, const Tensor& x) const {
  const double eps = state_.config.rms_norm_eps;
  const bool normed = state_.config.routing.router_input == routing::RouterInput::normed;
  return predictor_mlp(state_.units[unit], normed ? x * (x.square().mean(-1, true) + eps).rsqrt() : x);
}

Tensor Pass::gate(const Tensor& raw, const Selected& selected, const Tensor& rows, double tau) const {
  const auto& routing = state_.config.routing;
  const Tensor r = selected.all ? raw : raw.index_select(0, rows);
  Tensor g;
  switch (routing.gate) {
    case routing::Gate::one_plus_tanh: g = 1 + routing.gate_scale * at::tanh(r); break;
    case routing::Gate::sigmoid: g = at::sigmoid(r); break;
    case routing::Gate::raw: g = r; break;
    case routing::Gate::hard: {
      if (!at::GradMode::is_enabled()) return {};
      const Tensor s = at::sigmoid(r / tau);
      g = 1 + (s - s.detach());  // exactly 1; the gradient is the sigmoid's
    } break;
  }
  if (routing.forced_positions > 0) {
    std::vector<int64_t> forced;
    for (size_t i = 0; i < selected.rows.size(); ++i)
      if (rows_.position[static_cast<size_t>(selected.rows[i])] < routing.forced_positions) forced.push_back(static_cast<int64_t>(i));
    if (!forced.empty()) g = g.index_fill(0, index_tensor(forced), 1.0);
  }
  return g;
}

GatheredRows Pass::enter(size_t unit, Stream& stream, Scores& scores, const Tensor& rows, int64_t count) const {
  const UnitWeights& w = state_.units[unit];
  const GatheredRows entered = gather_rows(scores.rows, w.router, rows, count);
  const bool decided_by_raw = scores.decision.is_same(scores.raw);
  stream = {entered.h, {}};
  scores.raw = w.router_bias.defined() ? entered.score + w.router_bias : entered.score;
  if (decided_by_raw) scores.decision = scores.raw;
  return entered;
}

Tensor Pass::kept_keys(size_t block, const Tensor& x) const {
  if (state_.config.routing.kv == routing::KvPolicy::drop) return {};
  const BlockWeights& w = state_.blocks[block];
  return heads(block, add_norm_linear(x, {}, w.input_norm, state_.config.rms_norm_eps, w.kv, compute_).y, 0, state_.config.num_key_value_heads);
}

Tensor Pass::attended(size_t block, const Tensor& x, const Tensor& kept, const Selected& selected, const std::vector<int64_t>& filled) const {
  const BlockWeights& w = state_.blocks[block];
  const double eps = state_.config.rms_norm_eps;
  auto a = attention();
  const size_t n = filled.size();
  a->lo.resize(n);
  a->hi.resize(n);
  a->q_position.resize(n);
  a->q_begin = selected.begin;
  a->q_begin.back() = static_cast<int64_t>(n);
  for (size_t i = 0; i < n; ++i) a->q_position[i] = rows_.position[static_cast<size_t>(filled[i])];
  if (!kept.defined()) {
    a->k_begin = a->q_begin;
    a->k_position = a->q_position;
    // Sorted rows make "earlier, same document" a range that starts at the document's first selected row.
    for (size_t s = 0; s + 1 < selected.begin.size(); ++s)
      for (int64_t i = selected.begin[s], lo = i; i < selected.begin[s + 1]; ++i) {
        const int64_t row = selected.rows[static_cast<size_t>(i)], start = row - rows_.position[static_cast<size_t>(row)];
        while (selected.rows[static_cast<size_t>(lo)] < start) ++lo;
        a->lo[static_cast<size_t>(i)] = static_cast<int32_t>(lo);
        a->hi[static_cast<size_t>(i)] = static_cast<int32_t>(i) + 1;
      }
    for (size_t i = selected.rows.size(); i < n; ++i) {
      a->lo[i] = static_cast<int32_t>(i);
      a->hi[i] = static_cast<int32_t>(i) + 1;
    }
    return rope_attention(heads(block, add_norm_linear(x, {}, w.input_norm, eps, w.qkv, compute_).y, a->heads, a->groups), {}, a);
  }
  a->k_begin = whole_->k_begin;
  a->k_position = rows_.position;
  for (size_t i = 0; i < n; ++i) {
    a->lo[i] = whole_->lo[static_cast<size_t>(filled[i])];
    a->hi[i] = whole_->hi[static_cast<size_t>(filled[i])];
  }
  return rope_attention(heads(block, add_norm_linear(x, {}, w.input_norm, eps, w.q, compute_).y, a->heads, 0), kept, a);
}

Tensor Pass::mlp(size_t block, const Tensor& x, const Tensor& attention) const {
  const BlockWeights& w = state_.blocks[block];
  return swiglu_linear(add_norm_linear(x, attention, w.post_norm, state_.config.rms_norm_eps, w.gate_up, compute_).y, w.down);
}

void Pass::routed_block(size_t unit, Stream& stream, Scores& scores, const Selected& selected, double tau) const {
  const size_t block = static_cast<size_t>(state_.config.routing.units[unit].block);
  const BlockWeights& w = state_.blocks[block];
  const Tensor rows = index_tensor(selected.rows);
  const bool some = !selected.rows.empty() && !selected.all;
  const std::vector<int64_t> filled = some ? filled_up(selected.rows, rows_.batch * rows_.tokens - 1) : selected.rows;
  const GatheredRows entered = enter(unit, stream, scores, some ? index_tensor(filled) : Tensor(), static_cast<int64_t>(selected.rows.size()));
  if (selected.rows.empty()) return;
  const Tensor g = gate(scores.raw, selected, rows, tau);
  if (selected.all && !g.defined()) return dense_block(block, stream);

  const Tensor x = some ? entered.gathered : stream.x;
  const Tensor attention = selected.all ? whole_attention(block, add_norm_linear(x, {}, w.input_norm, state_.config.rms_norm_eps, w.qkv, compute_).y)
                                        : attended(block, x, kept_keys(block, stream.x), selected, filled);
  const Tensor attn = linear(attention, w.o);
  const Tensor m = mlp(block, x, attn);
  // Where only gathered rows were read, nothing needs the others' old values beside the new ones.
  const bool in_place = some && state_.config.routing.kv == routing::KvPolicy::drop;
  stream.x = scatter_delta(stream.x, rows, attn, m, g, in_place);
}

HeadLoss Pass::loss(const Stream& stream, const Tensor& targets, const HeadTerms& terms) const {
  return head_loss(stream.x, stream.delta, state_.final_norm, state_.config.rms_norm_eps, state_.head, targets.reshape({-1}), compute_, terms);
}

Tensor Pass::logits(const Stream& stream) const {
  return add_norm_linear(stream.x, stream.delta, state_.final_norm, state_.config.rms_norm_eps, state_.head, compute_).y;
}

namespace {

template <class Real>
Selected select_as(const Pass& pass, const model::ModelConfig& config, size_t unit, size_t cut, Pass::Scores& scores, const ForwardOptions& options) {
  const auto& routing = config.routing;
  const size_t of_all = routing.first_cut(unit) + cut;  // its place in lists over cuts
  const double capacity = options.capacity.empty() ? routing.units[unit].capacities()[cut] : options.capacity[of_all];
  const int64_t key = routing.units[unit].random_key();
  const auto span = [](const Tensor& t) { return std::span<const Real>(t.const_data_ptr<Real>(), static_cast<size_t>(t.numel())); };
  const auto raw = [&] {
    if (options.score_noise == 0) return scores.raw.detach().contiguous();
    if (scores.noisy.defined()) return scores.noisy;  // one draw for all cuts
    scores.noisy = scores.raw.detach().clone();
    Random random = Random(options.noise_seed).fork("router " + std::to_string(key));
    const auto logistic = [&] {
      const double u = random.uniform() + 0x1.0p-54;  // never 0
      return std::log(u / (1 - u));
    };
    Real* p = scores.noisy.mutable_data_ptr<Real>();
    for (int64_t i = 0; i < scores.noisy.numel(); ++i)
      p[i] += static_cast<Real>(options.score_noise * (options.pick == Pick::straight_through ? logistic() : random.normal()));
    return scores.noisy;
  };
  switch (options.pick) {
    case Pick::topk: {
      const Tensor r = raw();
      return select_top_k<Real>(span(r), pass.rows(), capacity, routing.forced_positions);
    }
    case Pick::threshold:
    case Pick::straight_through: {
      const Tensor r = raw();
      if (options.pick == Pick::straight_through && !options.capacity.empty()) return select_top_k<Real>(span(r), pass.rows(), capacity, routing.forced_positions);
      return select_threshold<Real>(span(r), pass.rows(), options.thresholds.empty() ? 0.0f : options.thresholds[of_all], routing.forced_positions);
    }
    case Pick::causal:
      if (routing.selection != routing::Selection::random)
        return select_threshold<Real>(span(scores.decision.detach().contiguous()), pass.rows(), options.thresholds[of_all],
                                      routing.forced_positions);
      return select_random(pass.rows(), routing.random_seed, key, capacity, routing.forced_positions);
    case Pick::random:
      return select_random(pass.rows(), routing.random_seed, key, capacity, routing.forced_positions, options.first_row);
    case Pick::imposed: {
      const Tensor path = options.imposed[unit].to(at::kByte);
      Tensor run = path.eq(static_cast<int>(routing::Path::full));
      if (of_all != routing.full_cut(unit)) run = run.logical_or(path.eq(static_cast<int>(routing::Path::light)));
      run = run.contiguous();
      return select_imposed({run.const_data_ptr<bool>(), static_cast<size_t>(run.numel())}, pass.rows());
    }
  }
  return {};
}

}  // namespace

Selected select(const Pass& pass, const model::ModelConfig& config, size_t unit, size_t cut, Pass::Scores& scores, const ForwardOptions& options) {
  return scores.raw.scalar_type() == at::kDouble ? select_as<double>(pass, config, unit, cut, scores, options)
                                                 : select_as<float>(pass, config, unit, cut, scores, options);
}

}  // namespace fathom::nn
