#include "routing/select.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "core/random.h"

namespace fathom::routing {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
using Indices = std::vector<int64_t>;

Indices pick(const std::vector<float>& scores, int64_t k, int64_t forced = 0) { return top_k(scores, k, forced); }

// The definition, by a full sort.
Indices naive(const std::vector<float>& scores, int64_t k, int64_t forced) {
  const int64_t T = static_cast<int64_t>(scores.size());
  forced = std::min(forced, T);
  std::vector<int64_t> order;
  for (int64_t t = forced; t < T; ++t)
    if (!std::isnan(scores[static_cast<size_t>(t)])) order.push_back(t);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  Indices out;
  for (int64_t t = 0; t < forced; ++t) out.push_back(t);
  for (int64_t t : order)
    if (static_cast<int64_t>(out.size()) < k) out.push_back(t);
  std::sort(out.begin(), out.end());
  return out;
}

TEST(SelectedCount, RoundsUpAndNeverToNothing) {
  EXPECT_EQ(selected_count(0.125, 256), 32);
  EXPECT_EQ(selected_count(0.125, 257), 33);
  EXPECT_EQ(selected_count(0.125, 1), 1);
  EXPECT_EQ(selected_count(1e-9, 5), 1);
  EXPECT_EQ(selected_count(1, 7), 7);
  EXPECT_EQ(selected_count(0.5, 0), 0);
  EXPECT_EQ(selected_count(0, 10), 0);
}

TEST(SelectedCount, SafeAgainstProductsThatExceedTheirWholeNumber) {
  EXPECT_GT(0.07 * 100, 7.0);  // the reason
  EXPECT_EQ(selected_count(0.07, 100), 7);
  for (int64_t parts = 1; parts <= 64; ++parts)
    for (int64_t k = 1; k <= parts; ++k) {
      const double capacity = static_cast<double>(k) / static_cast<double>(parts);
      for (int64_t rows : {1, 3, 7, 100, 4096, 65537}) EXPECT_EQ(selected_count(capacity, parts * rows), k * rows) << k << "/" << parts;
    }
}

TEST(SelectedCount, TheNextTokenAboveAWholeNumberCounts) {
  EXPECT_EQ(selected_count(0.1, 31), 4);
  EXPECT_EQ(selected_count(0.25 + 1e-9, 1 << 20), (1 << 18) + 1);
}

TEST(SelectedCount, RefusesWhatIsNoShare) {
  EXPECT_THROW(selected_count(1.5, 3), std::logic_error);
  EXPECT_THROW(selected_count(0.5, -1), std::logic_error);
  EXPECT_THROW(selected_count(kNan, 3), std::logic_error);
}

TEST(Runs, IsOneComparison) {
  EXPECT_TRUE(runs(1, 1));
  EXPECT_TRUE(runs(1, -kInf));
  EXPECT_TRUE(runs(-kInf, -kInf));
  EXPECT_FALSE(runs(1, kInf));
  EXPECT_FALSE(runs(std::nextafter(1.0f, 0.0f), 1));
  EXPECT_FALSE(runs(kNan, -kInf));
  EXPECT_FALSE(runs(kNan, 0));
}

TEST(TopK, PicksTheHighestInOrderOfPosition) {
  EXPECT_EQ(pick({0.1f, 3, -2, 2, 5}, 3), (Indices{1, 3, 4}));
  EXPECT_EQ(pick({0.1f, 3, -2, 2, 5}, 1), (Indices{4}));
}

TEST(TopK, Edges) {
  EXPECT_EQ(pick({}, 0), Indices{});
  EXPECT_EQ(pick({}, 3, 2), Indices{});
  EXPECT_EQ(pick({1, 2, 3}, 0), Indices{});
  EXPECT_EQ(pick({1, 2, 3}, 3), (Indices{0, 1, 2}));
  EXPECT_EQ(pick({1, 2, 3}, 9), (Indices{0, 1, 2}));
  EXPECT_EQ(pick({1}, 1), (Indices{0}));
  EXPECT_EQ(pick({-kInf, -kInf, kInf}, 2), (Indices{0, 2}));
}

TEST(TopK, TiesGoToTheEarlierPosition) {
  EXPECT_EQ(pick({1, 1, 1, 1, 1}, 2), (Indices{0, 1}));
  EXPECT_EQ(pick({0, 1, 0, 1, 0, 1}, 4), (Indices{0, 1, 3, 5}));
  EXPECT_EQ(pick({0.0f, -0.0f, 0.0f}, 2), (Indices{0, 1}));
  EXPECT_EQ(pick({-0.0f, 0.0f}, 1), (Indices{0}));
}

TEST(TopK, ForcedPositionsCountInsideK) {
  EXPECT_EQ(pick({-9, -9, 1, 2, 3}, 3, 2), (Indices{0, 1, 4}));
  EXPECT_EQ(pick({-9, -9, 1, 2, 3}, 2, 2), (Indices{0, 1}));
  EXPECT_EQ(pick({-9, -9, 1, 2, 3}, 1, 2), (Indices{0, 1}));
  EXPECT_EQ(pick({-9, -9, 1, 2, 3}, 0, 2), (Indices{0, 1}));
  EXPECT_EQ(pick({5, 6}, 1, 4), (Indices{0, 1}));
}

TEST(TopK, NanIsPickedOnlyWhereForced) {
  EXPECT_EQ(pick({kNan, 1, kNan, 2}, 3), (Indices{1, 3}));
  EXPECT_EQ(pick({kNan, 1, kNan, 2}, 2, 1), (Indices{0, 3}));
  EXPECT_EQ(pick({kNan, kNan}, 1), Indices{});
  EXPECT_EQ(pick({kNan, -kInf}, 1), (Indices{1}));
}

TEST(TopK, EqualsAFullSortOnRandomScores) {
  Random random(7);
  for (int trial = 0; trial < 4000; ++trial) {
    const int64_t T = static_cast<int64_t>(random.below(60));
    const int64_t levels = 1 + static_cast<int64_t>(random.below(12));  // few levels: many ties
    std::vector<float> scores;
    for (int64_t t = 0; t < T; ++t) {
      const bool odd = random.uniform() < 0.1;
      const float special[] = {kNan, kInf, -kInf, -0.0f};
      scores.push_back(odd ? special[random.below(4)] : static_cast<float>(random.below(static_cast<uint64_t>(levels))));
    }
    const int64_t k = static_cast<int64_t>(random.below(static_cast<uint64_t>(T + 3)));
    const int64_t forced = random.uniform() < 0.5 ? 0 : static_cast<int64_t>(random.below(6));
    ASSERT_EQ(pick(scores, k, forced), naive(scores, k, forced)) << "trial " << trial;
  }
}

TEST(RandomScore, IsAHashOfSeedBlockAndPosition) {
  EXPECT_EQ(random_score(1, 2, 3), random_score(1, 2, 3));
  std::set<double> distinct;
  double total = 0;
  for (uint64_t seed = 0; seed < 10; ++seed)
    for (int64_t block = 0; block < 10; ++block)
      for (int64_t position = 0; position < 100; ++position) {
        const double u = random_score(seed, block, position);
        ASSERT_GE(u, 0.0);
        ASSERT_LT(u, 1.0);
        distinct.insert(u);
        total += u;
      }
  EXPECT_EQ(distinct.size(), 10000u);
  EXPECT_NEAR(total / 10000, 0.5, 0.01);
}

TEST(RandomScore, KeepsItsShareAtEveryBlock) {
  for (int64_t block = 0; block < 8; ++block) {
    int64_t running = 0;
    for (int64_t t = 0; t < 20000; ++t) running += random_score(42, block, t) < 0.125;
    EXPECT_NEAR(static_cast<double>(running) / 20000, 0.125, 0.01) << block;
  }
}

TEST(RandomScore, IsTheSameOnEveryMachine) {
  // Stored with a model as its seed alone: another hash would route another way.
  EXPECT_EQ(random_score(0, 0, 0), 0x1.1c13ade1c7e5cp-3) << std::hexfloat << random_score(0, 0, 0);
  EXPECT_EQ(random_score(123456789, 7, 4095), 0x1.f27fc668adc4ap-1) << std::hexfloat << random_score(123456789, 7, 4095);
}

}  // namespace
}  // namespace fathom::routing
