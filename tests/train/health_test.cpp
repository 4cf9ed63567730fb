#include "train/health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "train/evaluate.h"

namespace fathom::train {
namespace {

// One routed block's result from selection flags [B][T] and scores.
nn::RoutedResult result(int64_t B, int64_t T, const std::function<bool(int64_t, int64_t)>& run, const std::function<float(int64_t, int64_t)>& score) {
  nn::RoutedResult r;
  r.selected = at::zeros({B, T}, at::kBool);
  r.decision = at::zeros({B, T}, at::kFloat);
  bool* flags = r.selected.mutable_data_ptr<bool>();
  float* scores = r.decision.mutable_data_ptr<float>();
  for (int64_t b = 0; b < B; ++b)
    for (int64_t t = 0; t < T; ++t) {
      flags[b * T + t] = run(b, t);
      scores[b * T + t] = score(b, t);
      r.selected_count += run(b, t);
    }
  r.raw = r.decision;
  r.token_count = B * T;
  return r;
}

bool coin(uint64_t seed, int64_t b, int64_t t, double p) {
  return static_cast<double>(mix64(seed * 1000003 + static_cast<uint64_t>(b * 1000 + t)) >> 11) * 0x1.0p-53 < p;
}

TEST(Health, CountsSharesAgreementPrecisionRecall) {
  RouterHealth health(1);
  // Selected: t < 2 of 8; the rule at 0.5 says t < 4 in row 0 and nobody in row 1.
  health.add({result(2, 8, [](int64_t, int64_t t) { return t < 2; }, [](int64_t b, int64_t t) { return b == 0 && t < 4 ? 1.0f : 0.0f; })}, {0.5f});
  const RouterHealth::Block block = health.blocks()[0];
  EXPECT_DOUBLE_EQ(block.share, 0.25);
  EXPECT_DOUBLE_EQ(block.agreement, 12.0 / 16);
  EXPECT_DOUBLE_EQ(block.precision, 0.5);
  EXPECT_DOUBLE_EQ(block.recall, 0.5);
  EXPECT_DOUBLE_EQ(health.never(), 0.75);
}

TEST(Health, ForcedTokensRunUnderTheRuleToo) {
  RouterHealth health(1);
  // Forced and selected: the first two positions of each document, of which the second begins at 4; no score is above.
  Batch batch{.rows = 1, .tokens = 8, .input = {}, .target = {}, .document_start = {0, 0, 0, 0, 4, 4, 4, 4}};
  const auto selected = [](int64_t, int64_t t) { return t % 4 < 2; };
  health.add({result(1, 8, selected, [](int64_t, int64_t) { return 0.0f; })}, {0.5f}, forced_tokens(batch, 2));
  const RouterHealth::Block block = health.blocks()[0];
  EXPECT_DOUBLE_EQ(block.agreement, 1);
  EXPECT_DOUBLE_EQ(block.precision, 1);
  EXPECT_DOUBLE_EQ(block.recall, 1);
}

TEST(Health, NeverCountsTokensThatNoBlockRan) {
  RouterHealth health(2);
  const auto none = [](int64_t, int64_t) { return 0.0f; };
  health.add({result(1, 8, [](int64_t, int64_t t) { return t < 3; }, none), result(1, 8, [](int64_t, int64_t t) { return t == 2 || t == 7; }, none)}, {0.f, 0.f});
  EXPECT_DOUBLE_EQ(health.never(), 4.0 / 8);
}

TEST(Health, PositionExplainsASelectionByPositionOnly) {
  RouterHealth by_position(1), by_token(1), mixed(1);
  const auto none = [](int64_t, int64_t) { return 0.0f; };
  by_position.add({result(16, 64, [](int64_t, int64_t t) { return t % 4 == 0; }, none)}, {});
  by_token.add({result(16, 64, [](int64_t b, int64_t t) { return coin(1, b, t, 0.25); }, none)}, {});
  mixed.add({result(64, 64, [](int64_t b, int64_t t) { return coin(2, b, t, t % 2 ? 0.75 : 0.25); }, none)}, {});
  EXPECT_GT(by_position.blocks()[0].position, 0.99);
  EXPECT_LT(by_token.blocks()[0].position, 0.1);
  RouterHealth few_rows(1);  // chance alone gives each position a rate of its own
  few_rows.add({result(4, 256, [](int64_t b, int64_t t) { return coin(4, b, t, 0.25); }, none)}, {});
  EXPECT_LT(few_rows.blocks()[0].position, 0.1);
  EXPECT_NEAR(mixed.blocks()[0].position, 0.25, 0.06);  // variance of the rate 0.0625 of 0.25
}

TEST(Health, WarnsOfCollapse) {
  const auto none = [](int64_t, int64_t) { return 0.0f; };
  const auto warnings = [&](const std::function<bool(int64_t, int64_t)>& run, double capacity) {
    RouterHealth health(1);
    health.add({result(16, 64, run, none)}, {});
    const auto all = health.warnings({5}, {capacity});
    return all.empty() ? std::string() : all[0];
  };
  EXPECT_THAT(warnings([](int64_t, int64_t) { return true; }, 0.25), ::testing::HasSubstr("block 5 has collapsed: every token"));
  EXPECT_THAT(warnings([](int64_t, int64_t) { return false; }, 0.25), ::testing::HasSubstr("no token runs it"));
  EXPECT_THAT(warnings([](int64_t, int64_t t) { return t < 16; }, 0.25), ::testing::HasSubstr("position alone"));
  EXPECT_EQ(warnings([](int64_t b, int64_t t) { return coin(3, b, t, 0.25); }, 0.25), "");
  EXPECT_EQ(warnings([](int64_t, int64_t) { return true; }, 1.0), "");
}

TEST(Health, TwoForwardsAreCompared) {
  const auto none = [](int64_t, int64_t) { return 0.0f; };
  RouterHealth health(1);
  health.add_pair(std::vector{result(1, 8, [](int64_t, int64_t t) { return t < 4; }, none)}, std::vector{result(1, 8, [](int64_t, int64_t t) { return t < 2; }, none)});
  EXPECT_DOUBLE_EQ(health.blocks()[0].share, 0.25);  // of the causal rule
  EXPECT_DOUBLE_EQ(health.blocks()[0].precision, 1);
  EXPECT_DOUBLE_EQ(health.blocks()[0].recall, 0.5);
}

}  // namespace
}  // namespace fathom::train
