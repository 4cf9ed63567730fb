// Fits in closed form against what they must be: exact where a map of that rank made the data, never beaten by another map
// of that rank, and the textbook's answers in small cases.
#include "convert/low_rank.h"

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "core/random.h"

namespace fathom::convert {
namespace {

std::vector<float> normal(Random& random, int64_t count) {
  std::vector<float> out(static_cast<size_t>(count));
  for (float& v : out) v = static_cast<float>(random.normal());
  return out;
}

// [N, M] · [C, M]ᵀ
std::vector<float> product(const std::vector<float>& a, const std::vector<float>& b, int64_t inner) {
  const size_t M = static_cast<size_t>(inner), N = a.size() / M, C = b.size() / M;
  std::vector<float> out(N * C);
  for (size_t n = 0; n < N; ++n)
    for (size_t c = 0; c < C; ++c) {
      double sum = 0;
      for (size_t m = 0; m < M; ++m) sum += static_cast<double>(a[n * M + m]) * b[c * M + m];
      out[n * C + c] = static_cast<float>(sum);
    }
  return out;
}

double squared(const std::vector<float>& v) { return std::inner_product(v.begin(), v.end(), v.begin(), 0.0); }
double left(const std::vector<float>& u, const std::vector<float>& y, const LowRankFit::Map& map, int64_t C, int64_t rank) {
  std::vector<float> rest = product(product(u, map.down, C), map.up, rank);
  for (size_t i = 0; i < rest.size(); ++i) rest[i] = y[i] - rest[i];
  return squared(rest) / squared(y);
}

// U·D [C, C], row-major.
std::vector<float> joined(const LowRankFit::Map& map, int64_t C) {
  const int64_t rank = std::ssize(map.down) / C;
  std::vector<float> columns(map.down.size());  // D transposed
  for (int64_t i = 0; i < rank; ++i)
    for (int64_t c = 0; c < C; ++c) columns[static_cast<size_t>(c * rank + i)] = map.down[static_cast<size_t>(i * C + c)];
  return product(map.up, columns, rank);
}

TEST(LowRank, FindsTheMapThatMadeTheData) {
  ThreadPool threads(2);
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Random random(seed);
    const int64_t C = 3 + static_cast<int64_t>(seed % 4) * 30, r = 1 + static_cast<int64_t>(seed) % 3, N = 4 * C + 700;
    const std::vector<float> u = normal(random, N * C), down = normal(random, r * C), up = normal(random, C * r);
    const std::vector<float> y = product(product(u, down, C), up, r);
    LowRankFit fit(C);
    const size_t half = static_cast<size_t>(N / 2 * C);  // in two pieces
    fit.add(std::span(u).first(half), std::span(y).first(half), threads);
    fit.add(std::span(u).subspan(half), std::span(y).subspan(half), threads);
    EXPECT_EQ(fit.rows(), N);
    const LowRankFit::Map map = fit.solve(r, 1e-9);
    EXPECT_LT(map.unexplained, 1e-6) << seed;
    EXPECT_LT(left(u, y, map, C, r), 1e-6) << seed;
    const std::vector<float> mapped = map.apply(u, C, threads), expected = product(product(u, map.down, C), map.up, r);
    const double near = 1e-4 * std::sqrt(squared(y) / static_cast<double>(y.size()));
    for (size_t i = 0; i < mapped.size(); ++i) ASSERT_NEAR(mapped[i], expected[i], near);
    const std::vector<float> found = joined(map, C), made = joined({.down = down, .up = up}, C);
    for (size_t i = 0; i < made.size(); ++i) ASSERT_NEAR(found[i], made[i], 1e-4 * std::sqrt(squared(made) / static_cast<double>(made.size()))) << seed << " " << i;
  }
}

// The regression of y [N, C] on inputs [N, M], M at most C, as [C, M]: that of full rank on inputs filled up with zeros.
std::vector<float> regression(const std::vector<float>& inputs, int64_t M, const std::vector<float>& y, int64_t C, ThreadPool& threads) {
  std::vector<float> filled(y.size(), 0.0f);
  for (size_t n = 0; n < y.size() / static_cast<size_t>(C); ++n) std::copy_n(inputs.begin() + static_cast<ptrdiff_t>(n) * M, M, filled.begin() + static_cast<ptrdiff_t>(n) * C);
  LowRankFit fit(C);
  fit.add(filled, y, threads);
  const std::vector<float> whole = joined(fit.solve(C, 1e-9), C);
  std::vector<float> out;
  for (int64_t c = 0; c < C; ++c) out.insert(out.end(), whole.begin() + c * C, whole.begin() + c * C + M);
  return out;
}

// Alternating least squares from random starts, which goes downhill to the best map of that rank, 1 or 2.
double best_by_alternation(const std::vector<float>& u, const std::vector<float>& y, int64_t C, int64_t rank, Random& random, ThreadPool& threads) {
  double best = 1;
  const size_t N = u.size() / static_cast<size_t>(C), r = static_cast<size_t>(rank);
  for (int start = 0; start < 3; ++start) {
    LowRankFit::Map map{.down = normal(random, rank * C), .up = {}};
    for (int round = 0; round < 60; ++round) {
      map.up = regression(product(u, map.down, C), rank, y, C, threads);
      // Given U, the best D regresses (UᵀU)⁻¹Uᵀy on u; the inverse of rank 2 by hand.
      std::vector<float> columns(map.up.size());  // U transposed
      for (size_t c = 0; c < static_cast<size_t>(C); ++c)
        for (size_t i = 0; i < r; ++i) columns[i * static_cast<size_t>(C) + c] = map.up[c * r + i];
      const std::vector<float> z = product(y, columns, C), gram = product(columns, columns, C);  // [N, r], [r, r]
      const double a = gram[0], b = r > 1 ? gram[1] : 0, d = r > 1 ? gram[3] : 1, determinant = a * d - b * b;
      std::vector<float> target(u.size(), 0.0f);
      for (size_t n = 0; n < N; ++n) {
        const double first = z[n * r], second = r > 1 ? z[n * r + 1] : 0;
        target[n * static_cast<size_t>(C)] = static_cast<float>((d * first - b * second) / determinant);
        if (r > 1) target[n * static_cast<size_t>(C) + 1] = static_cast<float>((a * second - b * first) / determinant);
      }
      const std::vector<float> rows = regression(u, C, target, C, threads);
      map.down.assign(rows.begin(), rows.begin() + rank * C);
    }
    best = std::min(best, left(u, y, map, C, rank));
  }
  return best;
}

TEST(LowRank, NoOtherMapOfTheRankIsNearer) {
  ThreadPool threads(1);
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    Random random(seed + 50);
    const int64_t C = 6, rank = 1 + static_cast<int64_t>(seed) % 2, N = 200;
    // Correlated inputs, deltas with a part that no linear map gives.
    const std::vector<float> u = product(normal(random, N * C), normal(random, C * C), C);
    std::vector<float> y = product(u, normal(random, C * C), C);
    for (float& v : y) v += 2 * static_cast<float>(random.normal());
    LowRankFit fit(C);
    fit.add(u, y, threads);
    const LowRankFit::Map map = fit.solve(rank, 1e-9);
    const double ours = left(u, y, map, C, rank), other = best_by_alternation(u, y, C, rank, random, threads);
    EXPECT_NEAR(map.unexplained, ours, 1e-4);
    EXPECT_LT(ours, other + 1e-5) << seed;
    EXPECT_GT(ours, other - 1e-3) << seed << ": the alternation found nothing better by far, so it is no test";
    for (int64_t more = rank + 1; more <= C; ++more) EXPECT_LE(fit.solve(more, 1e-9).unexplained, fit.solve(more - 1, 1e-9).unexplained + 1e-9);
  }
}

