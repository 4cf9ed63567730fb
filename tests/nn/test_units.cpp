// Units of every kind in the network: the law, packed documents and padding, for parts, light paths and static units. That they compute what
// the engine computes is held in tests/agree.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "core/random.h"
#include "model/cost.h"
#include "model/random_model.h"
#include "nn/transformer.h"

namespace fathom::nn {
namespace {

using at::Tensor;

// Half of these configurations have units of every kind (RandomLimits::paths): as many are drawn as give `rounds` of them.
template <class Body>
void over_models(uint64_t seed, int rounds, at::ScalarType type, const Body& body) {
  Random random(seed);
  at::manual_seed(seed);
  for (int round = 0; round < rounds;) {
    const auto config = model::random_config(random, {.plain = true, .paths = true, .exits = false});
    if (std::ranges::all_of(config.routing.units, [](const auto& unit) { return unit.is_plain(); })) continue;
    Transformer model(config, type);
    for (const auto& [name, values] : model::random_weights(config, static_cast<uint64_t>(round))) model.load(name, values);
    body(config, model, random);
    ++round;
  }
}

Tensor random_tokens(const model::ModelConfig& config, int64_t B, int64_t T) { return at::randint(config.vocab_size, {B, T}, at::kLong); }

TEST(Units, FullSequenceEqualsPrefixByPrefixUnderTheCausalRule) {
  at::NoGradGuard no_grad;
  over_models(1, 12, at::kDouble, [](const auto& config, Transformer& model, Random& random) {
    ForwardOptions options;
    options.pick = Pick::causal;
    options.thresholds = model::random_thresholds(config, random);
    options.logits = true;
    Batch batch{random_tokens(config, 2, 14)};
    const auto whole = model.forward(batch, options);
    for (int64_t t = 1; t <= 14; ++t) {
      const auto part = model.forward({batch.tokens.narrow(1, 0, t).contiguous()}, options);
      EXPECT_TRUE(at::allclose(part.logits, whole.logits.narrow(1, 0, t), 1e-9, 1e-9));
      for (size_t u = 0; u < whole.routed.size(); ++u) EXPECT_TRUE(at::equal(part.routed[u].selected, whole.routed[u].selected.narrow(1, 0, t)));
    }
  });
}

TEST(Units, PackedDocumentsAreSeparateOnes) {
  at::NoGradGuard no_grad;
  over_models(2, 12, at::kDouble, [](const auto& config, Transformer& model, Random& random) {
    ForwardOptions options;
    options.pick = Pick::causal;
    options.thresholds = model::random_thresholds(config, random);
    options.token_nll = true;
    std::vector<Tensor> tokens, targets, starts;
    double sum = 0;
    int64_t at = 0;
    for (const int64_t n : {5, 1, 9}) {
      const Batch one{random_tokens(config, 1, n), random_tokens(config, 1, n)};
      sum += model.forward(one, options).nll.sum().template item<double>();
      tokens.push_back(one.tokens);
      targets.push_back(one.targets);
      starts.push_back(at::full({1, n}, at, at::kInt));
      at += n;
    }
    const Batch packed{at::cat(tokens, 1), at::cat(targets, 1), at::cat(starts, 1)};
    EXPECT_NEAR(model.forward(packed, options).nll.sum().template item<double>(), sum, 1e-9 * std::abs(sum));
  });
}

TEST(Units, PaddingChangesNothing) {
  over_models(3, 12, at::kDouble, [](const auto& config, Transformer& model, Random& random) {
    ForwardOptions options;
    options.pick = pick_of(config.routing.selection);
    options.thresholds = model::random_thresholds(config, random);
    options.aux = {{kRouterZ, 0.1}};
    const Batch batch{random_tokens(config, 2, 11), random_tokens(config, 2, 11)};
    Batch padded{at::cat({batch.tokens, random_tokens(config, 2, 6)}, 1), at::cat({batch.targets, at::full({2, 6}, kIgnored, at::kLong)}, 1)};
    padded.lengths = at::tensor({11, 11}, at::kLong);
    std::vector<Tensor> gradients;
    double total = 0;
    for (const Batch& b : {batch, padded}) {
      const auto result = model.forward(b, options);
      result.total.backward();
      if (gradients.empty()) total = result.total.template item<double>();
      else EXPECT_NEAR(result.total.template item<double>(), total, 1e-11);
      size_t i = 0;
      const bool first = gradients.empty();
      for (const auto& p : model.parameters()) {
        const Tensor g = p.tensor.grad().defined() ? p.tensor.grad().clone() : at::zeros_like(p.tensor);
        if (first) gradients.push_back(g);
        else EXPECT_TRUE(at::allclose(g, gradients[i++], 0, 1e-10)) << p.name;
        p.tensor.mutable_grad().reset();
      }
    }
  });
}

// Converted models: a gate that begins at 1, selection by score.
model::ModelConfig converted(model::ModelConfig config) {
  if (config.routing.gate != routing::Gate::one_plus_tanh) config.routing.gate = routing::Gate::hard;
  config.routing.selection = routing::Selection::topk;
  config.routing.forced_positions = 2;
  return config;
}

TEST(StraightThrough, WithoutNoiseIsTheCausalForward) {
  int some_light = 0;
  over_models(4, 20, at::kFloat, [&](const auto& drawn, Transformer&, Random& random) {
    const model::ModelConfig config = converted(drawn);
    if (!config.routing.decides()) return;
    Transformer model(config);
    for (const auto& [name, values] : model::random_weights(config, random.bits())) model.load(name, values);
    Batch batch{random_tokens(config, 3, 21), random_tokens(config, 3, 21)};
    batch.lengths = at::tensor({21, 9, 1}, at::kLong);
    for (int64_t b = 0; b < 3; ++b) batch.targets[b].slice(0, batch.lengths[b].template item<int64_t>()).fill_(kIgnored);
    ForwardOptions options;
    options.thresholds = model::random_thresholds(config, random);
    options.pick = Pick::causal;
    const auto causal = model.forward(batch, options);
    options.pick = Pick::straight_through;
    options.budget = Budget{.target = 0.5};
    options.aux = {{kBudget, 1.0}};
    const auto tuned = model.forward(batch, options);
    EXPECT_NEAR(tuned.loss.template item<double>(), causal.loss.template item<double>(), 1e-5);
    EXPECT_EQ(tuned.shares, causal.shares);
    EXPECT_NEAR(*tuned.block_fraction, model::expected_block_fraction(config, 21, tuned.shares), 1e-12);
    EXPECT_NEAR(tuned.aux.at(kBudget).template item<double>(), std::sqrt(std::pow(*tuned.block_fraction - 0.5, 2) + 1e-4), 1e-5);
    for (size_t u = 0; u < causal.routed.size(); ++u) {
      EXPECT_TRUE(at::equal(tuned.routed[u].selected, causal.routed[u].selected));
      if (!causal.routed[u].light.defined()) continue;
      EXPECT_TRUE(at::equal(tuned.routed[u].light, causal.routed[u].light));
      some_light += causal.routed[u].light.any().template item<bool>();
    }
  });
  EXPECT_GT(some_light, 10);
}

TEST(StraightThrough, NoiseIsLogisticAndAFunctionOfSeedAndUnit) {
  at::NoGradGuard no_grad;
  at::manual_seed(5);
  Random random(5);
  model::ModelConfig config = converted(model::random_config(random, {.plain = true}));
  config.routing.units = {{.block = 0, .capacity = 0.5, .part = routing::Part::attention}, {.block = 0, .capacity = 0.5, .part = routing::Part::mlp}};
  Transformer model(config);
  model.init(1);
  const Batch batch{random_tokens(config, 8, 500)};
  ForwardOptions options;
  options.pick = Pick::straight_through;
  options.score_noise = 2;
  options.noise_seed = 3;
  const auto first = model.forward(batch, options), again = model.forward(batch, options);
  options.noise_seed = 4;
  const auto other = model.forward(batch, options);
  const auto noise = [](const ForwardResult& r, size_t u) { return (r.routed[u].selecting - r.routed[u].raw) / 2; };
  EXPECT_TRUE(at::equal(first.routed[0].selecting, again.routed[0].selecting));
  EXPECT_GT((noise(first, 0) - noise(other, 0)).abs().mean().item<double>(), 0.5);
  EXPECT_GT((noise(first, 0) - noise(first, 1)).abs().mean().item<double>(), 0.5);
  // Its distribution function is the sigmoid.
  for (const double at : {-2.0, -0.5, 0.0, 1.0}) EXPECT_NEAR(noise(first, 0).lt(at).to(at::kDouble).mean().item<double>(), 1 / (1 + std::exp(-at)), 0.03);
}

TEST(StraightThrough, RefusesModelsThatAreNotConverted) {
  Random random(6);
  model::ModelConfig config = converted(model::random_config(random, {.plain = true}));
  config.routing.units = {{.block = 0, .capacity = 0.5}};
  const auto refusal = [&](auto change) {
    model::ModelConfig other = config;
    change(other.routing);
    try {
      require_tunable(other, "tuning");
    } catch (const UserError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  const std::string hint = "; tuning is for converted models; `fathom train` trains the others";
  EXPECT_EQ(refusal([](auto&) {}), "no error");
  EXPECT_EQ(refusal([](auto& r) { r.gate = routing::Gate::raw; }), "tuning: fathom.gate: found raw, expected hard or one_plus_tanh" + hint);
  EXPECT_EQ(refusal([](auto& r) { r.rule = routing::CausalRule::predictor; }), "no error");
  EXPECT_EQ(refusal([](auto& r) { r.selection = routing::Selection::random; }), "tuning: fathom.selection: found random, expected topk or threshold" + hint);
  EXPECT_EQ(refusal([](auto& r) { r.units.clear(); }), "tuning: fathom.units: found none that decides, expected a unit with full and another path" + hint);
}

}  // namespace
}  // namespace fathom::nn
