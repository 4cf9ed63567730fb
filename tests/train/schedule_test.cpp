#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/cost.h"
#include "train/helpers.h"

namespace fathom::train {
namespace {

ScheduleConfig schedule(ScheduleKind kind, int64_t warmup, double low, int64_t decay = 0) {
  ScheduleConfig s;
  s.kind = kind;
  s.warmup = {warmup, 0};
  s.final_ratio = low;
  s.decay = {decay, 0};
  return s;
}

TEST(Schedule, WarmUpReachesOneAtItsLastStep) {
  for (const ScheduleKind kind : {ScheduleKind::constant, ScheduleKind::linear, ScheduleKind::cosine, ScheduleKind::wsd}) {
    const ScheduleConfig s = schedule(kind, 4, 0.1, 5);
    EXPECT_DOUBLE_EQ(learning_rate_factor(s, 0, 20), 0.25);
    EXPECT_DOUBLE_EQ(learning_rate_factor(s, 1, 20), 0.5);
    EXPECT_DOUBLE_EQ(learning_rate_factor(s, 3, 20), 1);
    EXPECT_DOUBLE_EQ(learning_rate_factor(s, 4, 20), 1);
  }
}

TEST(Schedule, ValuesOfEachKind) {
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule(ScheduleKind::constant, 0, 0.1), 19, 20), 1);
  const ScheduleConfig linear = schedule(ScheduleKind::linear, 0, 0.2);
  EXPECT_DOUBLE_EQ(learning_rate_factor(linear, 10, 20), 0.6);
  EXPECT_DOUBLE_EQ(learning_rate_factor(linear, 19, 20), 1 - 0.8 * 0.95);
  const ScheduleConfig cosine = schedule(ScheduleKind::cosine, 4, 0.1);
  EXPECT_NEAR(learning_rate_factor(cosine, 12, 20), 0.55, 1e-12);               // half of the way
  EXPECT_NEAR(learning_rate_factor(cosine, 8, 20), 0.1 + 0.9 * 0.5 * (1 + std::cos(M_PI / 4)), 1e-12);
  const ScheduleConfig wsd = schedule(ScheduleKind::wsd, 2, 0, 4);
  EXPECT_DOUBLE_EQ(learning_rate_factor(wsd, 15, 20), 1);
  EXPECT_DOUBLE_EQ(learning_rate_factor(wsd, 16, 20), 1);
  EXPECT_DOUBLE_EQ(learning_rate_factor(wsd, 17, 20), 0.75);
  EXPECT_DOUBLE_EQ(learning_rate_factor(wsd, 19, 20), 0.25);
}

TEST(Schedule, ShortRunsAndFullWarmUpStayInRange) {
  for (const ScheduleKind kind : {ScheduleKind::constant, ScheduleKind::linear, ScheduleKind::cosine, ScheduleKind::wsd})
    for (const int64_t warmup : {0, 1, 5, 100})
      for (int64_t total = 1; total < 8; ++total)
        for (int64_t step = 0; step < total; ++step) {
          const double f = learning_rate_factor(schedule(kind, warmup, 0.1, 3), step, total);
          EXPECT_GE(f, 0.1 * 0) << total;
          EXPECT_LE(f, 1) << total;
          EXPECT_GT(f, 0) << total;
        }
}

TEST(Schedule, SharesAreOfTheWholeRun) {
  EXPECT_EQ((Span{{}, 0.05}).of(200), 10);
  EXPECT_EQ((Span{7, 0}).of(200), 7);
  EXPECT_EQ((Span{700, 0}).of(200), 200);
}

TEST(Schedule, CapacityWarmUp) {
  const TrainConfig linear = tiny({{"router.capacity_warmup_steps", "4"}});
  EXPECT_EQ(capacities_at(linear, 0, 10), (std::vector<double>{1, 1}));
  EXPECT_EQ(capacities_at(linear, 2, 10), (std::vector<double>{0.625, 0.625}));
  EXPECT_EQ(capacities_at(linear, 4, 10), (std::vector<double>{0.25, 0.25}));
  const TrainConfig cosine = tiny({{"router.capacity_warmup_share", "0.4"}, {"router.capacity_curve", "cosine"}, {"router.capacity_start", "0.5"}});
  EXPECT_NEAR(capacities_at(cosine, 1, 10)[0], 0.5 - 0.25 * (0.5 - 0.5 * std::cos(M_PI / 4)), 1e-12);
  EXPECT_EQ(capacities_at(tiny(), 0, 10), (std::vector<double>{0.25, 0.25}));
}

TEST(Budget, StepsAndTokens) {
  EXPECT_EQ(total_steps(tiny({{"budget.steps", "17"}})), 17);
  EXPECT_EQ(total_steps(tiny({{"budget.tokens", "1280"}})), 10);  // 4 rows of 32
  EXPECT_EQ(total_steps(tiny({{"budget.tokens", "1280"}, {"accumulation", "2"}})), 5);
  EXPECT_EQ(total_steps(tiny({{"budget.tokens", "1"}})), 1);
}

