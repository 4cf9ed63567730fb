// The network (nn, LibTorch) and the engine (infer, own kernels) are two forwards of one truth: for random configurations
// their logits agree under imposed decisions, and so do the decisions themselves wherever a score is further than 1e-4 from
// its threshold.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "core/random.h"
#include "infer/forward.h"
#include "infer/rope.h"
#include "infer/weights.h"
#include "model/random_model.h"
#include "nn/ops.h"
#include "nn/transformer.h"

namespace fathom {
namespace {

// Both sum some hundred f32 products per output through at most six blocks, in different orders: relative to the largest
// logit of the sequence. Measured over these configurations: 4e-7.
constexpr double kLogitBound = 5e-6;
constexpr double kMargin = 1e-4;

struct Case {
  model::ModelConfig config;
  std::unique_ptr<nn::Transformer> network;
  std::unique_ptr<infer::Engine> engine;
};

// Far positions too, where f32 angles and f64 angles part.
TEST(Rope, BothTurnByTheSameAngles) {
  constexpr int64_t kPositions = 9000, kWidth = 64;
  infer::RopeTable engine(kWidth, 1e4);
  engine.reach(kPositions);
  const auto [cosine, sine] = nn::rope_table(kPositions, kWidth, 1e4, at::kFloat);
  for (int64_t p : {int64_t{0}, int64_t{1}, int64_t{511}, int64_t{4097}, kPositions - 1})
    for (int64_t i = 0; i < kWidth / 2; ++i) {
      EXPECT_EQ(engine.cosine(p)[i], cosine[p][i].item<float>()) << p << " " << i;
      EXPECT_EQ(engine.sine(p)[i], sine[p][i].item<float>()) << p << " " << i;
    }
}

Case make_case(Random& random, uint64_t seed, bool dense) {
  Case c;
  c.config = model::random_config(random, {.dense = dense, .paths = true, .exits = false});
  const auto weights = model::random_weights(c.config, seed);
  c.network = std::make_unique<nn::Transformer>(c.config);
  for (const auto& [name, values] : weights) c.network->load(name, values);
  c.engine = std::make_unique<infer::Engine>(infer::Weights::from(c.config, weights), infer::EngineOptions{.threads = 2});
  return c;
}

nn::Batch batch_of(const std::vector<int32_t>& tokens) {
  nn::Batch batch;
  batch.tokens = at::tensor(at::ArrayRef<int32_t>(tokens), at::kInt).to(at::kLong).unsqueeze(0);
  return batch;
}

infer::StepResult run_engine(infer::Engine& engine, const std::vector<int32_t>& tokens, const infer::RoutingPolicy& policy) {
  infer::Sequence sequence = engine.new_sequence();
  const infer::WorkItem item{.sequence = &sequence, .tokens = tokens, .policy = &policy, .logits = infer::Logits::all};
  return engine.forward({&item, 1});
}

double logit_error(const infer::StepResult& found, const at::Tensor& expected) {
  const at::Tensor e = expected[0].contiguous();
  EXPECT_EQ(static_cast<int64_t>(found.logits.size()), e.numel());
  const at::Tensor f = at::from_blob(const_cast<float*>(found.logits.data()), e.sizes(), at::kFloat);
  return ((f - e).abs().max() / e.abs().max()).item<double>();
}

class Agree : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
  at::NoGradGuard no_grad_;
};

TEST_F(Agree, LogitsUnderImposedDecisions) {
  Random random(2024);
  double worst = 0;
  for (int round = 0; round < 80; ++round) {
    Case c = make_case(random, static_cast<uint64_t>(round), round % 8 == 0);
    const int64_t T = 1 + static_cast<int64_t>(random.below(48));
    const auto tokens = model::random_tokens(c.config, T, random);
    const auto decisions = model::random_decisions(c.config, T, random);
    nn::ForwardOptions options;
    options.pick = nn::Pick::imposed;
    options.logits = true;
    for (const auto& run : decisions.run) {
      at::Tensor paths = at::empty({1, T}, at::kByte);
      for (int64_t t = 0; t < T; ++t) paths[0][t] = run[static_cast<size_t>(t)];
      options.imposed.push_back(paths);
    }
    const auto expected = c.network->forward(batch_of(tokens), options);
    const auto found = run_engine(*c.engine, tokens, infer::RoutingPolicy::given(decisions));
    const double error = logit_error(found, expected.logits);
    worst = std::max(worst, error);
    EXPECT_LT(error, kLogitBound) << "round " << round << ", " << c.config.to_json().dump();
    for (size_t r = 0; r < decisions.run.size(); ++r)
      for (size_t t = 0; t < static_cast<size_t>(T); ++t)
        EXPECT_NEAR(found.decisions.score[r][t], expected.routed[r].decision[0][static_cast<int64_t>(t)].item<float>(), kMargin / 2) << "round " << round;
  }
  RecordProperty("worst_relative_error", std::to_string(worst));
  std::printf("largest relative difference of logits: %.2e\n", worst);
}

// Compares decisions token by token and unit by unit, as they were made, up to the first score on a threshold: what
// follows it may differ for good reason.
int64_t compare_decisions(const routing::RoutingConfig& routing, const nn::ForwardResult& network, const infer::StepResult& engine,
                          const std::vector<float>& thresholds, int64_t T, int round) {
  int64_t compared = 0;
  for (int64_t t = 0; t < T; ++t)
    for (size_t u = 0; u < network.routed.size(); ++u) {
      const nn::RoutedResult& r = network.routed[u];
      const float score = r.decision[0][t].item<float>();
      for (size_t cut = routing.first_cut(u); !thresholds.empty() && cut < routing.first_cut(u + 1); ++cut)
        if (std::abs(score - thresholds[cut]) <= kMargin) return compared;
      const auto path = r.selected[0][t].item<bool>() ? routing::Path::full
                      : r.light.defined() && r.light[0][t].item<bool>() ? routing::Path::light : routing::Path::skip;
      EXPECT_EQ(static_cast<uint8_t>(path), engine.decisions.run[u][static_cast<size_t>(t)])
          << "round " << round << ", unit " << u << ", token " << t << ", score " << score;
      ++compared;
    }
  return compared;
}

// What a user of the engine gets whose model folder holds these thresholds: RoutingPolicy::at_dial.
infer::RoutingPolicy policy_of_folder(const model::ModelConfig& config, const std::vector<float>& thresholds) {
  routing::DialTable table;
  table.default_dial = 0.5;
  table.points = {{.dial = 0.5, .block_fraction = 0.5, .thresholds = thresholds, .capacity = {}}, {.thresholds = thresholds, .capacity = {}}};
  for (routing::DialPoint& p : table.points) p.capacity.assign(thresholds.size(), p.dial);
  return infer::RoutingPolicy::at_dial(config, table);
}

TEST_F(Agree, DecisionsUnderTheCausalRule) {
  Random random(77);
  int64_t compared = 0, all = 0, controls = 0;
  for (int round = 0; round < 80; ++round) {
    Case c = make_case(random, 1000 + static_cast<uint64_t>(round), false);
    const int64_t T = 1 + static_cast<int64_t>(random.below(48));
    const auto tokens = model::random_tokens(c.config, T, random);
    nn::ForwardOptions options;
    options.pick = nn::Pick::causal;
    options.thresholds = model::random_thresholds(c.config, random);
    options.logits = true;
    const auto expected = c.network->forward(batch_of(tokens), options);
    const bool hash = c.config.routing.selection == routing::Selection::random;
    controls += hash;
    const auto found = run_engine(*c.engine, tokens, policy_of_folder(c.config, options.thresholds));
    const int64_t total = T * static_cast<int64_t>(expected.routed.size());
    const int64_t same = compare_decisions(c.config.routing, expected, found, hash ? std::vector<float>{} : options.thresholds, T, round);
    compared += same;
    all += total;
    if (hash) {
      EXPECT_EQ(same, total) << "round " << round;  // no score decides
    }
    if (same == total) {
      EXPECT_LT(logit_error(found, expected.logits), kLogitBound) << "round " << round;
    }
  }
  EXPECT_GT(static_cast<double>(compared), 0.95 * static_cast<double>(all)) << compared << " of " << all;
  EXPECT_GT(controls, 10);
}

TEST_F(Agree, TheTeachersView) {
  Random random(78);
  for (int round = 0; round < 40; ++round) {
    Case c = make_case(random, 3000 + static_cast<uint64_t>(round), false);
    const int64_t T = 1 + static_cast<int64_t>(random.below(48));
    const auto tokens = model::random_tokens(c.config, T, random);
    nn::ForwardOptions options;
    options.pick = nn::Pick::topk;
    options.logits = true;
    const auto expected = c.network->forward(batch_of(tokens), options);
    const auto found = run_engine(*c.engine, tokens, infer::RoutingPolicy::teacher(c.config));
    // A border is where the last selected and the first skipped raw score nearly tie.
    bool close = false;
    for (const auto& r : expected.routed) {
      const auto border = [&](const at::Tensor& reached) {
        const at::Tensor in = r.raw.masked_select(reached), out = r.raw.masked_select(reached.logical_not());
        if (in.numel() > 0 && out.numel() > 0) close = close || (in.min() - out.max()).abs().item<double>() < kMargin;
      };
      border(r.selected);
      if (r.light.defined()) border(r.selected.logical_or(r.light));
    }
    if (close) continue;
    compare_decisions(c.config.routing, expected, found, {}, T, round);
    EXPECT_LT(logit_error(found, expected.logits), kLogitBound) << "round " << round;
  }
}

}  // namespace
}  // namespace fathom
