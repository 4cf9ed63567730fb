// When guesses are made and how many, at prices and chances that the tests set.
#include "infer/guessing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "core/random.h"

namespace fathom::infer::test {
namespace {

// Steps of `rows` rows take 1 + slope · (rows − 1) ms.
StepTimes times_of(double slope) {
  StepTimes times;
  for (int turn = 0; turn < 8; ++turn)
    for (int64_t rows = 1; rows <= 32; ++rows) times.saw(rows, 1e-3 * (1 + slope * static_cast<double>(rows - 1)));
  return times;
}

TEST(StepTimes, AreLearnedAsSharesOfEachOther) {
  EXPECT_EQ(StepTimes().of(1), 1);
  EXPECT_GT(StepTimes().of(8), StepTimes().of(2));
  const StepTimes times = times_of(0.3);
  for (const int64_t rows : {2, 5, 16, 32}) EXPECT_NEAR(times.of(rows) / times.of(1), 1 + 0.3 * static_cast<double>(rows - 1), 0.02 * static_cast<double>(rows)) << rows;
  EXPECT_NEAR(times.took(2.5e-3, 2 * times.of(1)) / times.of(1), 2.5, 0.05);
  EXPECT_EQ(times.took(0, 3), 3);
  EXPECT_EQ(times.took(1, 3), 6) << "interrupted";
  EXPECT_GT(times.of(64), times.of(32));
  EXPECT_GT(times.of(1000), times.of(StepTimes::kMost));
}

TEST(StepTimes, SlowSpellsOfTheMachineChangeNothing) {
  StepTimes times = times_of(0.3);
  const double before = times.of(4) / times.of(1);
  for (int step = 0; step < 200; ++step) times.saw(1, 3e-3);  // all is three times as slow, but nothing else was tried
  times.saw(4, 3e-3 * 1.9);
  EXPECT_NEAR(times.of(4) / times.of(1), before, 0.15 * before);
  times = times_of(0.3);
  times.saw(4, 1.0);  // interrupted
  EXPECT_LT(times.of(4) / times.of(1), 1.3 * before);
}

TEST(StepTimes, WhatIsUnknownLiesBetweenWhatIsKnown) {
  StepTimes times;
  for (int turn = 0; turn < 50; ++turn) times.saw(1, 1e-3), times.saw(5, 3e-3);
  EXPECT_NEAR(times.of(3) / times.of(1), 2, 0.05);
  EXPECT_GE(times.of(9), times.of(5));
  times.saw(3, 0);  // a clock that stands still
  times.saw(0, 1), times.saw(StepTimes::kMost + 1, 1);
  EXPECT_NEAR(times.of(3) / times.of(1), 2, 0.05);
  for (int step = 0; step < 1000; ++step) times.saw(1, 1e-3);
  EXPECT_LT(times.of(5) / times.of(1), 2.5) << "what was dear once is tried again";
}

TEST(Chance, FollowsWhatHappenedAndForgets) {
  Chance c(0.5);
  EXPECT_EQ(c.now(), 0.5);
  for (int i = 0; i < 100; ++i) c.saw(true);
  EXPECT_GT(c.now(), 0.9);
  for (int i = 0; i < 30; ++i) c.saw(false);
  EXPECT_LT(c.now(), 0.3);
  for (int i = 0; i < 1000; ++i) c.fade();
  EXPECT_NEAR(c.now(), 0.5, 1e-3);
}

std::vector<int32_t> cycle(int64_t length, int64_t period) {
  std::vector<int32_t> out;
  for (int64_t i = 0; i < length; ++i) out.push_back(static_cast<int32_t>(i % period));
  return out;
}

TEST(Guessing, TheLongestRepetitionGoesOn) {
  const Guessing guessing({.most = 6, .always = true});
  const std::vector<int32_t> cycled = cycle(8, 5);  // 0 1 2 3 4 0 1 2
  const Guessing::Plan plan = guessing.plan(cycled, 64, {}, {});
  EXPECT_EQ(plan.ids, (std::vector<int32_t>{3, 4, 0, 1, 2, 3}));  // beyond its end with itself
  EXPECT_EQ(plan.kinds, (std::vector<uint8_t>{2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(guessing.plan(cycled, 2, {}, {}).ids.size(), 2u);
  const std::vector<int32_t> longer_first{7, 1, 2, 3, 9, 9, 2, 3, 8, 1, 2, 3};  // 1 2 3 stood before; 2 3 later, but shorter
  EXPECT_EQ(guessing.plan(longer_first, 1, {}, {}).ids, std::vector<int32_t>{9});
  const std::vector<int32_t> latest{1, 2, 5, 1, 2, 6, 1, 2};
  EXPECT_EQ(guessing.plan(latest, 1, {}, {}).ids, std::vector<int32_t>{6});
  const std::vector<int32_t> alone{1, 2, 3, 4, 4};  // one token the same is less than two
  EXPECT_TRUE(guessing.plan(alone, 4, {}, {}).ids.empty());
  EXPECT_TRUE(Guessing({.repeats = false, .always = true}).plan(cycled, 4, {}, {}).ids.empty());
  EXPECT_TRUE(guessing.plan(cycled, 0, {}, {}).ids.empty());
}

TEST(Guessing, CheapRowsAreGuessedAndDearOnesAreNot) {
  const std::vector<int32_t> cycled = cycle(40, 5);
  const StepTimes cheap = times_of(0.02), dear = times_of(1.2);
  Guessing guessing({.most = 16});
  EXPECT_GT(guessing.plan(cycled, 64, {}, cheap).ids.size(), 10u);
  EXPECT_TRUE(guessing.plan(cycled, 64, {}, dear).ids.empty());
  // Another text's row in the step pays for nothing: what the guesses cost all is held against this text's tokens.
  const StepTimes some = times_of(0.3);
  EXPECT_FALSE(guessing.plan(cycled, 64, {.rows = 1, .texts = 1}, some).ids.empty());
  EXPECT_LE(guessing.plan(cycled, 64, {.rows = 16, .texts = 16}, some).ids.size(), guessing.plan(cycled, 64, {}, some).ids.size());
}

TEST(Guessing, WhatProvedWrongIsGuessedNoMore) {
  const std::vector<int32_t> cycled = cycle(40, 5);
  const StepTimes times = times_of(0.2);
  Guessing guessing({.most = 16});
  for (int token = 0; token < 100000; ++token) guessing.wrote();  // whatever it loses is allowed
  const std::vector<uint8_t> kinds = guessing.plan(cycled, 1, {}, times).kinds;
  ASSERT_EQ(kinds.size(), 1u);
  for (int turn = 0; turn < 40; ++turn) guessing.checked(kinds, 0, {}, times, 0);
  EXPECT_TRUE(guessing.plan(cycled, 1, {}, times).ids.empty());
  for (int turn = 0; turn < 40; ++turn) guessing.checked(kinds, 1, {}, times, 0);
  EXPECT_EQ(guessing.plan(cycled, 1, {}, times).ids.size(), 1u);
}

TEST(Guessing, ADraftGoesOnAsLongAsItIsSure) {
  Speculation how{.draft = RoutingPolicy{}, .draft_cost = 0.3, .repeats = false};
  Guessing guessing(how);
  const StepTimes times = times_of(0.05);
  EXPECT_GT(guessing.plan(cycle(4, 4), 64, {}, times).drafts, 0);
  const std::vector<uint8_t> sure{Guessing::kind_of(0.97)}, unsure{Guessing::kind_of(0.2)};
  EXPECT_TRUE(guessing.another(sure, {}, times));
  EXPECT_FALSE(guessing.another(unsure, {}, times));
  EXPECT_FALSE(guessing.another(sure, {.rows = 4, .texts = 4}, times)) << "among others it waits a whole step for each";
  how.draft_cost = 0.9;
  EXPECT_EQ(Guessing(how).plan(cycle(4, 4), 64, {}, times).drafts, 0);
  how.always = true;
  EXPECT_EQ(Guessing(how).plan(cycle(4, 4), 5, {}, times).drafts, 5);
}

// The draft's steps turn out dearer than the cost model says.
TEST(Guessing, TheDraftsPriceIsLearned) {
  Guessing guessing({.draft = RoutingPolicy{}, .draft_cost = 0.3, .repeats = false});
  const StepTimes times = times_of(0.05);
  for (int step = 0; step < 40; ++step) guessing.drafted({}, times, 0.95e-3);
  for (int token = 0; token < 5000; ++token) guessing.wrote();
  EXPECT_EQ(guessing.plan(cycle(4, 4), 64, {}, times).drafts, 0);
}

// Whatever the prices and the chances: what is lost stays within half a token and 0.75 % of the text, what can be won is.
TEST(Guessing, LossesAreBoundedAndGainsAreMade) {
  Random random(5);
  int won = 0;
  for (int text = 0; text < 200; ++text) {
    const double slope = 0.5 * random.uniform(), right = random.uniform(), draft_cost = 0.2 + 0.7 * random.uniform();
    const StepTimes times = times_of(slope);
    Speculation how{.draft_cost = draft_cost};
    if (text % 2) how.draft = RoutingPolicy{};
    Guessing guessing(how);
    std::vector<int32_t> tokens = cycle(20, 7);
    double spent = 0;
    int64_t written = 0;
    while (written < 2000) {
      const Guessing::Plan plan = guessing.plan(tokens, 64, {}, times);
      std::vector<uint8_t> kinds = plan.kinds;
      for (int64_t draft = 0; draft < plan.drafts; ++draft) {
        spent += draft_cost;
        guessing.drafted({}, times, draft_cost * 1e-3);
        kinds.push_back(Guessing::kind_of(right));
        if (!guessing.another(kinds, {}, times)) break;
      }
      int64_t kept = 0;
      while (kept < std::ssize(kinds) && random.uniform() < right) ++kept;
      spent += 1 + slope * static_cast<double>(kinds.size());
      if (kinds.empty()) guessing.fade();
      else guessing.checked(kinds, kept, {}, times, 1e-3 * (1 + slope * static_cast<double>(kinds.size())));
      for (int64_t t = 0; t < kept + 1; ++t) guessing.wrote(), tokens.push_back(static_cast<int32_t>(tokens.size() % 7));
      written += kept + 1;
      ASSERT_NEAR(guessing.balance(), static_cast<double>(written) - spent, 0.01 * spent);
      ASSERT_GE(guessing.balance(), -(0.51 + 0.0076 * static_cast<double>(written))) << slope << " " << right << " " << draft_cost;
    }
    // A guess that costs a tenth of what it brings is taken.
    if (right > 0.9 && slope < 0.2) {
      ++won;
      EXPECT_GT(guessing.balance(), 0.2 * spent) << slope << " " << right;
    }
  }
  EXPECT_GT(won, 3);
}

}  // namespace
}  // namespace fathom::infer::test
