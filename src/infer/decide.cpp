// The routing decision of one unit: scores of every row, then each item's policy.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "core/error.h"
#include "infer/step.h"
#include "routing/select.h"

namespace fathom::infer {
namespace {

using routing::CausalRule;
using routing::Gate;
using routing::Part;
using routing::Path;

float gate_of(const kernels::Kernels& kernels, const routing::RoutingConfig& routing, float r) {
  float e = 0;
  switch (routing.gate) {
    case Gate::hard: return 1.0f;
    case Gate::raw: return r;
    case Gate::sigmoid: {
      const float minus = -r;
      kernels.exp_shifted(&minus, 0, 1, &e);
      return 1.0f / (1.0f + e);
    }
    case Gate::one_plus_tanh: {  // tanh r = 1 − 2 / (1 + exp 2r)
      const float twice = 2 * r;
      kernels.exp_shifted(&twice, 0, 1, &e);
      return 1.0f + static_cast<float>(routing.gate_scale) * (1.0f - 2.0f / (1.0f + e));
    }
  }
  FATHOM_ASSERT(false, "a gate without a formula");
}

struct Unit {
  size_t index;
  const routing::RoutedUnit& unit;
  std::vector<Path> paths;  // cheapest first
  size_t first_cut;
};

// What one item's rows have at a unit.
struct ItemRows {
  int64_t first_position;
  std::span<const float> router_score, decision_score;
  std::span<uint8_t> exited, run;
};

// Share of tokens that the random control's exits before unit u leave: an exit there takes its own share of all tokens.
double left_by_exits(const routing::RoutingConfig& routing, const std::vector<double>& capacity, size_t u) {
  double left = 1;
  size_t cut = 0;
  for (size_t before = 0; before < u; ++before) {
    if (routing.units[before].paths.exit) left = std::min(left, capacity[cut]);
    cut += routing.units[before].cuts();
  }
  return left;
}

// The dearest path whose cut a row reaches.
void reach_cuts(const WorkItem& item, const routing::RoutingConfig& routing, const Unit& u, const ItemRows& rows) {
  const RoutingPolicy& policy = *item.policy;
  const int64_t tokens = static_cast<int64_t>(rows.run.size());
  std::ranges::fill(rows.run, static_cast<uint8_t>(u.paths[0]));
  const double left = policy.rule == Rule::random ? left_by_exits(routing, policy.capacity, u.index) : 1;
  std::vector<float> selecting;  // topk: who has exited is not picked
  if (policy.rule == Rule::topk)
    for (int64_t t = 0; t < tokens; ++t) selecting.push_back(rows.exited[t] ? std::numeric_limits<float>::quiet_NaN() : rows.router_score[t]);
  for (size_t i = 1; i < u.paths.size(); ++i) {
    const size_t cut = u.first_cut + i - 1;
    const uint8_t path = static_cast<uint8_t>(u.paths[i]);
    switch (policy.rule) {
      case Rule::causal:
        for (int64_t t = 0; t < tokens; ++t)
          if (routing::runs(rows.decision_score[t], policy.thresholds[cut])) rows.run[t] = path;
        break;
      case Rule::random:
        for (int64_t t = 0; t < tokens; ++t)
          if (routing::random_score(policy.seed, u.unit.random_key(), rows.first_position + t) * left < policy.capacity[cut]) rows.run[t] = path;
        break;
      case Rule::topk:
        for (int64_t t : routing::top_k(selecting, routing::selected_count(policy.capacity[cut], tokens), routing.forced_positions))
          rows.run[t] = path;
        break;
      case Rule::imposed: FATHOM_ASSERT(false, "imposed decisions have no cuts");
    }
  }
}

void apply_policy(const WorkItem& item, const routing::RoutingConfig& routing, const Unit& u, const ItemRows& rows) {
  const routing::RoutedUnit& unit = u.unit;
  const int64_t tokens = static_cast<int64_t>(rows.run.size());
  if (item.policy->rule == Rule::imposed) {
    for (int64_t t = 0; t < tokens; ++t) {
      const uint8_t path = item.policy->imposed->run[u.index][rows.first_position + t];
      FATHOM_ASSERT(path == static_cast<uint8_t>(unit.cheapest()) || (path != static_cast<uint8_t>(Path::exit) && unit.paths.has(static_cast<Path>(path))),
                    "path ", int{path}, " imposed on ", unit.name());
      rows.run[t] = path;
    }
    return;
  }
  const auto forced = [&](int64_t t) { return rows.first_position + t < routing.forced_positions; };
  reach_cuts(item, routing, u, rows);
  if (unit.is_static()) return;
  for (int64_t t = 0; t < tokens; ++t) {
    if (forced(t)) rows.run[t] = static_cast<uint8_t>(Path::full);
    else if (rows.run[t] == static_cast<uint8_t>(Path::exit)) rows.exited[t] = 1;
    if (rows.exited[t]) rows.run[t] = static_cast<uint8_t>(unit.cheapest());
  }
}

// step.router_score and step.score of a unit that decides.
void compute_scores(Step& step, const UnitWeights& unit) {
  const model::ModelConfig& config = step.config;
  const int64_t N = step.row_count(), C = config.hidden_size, P = config.predictor_width();
  const float* input = step.x.data();  // [N, C]
  step.router.grow(N * (C + P));
  if (config.routing.router_input == routing::RouterInput::normed) {
    float* const normed = step.router.data();
    over_rows(step, N, C, [&](int64_t first, int64_t last) {
      step.kernels.rms_norm(input + first * C, C, last - first, C, nullptr, static_cast<float>(config.rms_norm_eps),
                            normed + first * C, C);
    });
    input = normed;
  }

  over_rows(step, N, C, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      step.router_score[i] = step.kernels.dot(unit.router.data(), input + i * C, C) + unit.bias;
  });
  if (config.routing.rule == CausalRule::predictor) {
    float* const hidden = step.router.data() + N * C;  // [N, P]
    const Product fc1{input, N, &unit.predictor_fc1, hidden};
    products(step, {&fc1, 1});
    over_rows(step, N, P, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        float* const row = hidden + i * P;
        step.kernels.silu(row, unit.fc1_bias.data(), P, row);
        step.score[i] = step.kernels.dot(unit.fc2.data(), row, P) + unit.fc2_bias;
      }
    });
  } else {
    step.score = step.router_score;
  }
}

