#include "train/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/cost.h"
#include "train/finish.h"
#include "train/helpers.h"

namespace fathom::train {
namespace {

class Evaluating : public ::testing::Test {
 protected:
  explicit Evaluating(const Overrides& overrides = {}) : config_(tiny(overrides)) {
    config_.model = effective_model(config_, tokenizer_, validation_->manifest(), "tiny");
    network_ = std::make_unique<nn::Transformer>(config_.model);
    network_->init(3);
    // As drawn, routers hardly matter; larger ones make selection and gate visible in the loss.
    for (const nn::Parameter& p : network_->parameters()) {
      std::vector<float> values = network_->read(p.name);
      for (float& v : values) v *= p.router ? 40.0f : p.matrix ? 3.0f : 1.0f;
      network_->load(p.name, values);
    }
  }
  Evaluator evaluator() { return Evaluator(*network_, validation_, tokenizer_, config_, nn::Compute::f32); }

  nn::Batch rows(int part, int64_t tokens) { return read_rows(*validation_, evaluation_windows(*validation_, tokens, 32, part, 2), 32); }
  nn::ForwardResult forward(const nn::Batch& batch, nn::Pick pick, const std::vector<float>& thresholds) {
    const at::NoGradGuard no_grad;
    nn::ForwardOptions options;
    options.pick = pick;
    options.thresholds = thresholds;
    return network_->forward(batch, options);
  }

