#include "core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace fathom {
namespace {

TEST(Random, IsTheSameOnEveryMachine) {
  EXPECT_EQ(mix64(0), 0xe220a8397b1dcdafULL);  // splitmix64's first output for seed 0
  Random r(42);
  const uint64_t first = r.bits(), second = r.bits();
  EXPECT_NE(first, second);
  Random again(42, 1);
  EXPECT_EQ(again.bits(), second) << "(seed, counter) is the whole state";
  EXPECT_EQ(again.seed(), 42u);
  EXPECT_EQ(again.counter(), 2u);
}

TEST(Random, UniformAndBelow) {
  Random r(1);
  double sum = 0, squares = 0;
  const int n = 200'000;
  for (int i = 0; i < n; ++i) {
    const double u = r.uniform();
    ASSERT_TRUE(u >= 0 && u < 1);
    sum += u, squares += u * u;
  }
  EXPECT_NEAR(sum / n, 0.5, 0.003);
  EXPECT_NEAR(squares / n, 1.0 / 3, 0.003);
  for (uint64_t k : {1ULL, 2ULL, 7ULL, 1000ULL}) {
    std::vector<int> counts(k);
    for (int i = 0; i < 70'000; ++i) ++counts[r.below(k)];
    for (int c : counts) EXPECT_NEAR(c, 70'000.0 / static_cast<double>(k), 6 * std::sqrt(70'000.0 / static_cast<double>(k)));
  }
  EXPECT_LT(r.below((1ULL << 63) + 1), (1ULL << 63) + 1);
}

TEST(Random, NormalHasTheMoments) {
  Random r(2);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  const int n = 400'000;
  for (int i = 0; i < n; ++i) {
    const double x = r.normal();
    ASSERT_TRUE(std::isfinite(x));
    m1 += x, m2 += x * x, m3 += x * x * x, m4 += x * x * x * x;
  }
  EXPECT_NEAR(m1 / n, 0, 0.01);
  EXPECT_NEAR(m2 / n, 1, 0.01);
  EXPECT_NEAR(m3 / n, 0, 0.03);
  EXPECT_NEAR(m4 / n, 3, 0.08);
}

TEST(Random, ForksAreIndependentOfDraws) {
  Random a(7), b(7);
  for (int i = 0; i < 10; ++i) b.bits();
  EXPECT_EQ(a.fork("weights").bits(), b.fork("weights").bits());
  std::set<uint64_t> seeds;
  for (const char* name : {"", "a", "b", "ab", "ba", "weights"}) seeds.insert(a.fork(name).seed());
  EXPECT_EQ(seeds.size(), 6u);
  EXPECT_NE(Random(1).fork("a").seed(), Random(2).fork("a").seed());
}

}  // namespace
}  // namespace fathom
