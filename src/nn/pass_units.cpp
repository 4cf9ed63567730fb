// Blocks with units of every kind: a whole block or its parts, with light paths, or static.
#include <limits>

#include "core/error.h"
#include "nn/pass.h"

namespace fathom::nn {

using at::Tensor;
using routing::Part;

Pass::Decided Pass::decide(size_t u, Stream& stream, const ForwardOptions& options) const {
  const routing::RoutedUnit& unit = state_.config.routing.units[u];
  Decided d;
  d.unit = u;
  if (unit.is_static()) {
    if (unit.paths.light) d.light = select_everyone(rows_);
    return d;
  }
  d.scores = scores(u, stream);
  const bool tuning = options.pick == Pick::straight_through, predicted = state_.config.routing.rule == routing::CausalRule::predictor;
  if (tuning && predicted) d.scores.raw = d.scores.decision;
  std::vector<Selected> reached;  // [cuts]
  for (size_t cut = 0; cut < unit.cuts(); ++cut) reached.push_back(select(*this, state_.config, u, cut, d.scores, options));
  enter(u, stream, d.scores, {}, 0);
  d.router = d.scores.raw;
  if (tuning && predicted) d.scores.raw = d.scores.decision = predict(u, stream.x);
  if (tuning)
    for (size_t cut = 0; cut < unit.cuts(); ++cut) {
      const float threshold = options.thresholds.empty() ? 0.0f : options.thresholds[state_.config.routing.first_cut(u) + cut];
      d.gates.push_back(straight_through(d.scores, reached[cut], options.capacity.empty() ? at::scalar_tensor(threshold, d.scores.raw.options()) : lowest_of_rows(d.scores, reached[cut]), options.straight_through_tau));
    }
  d.full = std::move(reached.back());
  if (unit.paths.light) d.light = without(unit.paths.skip ? reached.front() : select_everyone(rows_), d.full);
  return d;
}

Tensor Pass::lowest_of_rows(const Scores& scores, const Selected& reached) const {
  const Tensor s = (scores.noisy.defined() ? scores.noisy : scores.raw.detach()).to(at::kDouble).contiguous();
  const double* score = s.const_data_ptr<double>();
  std::vector<double> lowest(rows_.position.size(), 0.0);
  for (int64_t b = 0; b < rows_.batch; ++b) {
    double least = std::numeric_limits<double>::infinity();
    for (int64_t i = reached.begin[static_cast<size_t>(b)]; i < reached.begin[static_cast<size_t>(b) + 1]; ++i) {
      const int64_t row = reached.rows[static_cast<size_t>(i)];
      if (rows_.position[static_cast<size_t>(row)] >= state_.config.routing.forced_positions) least = std::min(least, score[row]);
    }
    if (std::isfinite(least)) std::fill_n(lowest.begin() + b * rows_.tokens, rows_.tokens, least);
  }
  return at::tensor(lowest, at::kDouble).to(scores.raw.scalar_type());
}

Tensor Pass::straight_through(const Scores& scores, const Selected& reached, const Tensor& threshold, double tau) const {
  const Tensor noise = scores.noisy.defined() ? scores.noisy - scores.raw.detach() : Tensor();
  const Tensor soft = at::sigmoid(((noise.defined() ? scores.raw + noise : scores.raw) - threshold) / tau);
  std::vector<int64_t> forced;
  for (size_t i = 0; i < rows_.position.size(); ++i)
    if (rows_.position[i] < state_.config.routing.forced_positions) forced.push_back(static_cast<int64_t>(i));
  const Tensor moving = forced.empty() ? soft : soft.index_fill(0, index_tensor(forced), 0.0);
  return membership(reached, moving.detach()) + (moving - moving.detach());
}

Tensor Pass::gate_of_all(const Tensor& raw) const {
  Selected all;
  all.all = true;
  for (int64_t row = 0; row < raw.numel(); ++row) all.rows.push_back(row);
  return gate(raw, all, {}, 1);
}

Tensor Pass::light(size_t unit, const Tensor& x) const {
  const UnitWeights& w = state_.units[unit];
  return linear(add_norm_linear(x, {}, state_.ones, state_.config.rms_norm_eps, w.light_down, compute_).y, w.light_up);
}

Pass::Delta Pass::full_delta(size_t block, Part part, const Tensor& x, const Tensor& kept, const Selected& selected) const {
  const std::vector<int64_t> filled = filled_up(selected.rows, rows_.batch * rows_.tokens - 1);
  const Tensor some = x.index_select(0, index_tensor(filled));
  Delta delta;
  if (part != Part::mlp) delta.a = linear(attended(block, some, kept, selected, filled), state_.blocks[block].o);
  if (part != Part::attention) delta.m = mlp(block, some, delta.a);
  return delta;
}

static Tensor add(const Tensor& to, const Tensor& rows, const Tensor& a, const Tensor& m, const Tensor& g) {
  return a.defined() ? scatter_delta(to, rows, a, m, g, false) : scatter_delta(to, rows, m, {}, g, false);
}

// x' of a unit at x: the block's input, or what attention left there.
Tensor Pass::run_unit(size_t block, const Decided& decided, const Tensor& x, double tau) const {
  if (!decided.gates.empty()) return tune_unit(block, decided, x);
  const Part part = state_.config.routing.units[decided.unit].part;
  Tensor out = x;
  if (!decided.full.rows.empty()) {
    const Tensor rows = index_tensor(decided.full.rows), kept = part == Part::mlp ? Tensor() : kept_keys(block, x);
    const Delta delta = full_delta(block, part, x, kept, decided.full);
    out = add(out, rows, delta.a, delta.m, gate(decided.scores.raw, decided.full, rows, tau));
  }
  if (!decided.light.rows.empty()) {
    const Tensor filled = index_tensor(filled_up(decided.light.rows, rows_.batch * rows_.tokens - 1));
    out = add(out, index_tensor(decided.light.rows), light(decided.unit, x.index_select(0, filled)), {}, {});
  }
  return out;
}

// The same with gates: every path of every token has a part in it, were it 0 times its delta.
Tensor Pass::tune_unit(size_t block, const Decided& decided, const Tensor& x) const {
  const routing::RoutedUnit& unit = state_.config.routing.units[decided.unit];
  const Selected everyone = select_everyone(rows_), rest = without(everyone, decided.full);
  const Tensor kept = unit.part == Part::mlp ? Tensor() : kept_keys(block, x), &g = decided.gates.back();
  const Tensor full = state_.config.routing.gate == routing::Gate::hard ? g : g * gate_of_all(decided.router);
  Tensor out = x;
  if (!decided.full.rows.empty()) {
    const Tensor rows = index_tensor(decided.full.rows);
    const Delta delta = full_delta(block, unit.part, x, kept, decided.full);
    out = add(out, rows, delta.a, delta.m, full.index_select(0, rows));
  }
  const bool knows_rest = unit.part == Part::mlp || kept.defined();
  if (knows_rest && at::GradMode::is_enabled() && !rest.rows.empty()) {
    Delta delta;
    {
      at::NoGradGuard no_grad;
      delta = full_delta(block, unit.part, x, kept, rest);
    }
    const Tensor rows = index_tensor(rest.rows);
    out = add(out, rows, delta.a, delta.m, full.index_select(0, rows));
  }
  if (unit.paths.light && !everyone.rows.empty()) {
    const Tensor rows = index_tensor(everyone.rows), filled = index_tensor(filled_up(everyone.rows, rows_.batch * rows_.tokens - 1));
    const Tensor share = unit.paths.skip ? decided.gates.front() - g : 1 - g;
    out = add(out, rows, light(decided.unit, everyone.all ? x : x.index_select(0, filled)), {}, share.index_select(0, rows));
  }
  return out;
}

void Pass::run_block(size_t block, Stream& stream, const std::vector<Decided>& decided, double tau) const {
  const auto summed = [&] { return stream.delta.defined() ? stream.x + stream.delta : stream.x; };
  const auto unit_of = [&](Part part) -> const Decided* {
    for (const Decided& d : decided)
      if (state_.config.routing.units[d.unit].covers(part)) return &d;
    return nullptr;
  };
  const Decided *attention = unit_of(Part::attention), *mlp_unit = unit_of(Part::mlp);
  const BlockWeights& w = state_.blocks[block];
  const double eps = state_.config.rms_norm_eps;
  if (attention) {
    stream = {run_unit(block, *attention, summed(), tau), {}};
  } else {
    const NormLinear qkv = add_norm_linear(stream.x, stream.delta, w.input_norm, eps, w.qkv, compute_);
    stream = {qkv.h, linear(whole_attention(block, qkv.y), w.o)};
  }
  if (mlp_unit == attention) return;  // one unit for both
  if (mlp_unit) {
    stream = {run_unit(block, *mlp_unit, summed(), tau), {}};
  } else {
    const NormLinear gate_up = add_norm_linear(stream.x, stream.delta, w.post_norm, eps, w.gate_up, compute_);
    stream = {gate_up.h, swiglu_linear(gate_up.y, w.down)};
  }
}

}  // namespace fathom::nn