  text::Tokenizer tokenizer_ = text::Tokenizer::load(corpus());
  std::shared_ptr<const data::Dataset> validation_ = data::Dataset::open(corpus(), "validation");
  TrainConfig config_;
  std::unique_ptr<nn::Transformer> network_;
};

TEST_F(Evaluating, LossesAreTheirRules) {
  const Evaluation e = evaluator().evaluate(1024);
  const nn::Batch text = rows(1, 1024);
  const nn::ForwardResult causal = forward(text, nn::Pick::causal, e.thresholds), topk = forward(text, nn::Pick::topk, {});
  EXPECT_EQ(e.targets, causal.target_count);
  EXPECT_NEAR(e.loss, causal.loss.item<double>(), 1e-5);
  EXPECT_NEAR(e.loss_topk, topk.loss.item<double>(), 1e-5);
  EXPECT_GT(std::abs(e.loss - e.loss_topk), 1e-4);
}

TEST_F(Evaluating, ThresholdsComeFromOtherWindows) {
  const Evaluation e = evaluator().evaluate(1024);
  const nn::ForwardResult held = forward(rows(0, 1024), nn::Pick::topk, {});
  const at::Tensor scores = held.routed[0].decision.contiguous();  // nothing is routed before the first routed block
  std::vector<float> all(scores.const_data_ptr<float>(), scores.const_data_ptr<float>() + scores.numel());
  EXPECT_EQ(e.thresholds[0], routing::threshold_for(all, 0.25));
}

TEST_F(Evaluating, BitsPerByteCountsTheBytesOfTargets) {
  const Evaluation e = evaluator().evaluate(512);
  const at::Tensor targets = rows(1, 512).targets;
  std::string text;
  for (int64_t i = 0; i < targets.numel(); ++i) {
    const int64_t id = targets.view({-1})[i].item<int64_t>();
    if (id != nn::kIgnored && !tokenizer_.is_special(static_cast<int32_t>(id))) text += tokenizer_.token_bytes(static_cast<int32_t>(id));
  }
  EXPECT_NEAR(e.bits_per_byte, e.loss * static_cast<double>(e.targets) / std::log(2.0) / static_cast<double>(text.size()), 1e-9);
}

TEST_F(Evaluating, FiguresOfTheRouterAreThoseOfTwoForwards) {
  const Evaluation e = evaluator().evaluate(1024);
  const nn::Batch text = rows(1, 1024);
  const nn::ForwardResult causal = forward(text, nn::Pick::causal, e.thresholds), topk = forward(text, nn::Pick::topk, {});
  const auto blocks = e.health.blocks();
  std::vector<double> share;
  for (size_t r = 0; r < 2; ++r) {
    const at::Tensor c = causal.routed[r].selected, t = topk.routed[r].selected;
    share.push_back(c.to(at::kDouble).mean().item<double>());
    EXPECT_NEAR(blocks[r].share, share[r], 1e-12);
    EXPECT_NEAR(blocks[r].agreement, c.eq(t).to(at::kDouble).mean().item<double>(), 1e-12);
    EXPECT_NEAR(blocks[r].precision, c.logical_and(t).sum().item<double>() / c.sum().item<double>(), 1e-12);
    EXPECT_NEAR(blocks[r].recall, c.logical_and(t).sum().item<double>() / t.sum().item<double>(), 1e-12);
  }
  EXPECT_NEAR(e.block_fraction, model::expected_block_fraction(config_.model, 32, share), 1e-12);
  EXPECT_LT(e.block_fraction, e.total_fraction);
  EXPECT_LT(e.total_fraction, 1);
}

TEST_F(Evaluating, TheDialMeetsWhatItAsksFor) {
  config_.calibration.dials = {0.6, 0.8};
  config_.calibration.tokens = 2048;
  const routing::DialTable table = evaluator().calibrate();
  ASSERT_EQ(table.points.size(), 4u);
  const nn::Batch text = rows(0, 2048);
  for (const routing::DialPoint& p : table.points) {
    EXPECT_NEAR(p.block_fraction, p.dial, 0.02);
    const nn::ForwardResult forward_at = forward(text, nn::Pick::causal, p.thresholds);
    EXPECT_NEAR(p.loss, forward_at.loss.item<double>(), 1e-4) << p.dial;
    for (size_t r = 0; r < 2; ++r) EXPECT_NEAR(p.capacity[r], forward_at.routed[r].selected.to(at::kDouble).mean().item<double>(), 1e-3);
  }
  EXPECT_EQ(table.points.back().capacity, (std::vector<double>{1, 1}));  // dial 1 is every token
  EXPECT_EQ(table.tokens, 2048);
  EXPECT_NEAR(table.default_dial, model::expected_block_fraction(config_.model, 32, std::vector<double>{0.25, 0.25}), 1e-12);
}

// A quarter of the tokens, of which an eighth of the row runs in any case: the rest is for the scores to share out.
class EvaluatingForced : public Evaluating {
 protected:
  EvaluatingForced() : Evaluating({{"model.fathom.forced_positions", "4"}}) {}
};

TEST_F(EvaluatingForced, ForcedPositionsCountInsideTheCapacity) {
  config_.calibration.dials = {0.6, 0.8};
  config_.calibration.tokens = 2048;
  for (const routing::DialPoint& p : evaluator().calibrate().points) EXPECT_NEAR(p.block_fraction, p.dial, 0.02);
  for (const auto& block : evaluator().evaluate(2048).health.blocks()) EXPECT_NEAR(block.share, 0.25, 0.05);
}

class EvaluatingRandom : public Evaluating {
 protected:
  EvaluatingRandom() : Evaluating({{"model.fathom.selection", "random"}}) {}
};

TEST_F(EvaluatingRandom, TheControlRunsAtItsCapacity) {
  const Evaluation e = evaluator().evaluate(2048);
  for (const auto& block : e.health.blocks()) EXPECT_NEAR(block.share, 0.25, 0.15);  // 32 positions, the same in every row
  EXPECT_EQ(evaluator().calibrate().points.size(), 2u);
}

class EvaluatingDense : public Evaluating {
 protected:
  EvaluatingDense() : Evaluating({{"model.fathom", "null"}}) {}
};

TEST_F(EvaluatingDense, BothRulesAreOne) {
  const Evaluation e = evaluator().evaluate(512);
  EXPECT_EQ(e.loss, e.loss_topk);
  EXPECT_EQ(e.total_fraction, 1);
  EXPECT_TRUE(e.health.blocks().empty());
}

}  // namespace
}  // namespace fathom::train