Overrides with(Overrides a, const Overrides& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(Budget, FlopsAreMetWithinHalfAStepWarmUpIncluded) {
  for (const Overrides& shape : std::vector<Overrides>{{{"model.fathom", "null"}}, {}, {{"router.capacity_warmup_share", "0.3"}},
                                                        {{"router.capacity_warmup_steps", "50"}}, {{"model.num_hidden_layers", "2"}}}) {
    const TrainConfig c = tiny(with(shape, {{"model.vocab_size", "320"}, {"budget.flops", "3e9"}}));
    const int64_t n = total_steps(c);
    const double one = step_flops(c, std::vector<double>(c.model.routing.units.size(), 1.0));
    EXPECT_GT(n, 5);
    EXPECT_LE(std::abs(run_flops(c, n) - 3e9), 0.51 * one) << n;
    // The sum over its steps is what the run counts.
    double sum = 0;
    for (int64_t s = 0; s < n; ++s) sum += step_flops(c, capacities_at(c, s, n));
    EXPECT_NEAR(sum, run_flops(c, n), 1e-9 * sum);
  }
}

TEST(Budget, AWarmUpOfAnyLengthIsSummedAtOnce) {
  for (const char* curve : {"linear", "cosine"})
    for (const char* start : {"1", "0.5", "0.1"})
      for (const char* share : {"0.3", "1"}) {
        const TrainConfig c = tiny({{"model.vocab_size", "320"}, {"router.capacity_warmup_share", share}, {"router.capacity_curve", curve}, {"router.capacity_start", start}});
        for (const int64_t n : {1, 2, 7, 97, 1000}) {
          double sum = 0;
          for (int64_t s = 0; s < n; ++s) sum += step_flops(c, capacities_at(c, s, n));
          EXPECT_NEAR(sum, run_flops(c, n), 1e-9 * sum) << curve << " " << start << " " << share << " " << n;
        }
        // A million million steps cost as much each, on average, as a million do.
        EXPECT_NEAR(run_flops(c, limits::kSteps) / static_cast<double>(limits::kSteps), run_flops(c, 1 << 20) / (1 << 20), 1e-3 * run_flops(c, 1));
      }
}

TEST(Budget, TwinsSpendTheSame) {
  const Overrides budget = {{"model.vocab_size", "320"}, {"budget.flops", "5e9"}};
  const TrainConfig mod = tiny(budget), same_shape = tiny(with(budget, {{"model.fathom", "null"}})),
                    shallower = tiny(with(budget, {{"model.fathom", "null"}, {"model.num_hidden_layers", "2"}}));
  const double a = run_flops(mod, total_steps(mod)), b = run_flops(same_shape, total_steps(same_shape)), c = run_flops(shallower, total_steps(shallower));
  const double step = step_flops(same_shape, {});
  EXPECT_LE(std::abs(a - b), step);
  EXPECT_LE(std::abs(a - c), step);
  EXPECT_GT(total_steps(mod), total_steps(same_shape));
  EXPECT_DOUBLE_EQ(step_flops(same_shape, {}), 4 * model::train_flops_per_row(same_shape.model, 32));
}

TEST(Budget, AnAbsurdOneIsRefused) {
  EXPECT_NE(error_of([] { total_steps(tiny({{"model.vocab_size", "320"}, {"budget.flops", "1e30"}})); }).find("a budget of at most"), std::string::npos);
  const std::string tokens = error_of([] { total_steps(tiny({{"budget.steps", "1000000000000"}, {"batch_size", "1000000"}, {"accumulation", "1000000"}})); });
  EXPECT_NE(tokens.find("budget: found 1000000000000 steps"), std::string::npos) << tokens;
}

// Two rows of two documents each, decisions by hand; kv keep, so that who is seen matters too.
TEST(Schedule, SpentFlopsAreThoseOfTheDocumentsAndTokensThatRan) {
  const TrainConfig config = tiny({{"model.vocab_size", "320"}, {"model.fathom.kv", "keep"}});
  const int64_t T = 8;
  Batch batch = {2, T, std::vector<int32_t>(16), std::vector<int32_t>(16), {0, 0, 0, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 7}};
  std::vector<nn::RoutedResult> routed(2);
  for (int64_t r = 0; r < 2; ++r) {
    routed[static_cast<size_t>(r)].selected = at::zeros({2, T}, at::kBool);
    for (const int64_t i : {int64_t{1}, 4 + r, int64_t{15}}) routed[static_cast<size_t>(r)].selected.view({-1})[i] = true;
  }
  double macs = 0;
  using Runs = std::vector<std::vector<uint8_t>>;
  for (const Runs& run : {Runs{{0, 1, 0}, {0, 1, 0}}, Runs{{0, 1, 0, 0, 0}, {0, 0, 1, 0, 0}}, Runs{{0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0}}, Runs{{1}, {1}}})
    macs += static_cast<double>(model::forward_cost(config.model, static_cast<int64_t>(run[0].size()), {run, {}}, static_cast<int64_t>(run[0].size())).total());
  EXPECT_DOUBLE_EQ(spent_flops(config.model, batch, routed), 6 * macs);
}

// One document a row and exactly K tokens: what was planned.
TEST(Schedule, SpentFlopsOfTopKAreThePlan) {
  const TrainConfig config = tiny({{"model.vocab_size", "320"}});
  const int64_t B = config.batch_size, T = config.sequence_length;
  const Batch batch = {B, T, {}, {}, std::vector<int32_t>(static_cast<size_t>(B * T))};
  std::vector<nn::RoutedResult> routed(2);
  for (nn::RoutedResult& r : routed) r.selected = at::arange(T).remainder(4).eq(0).expand({B, T});
  EXPECT_DOUBLE_EQ(spent_flops(config.model, batch, routed), step_flops(config, {0.25, 0.25}));
}

}  // namespace
}  // namespace fathom::train
