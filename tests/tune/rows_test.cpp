// Rows of two texts: each in its own order, evenly mixed, the same from wherever one begins; their weights are those of their losses.
#include "tune/rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "core/file.h"
#include "core/random.h"
#include "tune/helpers.h"

namespace fathom::tune {
namespace {

train::Corpus corpus_at(const std::string& folder) {
  const auto train = data::Dataset::open(folder, "train");
  return {train, data::Dataset::open(folder, "validation"), text::Tokenizer::load(train->tokenizer_path()), ""};
}

std::vector<int32_t> row_of(const train::Batch& batch, const std::vector<int32_t> train::Batch::* part, int64_t row) {
  const auto begin = (batch.*part).begin() + row * batch.tokens;
  return {begin, begin + batch.tokens};
}

TEST(Rows, TwoTextsTakeTurns) {
  const train::Corpus text = corpus_at(train::corpus());
  train::Corpus other = text;
  other.train = other.validation;
  for (const double share : {0.5, 0.1, 0.75})
    for (const int64_t batch : {1, 2, 3}) {
      TuneConfig config = tiny("");
      config.other = {"other"}, config.other_share = share, config.other_weight = 0.25, config.batch_size = batch, config.seed = 3;
      Rows rows(config, text, &other, 0);
      train::Loader of_text(text.train, 1, 32, train::state_after(*text.train, 32, 3, 0)), of_other(other.train, 1, 32, train::state_after(*other.train, 32, 3, 0));
      int64_t others = 0;
      for (int64_t first = 0; first < 60; first += batch) {
        EXPECT_EQ(Rows::state_after(config, text, first), train::state_after(*text.train, 32, 3, first - others));
        const Rows::Some some = rows.next();
        const Rows::Some again = Rows(config, text, &other, first).next();  // a resume
        EXPECT_EQ(again.batch.input, some.batch.input);
        EXPECT_TRUE(again.weights.equal(some.weights));
        double targets = 0;
        for (int64_t row = 0; row < batch; ++row) {
          const float weight = some.weights[row * 32].item<float>();
          EXPECT_TRUE(weight == 1 || weight == 0.25f);
          EXPECT_TRUE((some.weights.narrow(0, row * 32, 32) == weight).all().item<bool>());
          others += weight != 1;
          const train::Batch one = (weight == 1 ? of_text : of_other).next();
          for (const auto part : {&train::Batch::input, &train::Batch::target, &train::Batch::document_start}) EXPECT_EQ(row_of(some.batch, part, row), one.*part);
          targets += weight * static_cast<double>(32 - std::ranges::count(one.target, train::kIgnore));
          EXPECT_NEAR(static_cast<double>(others), share * static_cast<double>(first + row + 1), 1);
        }
        EXPECT_DOUBLE_EQ(some.targets, targets);
      }
    }
}

// Without a budget, rows that count nothing teach nothing: what is tuned beside them is what is tuned without them.
TEST(Rows, WhatCountsNothingTeachesNothing) {
  const TemporaryFolder folder;
  std::string digits;
  Random random(3);
  for (int i = 0; i < 3000; ++i) digits += str(random.below(1000), i % 9 == 8 ? "\n\n" : " ");
  atomic_write(join_path(folder.path(), "digits.txt"), digits);
  const auto tuned = [&](const char* name, std::optional<double> weight) {
    TuneConfig config = tiny(models().routed, {What::adapters});
    config.budget_weight = 0, config.stages[0].noise = 0;
    if (weight) config.other = {join_path(folder.path(), "digits.txt")}, config.other_weight = *weight;
    else config.batch_size /= 2, config.stages[0].tokens /= 2;
    tune(config, {.run = join_path(folder.path(), name)});
    return convert::read_tuned(join_path(join_path(folder.path(), name), "1-adapters/tuned.safetensors"));
  };
  const convert::Tuned alone = tuned("alone", {}), nothing = tuned("nothing", 0), counts = tuned("counts", 1);
  const auto distance = [&](const convert::Tuned& other) {
    double sum = 0;
    for (const auto& [name, tensor] : alone.tensors) {
      const std::vector<float> a = tensor.to_f32(), b = other.tensors.at(name).to_f32();
      for (size_t i = 0; i < a.size(); ++i) sum += std::abs(static_cast<double>(a[i]) - b[i]);
    }
    return sum;
  };
  EXPECT_GT(distance(counts), 0);
  EXPECT_LT(distance(nothing), 1e-3 * distance(counts));
}

}  // namespace
}  // namespace fathom::tune