TEST(LowRank, NothingToFitIsTheZeroMap) {
  ThreadPool threads(1);
  LowRankFit none(4);
  EXPECT_EQ(none.solve(2, 1e-3).up, std::vector<float>(8, 0.0f));
  LowRankFit still(2);
  still.add(std::vector<float>{1, 2, 3, 4}, std::vector<float>{0, 0, 0, 0}, threads);
  EXPECT_EQ(still.solve(2, 1e-3).down, std::vector<float>(4, 0.0f));
}

TEST(LowRank, RidgeShrinks) {
  ThreadPool threads(1);
  LowRankFit fit(1);
  fit.add(std::vector<float>{1, 2}, std::vector<float>{2, 4}, threads);  // y = 2 u; Σu² = 5
  const LowRankFit::Map map = fit.solve(1, 1.0);                       // λ = 5: 10 / (5 + 5)
  EXPECT_FLOAT_EQ(map.up[0] * map.down[0], 1.0f);
  EXPECT_NEAR(map.unexplained, 0.25, 1e-9);  // Σ(2u − u)² = 5 of 20
}

TEST(ScoreFit, IsTheRegression) {
  ThreadPool threads(2);
  Random random(3);
  const int64_t C = 5, N = 900;
  const std::vector<float> u = normal(random, N * C), w = normal(random, C);
  std::vector<float> t = product(u, w, C);
  for (float& v : t) v += 3;
  ScoreFit fit(C);
  fit.add(u, t, threads);
  const ScoreFit::Score score = fit.solve(1e-9);
  EXPECT_NEAR(score.bias, 3, 1e-4);
  for (int64_t c = 0; c < C; ++c) EXPECT_NEAR(score.weight[static_cast<size_t>(c)], w[static_cast<size_t>(c)], 1e-4);
  EXPECT_NEAR(score.explained, 1, 1e-6);
  // Noise of the signal's own size: half is explained.
  double signal = 0;
  for (const float v : w) signal += static_cast<double>(v) * v;
  for (float& v : t) v += static_cast<float>(std::sqrt(signal) * random.normal());
  ScoreFit noisy(C);
  noisy.add(u, t, threads);
  EXPECT_NEAR(noisy.solve(1e-9).explained, 0.5, 0.06);
  ScoreFit constant(C);
  constant.add(u, std::vector<float>(static_cast<size_t>(N), 7.0f), threads);
  EXPECT_EQ(constant.solve(1e-3).explained, 0);
  EXPECT_NEAR(constant.solve(1e-3).bias, 7, 1e-5);
}

}  // namespace
}  // namespace fathom::convert
