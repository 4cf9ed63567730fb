// Frequencies against the papers' formulas in double, and what a GGUF file divides them by. Against transformers: oracle/test_families.py.
#include "model/rope.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/random_model.h"

namespace fathom::model {
namespace {

using Type = RopeScaling::Type;

constexpr int64_t kD = 64;
constexpr double kTheta = 500000;

// Llama 3.2's numbers.
RopeScaling llama3() {
  RopeScaling s{.type = Type::llama3, .factor = 32, .original_context = 8192};
  s.low_freq_factor = 1, s.high_freq_factor = 4;
  return s;
}

TEST(Rope, LinearScalingDividesTheFrequencies) {
  const auto plain = rope_frequencies(kD, kTheta), linear = rope_frequencies(kD, kTheta, {.type = Type::linear, .factor = 4});
  ASSERT_EQ(plain.size(), 32u);
  for (int64_t i = 0; i < kD / 2; ++i) {
    const double exact = std::pow(kTheta, -2.0 * static_cast<double>(i) / kD);
    EXPECT_NEAR(plain[i] / exact, 1, 2e-7);
    EXPECT_EQ(linear[i], plain[i] / 4);
  }
}

// Pairs that turn more than high_freq_factor times in the original context are kept, those below low_freq_factor divided.
TEST(Rope, Llama3KeepsFastPairsAndStretchesSlowOnes) {
  const auto plain = rope_frequencies(kD, kTheta), scaled = rope_frequencies(kD, kTheta, llama3());
  int kept = 0, stretched = 0, between = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    const double turns = 8192 * static_cast<double>(plain[i]) / (2 * std::acos(-1.0));
    const double share = std::clamp((turns - 1) / 3, 0.0, 1.0);
    EXPECT_NEAR(scaled[i] / (plain[i] * (share + (1 - share) / 32)), 1, 2e-6) << i;
    if (share == 0 || share == 1) {
      EXPECT_EQ(scaled[i], share == 1 ? plain[i] : plain[i] / 32) << i;
    }
    (share == 1 ? kept : share == 0 ? stretched : between) += 1;
  }
  EXPECT_GT(kept, 8);
  EXPECT_GT(stretched, 8);
  EXPECT_GE(between, 2);
}

TEST(Rope, YarnTurnsSlowPairsSlowerAndRaisesTheLogits) {
  RopeScaling s{.type = Type::yarn, .factor = 4, .original_context = 32768};
  s.beta_fast = 32, s.beta_slow = 1, s.attention_factor = yarn_attention_factor(4);
  EXPECT_NEAR(s.attention_factor, 1.1386294361, 1e-9);
  EXPECT_EQ(yarn_attention_factor(0.5), 1);
  const auto plain = rope_frequencies(128, 1e6), scaled = rope_frequencies(128, 1e6, s);  // Qwen2.5's numbers
  // Pair 64 · ln(32768 / (2π · beta)) / ln(1e6): 23.6 down to 23 for beta 32, 39.65 up to 40 for beta 1.
  for (size_t i = 0; i < 64; ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - 23) / 17, 0.0, 1.0);
    EXPECT_NEAR(scaled[i] / (plain[i] * (ramp / 4 + 1 - ramp)), 1, 1e-6) << i;
  }
  float cosine[64], sine[64], other_cosine[64], other_sine[64];
  rope_row(7, scaled, cosine, sine, 1.5f);
  rope_row(7, scaled, other_cosine, other_sine);
  for (size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(cosine[i], other_cosine[i] * 1.5f);
    EXPECT_EQ(sine[i], other_sine[i] * 1.5f);
  }
}

TEST(Rope, DivisorsGiveTheSameFrequenciesAgain) {
  const std::vector<float> divisors = rope_divisors(kD, kTheta, llama3());
  ASSERT_EQ(divisors.size(), 32u);
  EXPECT_EQ(divisors.front(), 1);
  EXPECT_EQ(divisors.back(), 32);
  RopeScaling divided{.type = Type::divided};
  divided.divisors = divisors;
  EXPECT_EQ(rope_divisors(kD, kTheta, divided), divisors);
  const auto once = rope_frequencies(kD, kTheta, llama3()), again = rope_frequencies(kD, kTheta, divided);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(again[i] / once[i], 1, 3e-7) << i;
  EXPECT_TRUE(rope_divisors(kD, kTheta, {}).empty());
  EXPECT_TRUE(rope_divisors(kD, kTheta, {.type = Type::linear, .factor = 2}).empty());
}

}  // namespace
}  // namespace fathom::model
