// Blocks with units of every kind: a whole block or its parts, with light paths, or static.
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
  d.full = select(*this, state_.config, u, unit.cuts() - 1, d.scores, options);
  if (unit.paths.light) d.light = without(unit.paths.skip ? select(*this, state_.config, u, 0, d.scores, options) : select_everyone(rows_), d.full);
  enter(u, stream, d.scores, {}, 0);
  return d;
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

// x' of a unit at x: the block's input, or what attention left there.
Tensor Pass::run_unit(size_t block, const Decided& decided, const Tensor& x, double tau) const {
  const Part part = state_.config.routing.units[decided.unit].part;
  const auto add = [](const Tensor& to, const Tensor& rows, const Delta& d, const Tensor& g) {
    return d.a.defined() ? scatter_delta(to, rows, d.a, d.m, g, false) : scatter_delta(to, rows, d.m, {}, g, false);
  };
  Tensor out = x;
  if (!decided.full.rows.empty()) {
    const Tensor rows = index_tensor(decided.full.rows), kept = part == Part::mlp ? Tensor() : kept_keys(block, x);
    out = add(out, rows, full_delta(block, part, x, kept, decided.full), gate(decided.scores.raw, decided.full, rows, tau));
  }
  if (!decided.light.rows.empty()) {
    const Tensor filled = index_tensor(filled_up(decided.light.rows, rows_.batch * rows_.tokens - 1));
    out = add(out, index_tensor(decided.light.rows), {light(decided.unit, x.index_select(0, filled)), {}}, {});
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
    stream = {qkv.h, linear(rope_attention(qkv.y, {}, whole_), w.o)};
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
