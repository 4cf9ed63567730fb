// Units of every kind in the network: the law, packed documents and padding, for parts, light paths and static units. That they compute what
// the engine computes is held in tests/agree.
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "core/random.h"
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

}  // namespace
}  // namespace fathom::nn
