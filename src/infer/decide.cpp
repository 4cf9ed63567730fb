// The routing decision of one block: scores of every row, then each item's policy.
#include <span>

#include "core/error.h"
#include "infer/step.h"
#include "routing/select.h"

namespace fathom::infer {
namespace {

using routing::CausalRule;
using routing::Gate;

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

void apply_policy(const WorkItem& item, const routing::RoutingConfig& routing, size_t r, int64_t block, int64_t first_position,
                  std::span<const float> router_score, std::span<const float> decision_score, std::span<uint8_t> run) {
  const RoutingPolicy& policy = *item.policy;
  const int64_t tokens = static_cast<int64_t>(run.size());
  const auto forced = [&](int64_t t) { return first_position + t < routing.forced_positions; };
  switch (policy.rule) {
    case Rule::causal:
      for (int64_t t = 0; t < tokens; ++t) run[t] = forced(t) || routing::runs(decision_score[t], policy.thresholds[r]);
      return;
    case Rule::imposed:
      for (int64_t t = 0; t < tokens; ++t) run[t] = policy.imposed->run[r][first_position + t] != 0;
      return;
    case Rule::random:
      for (int64_t t = 0; t < tokens; ++t)
        run[t] = forced(t) || routing::random_score(policy.seed, block, first_position + t) < policy.capacity[r];
      return;
    case Rule::topk:
      for (int64_t t = 0; t < tokens; ++t) run[t] = 0;
      for (int64_t t : routing::top_k(router_score, routing::selected_count(policy.capacity[r], tokens), routing.forced_positions))
        run[t] = 1;
      return;
  }
}

}  // namespace

void decide(Step& step, size_t r, int64_t block, std::vector<uint8_t>& run) {
  const model::ModelConfig& config = step.config;
  const routing::RoutingConfig& routing = config.routing;
  const RouterWeights& router = step.weights.blocks()[block].router;
  const int64_t N = step.row_count(), C = config.hidden_size, P = config.predictor_width();
  const bool predictor = routing.rule == CausalRule::predictor;

  const float* input = step.x.data();  // [N, C]
  step.router.grow(N * (C + P));
  if (routing.router_input == routing::RouterInput::normed) {
    float* const normed = step.router.data();
    over_rows(step, N, C, [&](int64_t first, int64_t last) {
      step.kernels.rms_norm(input + first * C, C, last - first, C, nullptr, static_cast<float>(config.rms_norm_eps),
                            normed + first * C, C);
    });
    input = normed;
  }

  step.score.resize(N);
  step.router_score.resize(N);
  over_rows(step, N, C, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      step.router_score[i] = step.kernels.dot(router.weight.data(), input + i * C, C) + router.bias;
  });
  if (predictor) {
    float* const hidden = step.router.data() + N * C;  // [N, P]
    const Product fc1{input, N, &router.predictor_fc1, hidden};
    products(step, {&fc1, 1});
    over_rows(step, N, P, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        float* const row = hidden + i * P;
        step.kernels.silu(row, router.fc1_bias.data(), P, row);
        step.score[i] = step.kernels.dot(router.fc2.data(), row, P) + router.fc2_bias;
      }
    });
  } else {
    step.score = step.router_score;
  }

  run.assign(N, 0);
  int64_t first = 0;
  for (const WorkItem& item : step.items) {
    const size_t tokens = item.tokens.size();
    apply_policy(item, routing, r, block, step.rows[first].position, std::span(step.router_score).subspan(first, tokens),
                 std::span(step.score).subspan(first, tokens), std::span(run).subspan(first, tokens));
    first += static_cast<int64_t>(tokens);
  }

  step.running.clear();
  step.gate.clear();
  for (int64_t i = 0; i < N; ++i) {
    if (!run[i]) continue;
    step.running.push_back(i);
    step.gate.push_back(step.rows[i].position < routing.forced_positions ? 1.0f
                                                                         : gate_of(step.kernels, routing, step.router_score[i]));
  }
}

}  // namespace fathom::infer
