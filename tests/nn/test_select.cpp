// Selection: equal to routing::top_k, ties to the earlier position, padding never, forced positions inside K.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "core/random.h"
#include "nn/select.h"
#include "routing/select.h"

namespace fathom::nn {
namespace {

Rows rows_of(int64_t batch, int64_t tokens, std::vector<int64_t> length = {}) {
  Rows rows;
  rows.batch = batch;
  rows.tokens = tokens;
  rows.length = length.empty() ? std::vector<int64_t>(static_cast<size_t>(batch), tokens) : std::move(length);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t t = 0; t < tokens; ++t) {
      rows.document_start.push_back(0);
      rows.position.push_back(static_cast<int32_t>(t));
    }
  return rows;
}

TEST(Select, TopKEqualsRoutings) {
  Random random(5);
  for (int round = 0; round < 300; ++round) {
    const int64_t B = 1 + static_cast<int64_t>(random.below(3)), T = 1 + static_cast<int64_t>(random.below(40));
    std::vector<int64_t> length;
    for (int64_t b = 0; b < B; ++b) length.push_back(static_cast<int64_t>(random.below(static_cast<uint64_t>(T) + 1)));
    const Rows rows = rows_of(B, T, length);
    std::vector<float> scores;
    const uint64_t values = 1 + random.below(8);  // few values: many ties
    for (int64_t i = 0; i < B * T; ++i) {
      const uint64_t v = random.below(values + 2);
      scores.push_back(v == values ? std::numeric_limits<float>::quiet_NaN()
                       : v == values + 1 ? -std::numeric_limits<float>::infinity() : static_cast<float>(v) - 2);
    }
    const double capacity = random.uniform() * 0.999 + 0.001;
    const int64_t forced = static_cast<int64_t>(random.below(4));
    const Selected found = select_top_k<float>(scores, rows, capacity, forced);
    std::vector<int64_t> expected, begin = {0};
    for (int64_t b = 0; b < B; ++b) {
      const auto n = static_cast<size_t>(length[static_cast<size_t>(b)]);
      const auto row = std::span<const float>(scores).subspan(static_cast<size_t>(b * T), n);
      for (int64_t t : routing::top_k(row, routing::selected_count(capacity, static_cast<int64_t>(n)), forced)) expected.push_back(b * T + t);
      begin.push_back(static_cast<int64_t>(expected.size()));
    }
    EXPECT_EQ(found.rows, expected);
    EXPECT_EQ(found.begin, begin);
  }
}

TEST(Select, TiesGoToTheEarlierPosition) {
  const std::vector<float> scores = {1, 3, 3, 3, 0, 3};
  EXPECT_EQ(select_top_k<float>(scores, rows_of(1, 6), 0.5, 0).rows, (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(select_top_k<float>(std::vector<float>(6, 2.0f), rows_of(1, 6), 0.5, 0).rows, (std::vector<int64_t>{0, 1, 2}));
}

TEST(Select, ForcedPositionsOfEveryDocumentCountInsideK) {
  Rows rows = rows_of(1, 8);
  for (size_t i = 5; i < 8; ++i) {
    rows.document_start[i] = 5;
    rows.position[i] = static_cast<int32_t>(i) - 5;
  }
  const std::vector<float> scores = {0, 9, 1, 8, 2, 0, 3, 7};
  EXPECT_EQ(select_top_k<float>(scores, rows, 0.5, 1).rows, (std::vector<int64_t>{0, 1, 3, 5}));
  EXPECT_EQ(select_top_k<float>(scores, rows, 0.125, 2).rows, (std::vector<int64_t>{0, 1, 5, 6}));  // more forced than K
  EXPECT_EQ(select_threshold<float>(scores, rows, 7.5f, 1).rows, (std::vector<int64_t>{0, 1, 3, 5}));
}

TEST(Select, PaddingNever) {
  const Rows rows = rows_of(2, 4, {2, 3});
  const std::vector<float> scores = {0, 1, 9, 9, 1, 2, 0, 9};
  EXPECT_EQ(select_top_k<float>(scores, rows, 0.5, 0).rows, (std::vector<int64_t>{1, 4, 5}));
  EXPECT_EQ(select_threshold<float>(scores, rows, -1.0f, 0).rows, (std::vector<int64_t>{0, 1, 4, 5, 6}));
  const bool run[8] = {true, true, true, true, true, true, true, true};
  EXPECT_EQ(select_imposed(run, rows).rows, (std::vector<int64_t>{0, 1, 4, 5, 6}));
  for (int64_t row : select_random(rows, 3, 1, 1.0, 0).rows) EXPECT_LT(row % 4, rows.length[static_cast<size_t>(row / 4)]);
}

TEST(Select, ThresholdIsInclusiveAndNaNNeverRuns) {
  const std::vector<float> scores = {0.5f, std::nextafter(0.5f, 0.0f), std::numeric_limits<float>::quiet_NaN(), 0.5f};
  EXPECT_EQ(select_threshold<float>(scores, rows_of(1, 4), 0.5f, 0).rows, (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(select_threshold<float>(scores, rows_of(1, 4), -std::numeric_limits<float>::infinity(), 0).rows, (std::vector<int64_t>{0, 1, 3}));
}

TEST(Select, RandomIsTheHashOfThePositionInItsDocument) {
  Rows rows = rows_of(2, 50);
  const auto run = select_random(rows, 11, 3, 0.3, 0).rows;
  std::vector<int64_t> expected;
  for (int64_t i = 0; i < 100; ++i)
    if (routing::random_score(11, 3, i % 50) < 0.3) expected.push_back(i);
  EXPECT_EQ(run, expected);
  EXPECT_GT(run.size(), 10u);
  EXPECT_LT(run.size(), 60u);
}

// Rows of a run by their number, whatever the batch they stand in; neither rows nor blocks share draws.
TEST(Select, RandomInTrainingIsDrawnForEveryRow) {
  const int64_t T = 400;
  const auto of_row = [&](const std::vector<int64_t>& run, int64_t row) {
    std::vector<int64_t> out;
    for (const int64_t i : run)
      if (i / T == row) out.push_back(i % T);
    return out;
  };
  const auto whole = select_random(rows_of(3, T), 11, 3, 0.3, 0, 6).rows, later = select_random(rows_of(1, T), 11, 3, 0.3, 0, 8).rows;
  EXPECT_EQ(of_row(whole, 2), later);
  const auto shared = [&](const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
    std::vector<int64_t> both;
    std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
    return static_cast<double>(both.size()) / T;
  };
  const auto first = of_row(whole, 0), second = of_row(whole, 1), other = select_random(rows_of(1, T), 11, 4, 0.3, 0, 6).rows;
  EXPECT_NEAR(static_cast<double>(first.size()) / T, 0.3, 0.07);
  EXPECT_NEAR(shared(first, second), 0.09, 0.05);
  EXPECT_NEAR(shared(first, other), 0.09, 0.05);
  EXPECT_NEAR(shared(first, select_random(rows_of(1, T), 11, 3, 0.3, 0).rows), 0.09, 0.05);  // nor is it the rule by position
  EXPECT_EQ(of_row(select_random(rows_of(1, T), 11, 3, 0.1, 2, 6).rows, 0)[1], 1);
}

}  // namespace
}  // namespace fathom::nn
