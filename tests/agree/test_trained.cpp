// What `fathom train` wrote, read by the engine: on the windows that the trainer read, the engine finds the trainer's losses and
// shares of tokens, at every point of the dial that was calibrated, and the folder's tokenizer is that of the text.
#include <gtest/gtest.h>

#include <cmath>

#include "convert/calibrate.h"
#include "infer/forward.h"
#include "infer/policy.h"
#include "infer/weights.h"
#include "train/evaluate.h"
#include "train/helpers.h"

namespace fathom {
namespace {

using train::Overrides;

constexpr int64_t kTokens = 2048;  // of calibration and of the last evaluation
constexpr int64_t kRow = 32;       // sequence_length
// A threshold is the score of one token of the calibration text, so that this token may fall either way where two forwards
// round differently, and the tokens after it with it.
constexpr double kShareBound = 4.0 / kTokens, kLossBound = 1e-3;

struct Score {
  double nll = 0;
  int64_t targets = 0, bytes = 0, tokens = 0;
  std::vector<int64_t> ran;
  double loss() const { return nll / static_cast<double>(targets); }
  double share(size_t r) const { return static_cast<double>(ran[r]) / static_cast<double>(tokens); }
};

class Trained : public ::testing::TestWithParam<Overrides> {
 protected:
  void SetUp() override {
    Overrides overrides = {{"budget.steps", "60"}, {"optimizer.lr", "1e-2"}, {"batch_size", "8"}, {"interval.eval_steps", "0"}, {"interval.checkpoint_steps", "0"},
                           {"interval.final_eval_tokens", std::to_string(kTokens)}, {"calibration.tokens", std::to_string(kTokens)}};
    overrides.insert(overrides.end(), GetParam().begin(), GetParam().end());
    summary_ = train::train(train::tiny(overrides), {.run = join_path(home_.path(), "run")});
    folder_ = model::ModelFolder::open(join_path(home_.path(), "run/model"));
    engine_ = std::make_unique<infer::Engine>(infer::Weights::load(*folder_), infer::EngineOptions{.threads = 1});
  }

  // The trainer's windows of one half of the validation split, document by document: they do not see each other.
  Score score(int part, const infer::RoutingPolicy& policy) {
    const auto split = data::Dataset::open(train::corpus(), "validation");
    const std::vector<int32_t> bytes = folder_->tokenizer().bytes_per_token();
    Score out;
    out.ran.resize(folder_->config().routing.units.size());
    for (const int64_t begin : train::evaluation_windows(*split, kTokens, kRow, part, 2)) {
      const size_t n = static_cast<size_t>(kRow);
      train::Batch row = {1, kRow, std::vector<int32_t>(n), std::vector<int32_t>(n), std::vector<int32_t>(n)};
      train::fill_row(*split, begin, row, 0);
      for (size_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && row.document_start[to] == row.document_start[from];) ++to;
        infer::Sequence sequence = engine_->new_sequence();
        const infer::WorkItem item{.sequence = &sequence, .tokens = std::span(row.input).subspan(from, to - from), .policy = &policy, .logits = infer::Logits::all};
        const infer::StepResult result = engine_->forward({&item, 1});
        const size_t V = static_cast<size_t>(folder_->config().vocab_size);
        for (size_t t = from; t < to; ++t) {
          if (row.target[t] == train::kIgnore) continue;
          const std::span<const float> logits = std::span(result.logits).subspan((t - from) * V, V);
          double sum = 0;
          for (const float x : logits) sum += std::exp(static_cast<double>(x));
          out.nll += std::log(sum) - static_cast<double>(logits[static_cast<size_t>(row.target[t])]);
          out.bytes += bytes[static_cast<size_t>(row.target[t])];
          ++out.targets;
        }
        const routing::Decisions decisions = result.decisions_of(0);
        for (size_t r = 0; r < out.ran.size(); ++r) out.ran[r] += std::count(decisions.run[r].begin(), decisions.run[r].end(), 1);
        out.tokens += static_cast<int64_t>(to - from);
      }
    }
    return out;
  }