// The rows that take `path`.
void rows_of(const Step& step, const std::vector<uint8_t>& run, Path path, std::vector<int64_t>& rows) {
  rows.clear();
  for (int64_t i = 0; i < step.row_count(); ++i)
    if (run[i] == static_cast<uint8_t>(path)) rows.push_back(i);
}

// Their gates; nothing where these are all 1.
void gates_of(const Step& step, const std::vector<int64_t>& rows, std::vector<float>& gate) {
  const routing::RoutingConfig& routing = step.config.routing;
  gate.clear();
  if (routing.gate == Gate::hard) return;
  for (const int64_t i : rows)
    gate.push_back(step.rows[i].position < routing.forced_positions ? 1.0f : gate_of(step.kernels, routing, step.router_score[i]));
}

}  // namespace

void begin_block(Step& step) {
  for (std::vector<int64_t>* rows : {&step.running, &step.mlp_running}) {
    rows->resize(static_cast<size_t>(step.row_count()));
    std::iota(rows->begin(), rows->end(), 0);
  }
  step.gate.clear(), step.mlp_gate.clear();
  step.light.clear(), step.mlp_light.clear();
  step.whole = false;
}

void decide(Step& step, size_t u, std::vector<uint8_t>& run) {
  const routing::RoutingConfig& routing = step.config.routing;
  const routing::RoutedUnit& unit = routing.units[u];
  const UnitWeights& weights = step.weights.units()[u];
  const auto N = static_cast<size_t>(step.row_count());
  step.score.assign(N, 0.0f);
  step.router_score.assign(N, 0.0f);
  if (!unit.is_static()) compute_scores(step, weights);

  run.assign(N, 0);
  const Unit about{.index = u, .unit = unit, .paths = unit.paths.in_order(), .first_cut = routing.first_cut(u)};
  size_t first = 0;
  for (const WorkItem& item : step.items) {
    const size_t tokens = item.tokens.size();
    apply_policy(item, routing, about, {.first_position = step.rows[first].position, .router_score = std::span(step.router_score).subspan(first, tokens),
                                    .decision_score = std::span(step.score).subspan(first, tokens), .exited = std::span(step.exited).subspan(first, tokens),
                                    .run = std::span(run).subspan(first, tokens)});
    first += tokens;
  }

  step.whole = unit.part == Part::block;
  if (unit.covers(Part::attention)) {
    rows_of(step, run, Path::full, step.running);
    gates_of(step, step.running, step.gate);
  }
  if (unit.covers(Part::mlp)) {
    rows_of(step, run, Path::full, step.mlp_running);
    gates_of(step, step.mlp_running, step.mlp_gate);
  }
  // The light path of a whole block stands where its attention does: the MLP adds nothing.
  const bool of_mlp = unit.part == Part::mlp;
  rows_of(step, run, Path::light, of_mlp ? step.mlp_light : step.light);
  (of_mlp ? step.mlp_light_weights : step.light_weights) = &weights;
}

}  // namespace fathom::infer