  TemporaryFolder home_;
  Json summary_;
  std::shared_ptr<model::ModelFolder> folder_;
  std::unique_ptr<infer::Engine> engine_;
};

TEST_P(Trained, TheEngineMeasuresWhatTheTrainerMeasured) {
  const Json& figures = summary_.at("figures");
  const Score found = score(1, infer::RoutingPolicy::at_dial(folder_->config(), folder_->dial()));
  EXPECT_EQ(found.targets, figures.at("targets").get<int64_t>());
  EXPECT_NEAR(found.loss(), figures.at("loss").get<double>(), kLossBound);
  EXPECT_NEAR(found.nll / std::log(2.0) / static_cast<double>(found.bytes), figures.at("bits_per_byte").get<double>(), kLossBound);
  for (size_t r = 0; r < found.ran.size(); ++r) EXPECT_NEAR(found.share(r), figures.at("share")[r].get<double>(), kShareBound) << r;
}

TEST_P(Trained, EveryPointOfTheDialIsWhatItSays) {
  if (folder_->config().routing.dense()) {
    EXPECT_FALSE(folder_->dial().has_value());
    return;
  }
  for (const routing::DialPoint& point : folder_->dial()->points) {
    SCOPED_TRACE(point.dial);
    const Score found = score(0, infer::RoutingPolicy::at_dial(folder_->config(), folder_->dial(), point.dial));
    EXPECT_EQ(found.tokens, kTokens);
    EXPECT_NEAR(found.loss(), point.loss, kLossBound);
    for (size_t r = 0; r < found.ran.size(); ++r) EXPECT_NEAR(found.share(r), point.capacity[r], kShareBound) << r;
  }
}

// The engine's own calibration on the trainer's windows finds the table that training stored: the capacities to a token or two, and
// thresholds within what lies between neighbouring scores.
TEST_P(Trained, TheEngineCalibratesAlike) {
  const model::ModelConfig& config = folder_->config();
  if (config.routing.dense()) return;
  const auto split = data::Dataset::open(train::corpus(), "validation");
  std::vector<std::vector<int32_t>> texts;
  for (const int64_t begin : train::evaluation_windows(*split, kTokens, kRow, 0, 2)) {
    const size_t n = static_cast<size_t>(kRow);
    train::Batch row = {1, kRow, std::vector<int32_t>(n), std::vector<int32_t>(n), std::vector<int32_t>(n)};
    train::fill_row(*split, begin, row, 0);
    for (size_t from = 0, to; from < n; from = to) {
      for (to = from + 1; to < n && row.document_start[to] == row.document_start[from];) ++to;
      texts.emplace_back(row.input.begin() + static_cast<int64_t>(from), row.input.begin() + static_cast<int64_t>(to));
    }
  }
  const std::vector<std::span<const int32_t>> windows(texts.begin(), texts.end());
  const routing::DialTable& stored = *folder_->dial();
  const routing::DialTable found = convert::calibrate_dial(infer::Weights::load(*folder_), stored, {windows, "the trainer's windows", kRow});
  EXPECT_EQ(found.tokens, stored.tokens);
  EXPECT_EQ(found.default_dial, stored.default_dial);
  ASSERT_EQ(found.points.size(), stored.points.size());
  for (size_t i = 0; i < found.points.size(); ++i) {
    const routing::DialPoint &a = found.points[i], &b = stored.points[i];
    SCOPED_TRACE(b.dial);
    EXPECT_EQ(a.dial, b.dial);
    EXPECT_NEAR(a.block_fraction, b.block_fraction, kShareBound);
    for (size_t r = 0; r < a.thresholds.size(); ++r) {
      EXPECT_NEAR(a.capacity[r], b.capacity[r], kShareBound) << r;
      if (std::isfinite(b.thresholds[r])) EXPECT_NEAR(a.thresholds[r], b.thresholds[r], 1e-2) << r;
      else EXPECT_EQ(a.thresholds[r], b.thresholds[r]) << r;
    }
  }
}

TEST_P(Trained, TheTokenizerIsThatOfTheText) {
  EXPECT_EQ(folder_->tokenizer().identity(), text::Tokenizer::load(train::corpus()).identity());
}

INSTANTIATE_TEST_SUITE_P(
    All, Trained,
    ::testing::Values(Overrides{}, Overrides{{"model.fathom", "null"}}, Overrides{{"model.fathom.rule", "predictor"}, {"model.fathom.router_bias", "true"}},
                      Overrides{{"model.fathom.selection", "threshold"}, {"model.fathom.forced_positions", "2"}, {"model.fathom.kv", "keep"}, {"model.tie_word_embeddings", "false"}},
                      Overrides{{"model.fathom.gate", "one_plus_tanh"}, {"model.fathom.rule", "router_bce"}, {"model.fathom.router_input", "normed"}},
                      Overrides{{"model.attention_bias", "true"}, {"model.mlp_bias", "true"}}));

}  // namespace
}  // namespace fathom
