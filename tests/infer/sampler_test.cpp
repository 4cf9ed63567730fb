#include "infer/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/error.h"

namespace fathom::infer::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_logits(int64_t n, uint64_t seed, double deviation = 2) {
  Random random(seed);
  std::vector<float> logits(n);
  for (float& x : logits) x = static_cast<float>(deviation * random.normal());
  return logits;
}

// Written from the definition: everything sorted, in double.
std::map<int32_t, double> expected(std::vector<float> logits, const SamplerOptions& o, const std::vector<int32_t>& seen,
                                   const std::map<int32_t, int>& sampled = {}) {
  for (const auto& [id, bias] : o.logit_bias) logits[id] += bias;
  for (int32_t id : seen) logits[id] = static_cast<float>(logits[id] > 0 ? logits[id] / o.repetition_penalty : logits[id] * o.repetition_penalty);
  for (const auto& [id, times] : sampled) logits[id] -= static_cast<float>(o.presence_penalty + o.frequency_penalty * times);
  std::vector<std::pair<double, int32_t>> all;
  for (size_t i = 0; i < logits.size(); ++i)
    if (logits[i] > -kInf) all.push_back({std::exp(logits[i] / o.temperature), static_cast<int32_t>(i)});
  std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  if (o.top_k > 0 && o.top_k < static_cast<int64_t>(all.size())) all.resize(o.top_k);
  const auto total = [&] {
    double sum = 0;
    for (auto& [p, id] : all) sum += p;
    return sum;
  };
  if (o.typical_p < 1) {
    const double mass = total();
    double entropy = 0, reached = 0;
    for (auto& [p, id] : all) entropy -= p / mass * std::log(p / mass);
    std::stable_sort(all.begin(), all.end(), [&](auto& a, auto& b) { return std::abs(std::log(a.first / mass) + entropy) < std::abs(std::log(b.first / mass) + entropy); });
    size_t kept = 0;
    while (kept < all.size() && reached < o.typical_p * mass) reached += all[kept++].first;
    all.resize(kept);
    std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  }
  const double whole = total();
  double sum = 0;
  size_t keep = 0;
  while (keep < all.size() && sum < o.top_p * whole) sum += all[keep++].first;
  if (o.top_p < 1) all.resize(keep);
  const double most = all[0].first;
  std::erase_if(all, [&](auto& c) { return c.first < o.min_p * most; });
  std::map<int32_t, double> out;
  const double left = total();
  for (auto& [p, id] : all) out[id] = p / left;
  return out;
}

TEST(Sampler, DistributionIsTheDefinition) {
  Random random(1);
  for (int trial = 0; trial < 200; ++trial) {
    const std::vector<float> logits = random_logits(2 + static_cast<int64_t>(random.below(400)), random.bits());
    SamplerOptions o;
    o.temperature = 0.3 + 2 * random.uniform();
    if (random.below(2)) o.top_k = 1 + static_cast<int64_t>(random.below(50));
    if (random.below(2)) o.top_p = 0.05 + 0.9 * random.uniform();
    if (random.below(3) == 0) o.typical_p = 0.05 + 0.9 * random.uniform();
    if (random.below(2)) o.min_p = random.uniform();
    if (random.below(3) == 0) o.logit_bias = {{0, 1.5f}, {1, -kInf}};
    if (random.below(2)) o.repetition_penalty = 0.5 + random.uniform();
    std::vector<int32_t> seen;
    for (int i = 0; i < 5; ++i) seen.push_back(static_cast<int32_t>(random.below(logits.size())));
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    Sampler sampler(o);
    sampler.observe(seen);
    const auto ours = sampler.distribution(logits);
    const auto theirs = expected(logits, o, seen);
    ASSERT_EQ(ours.size(), theirs.size()) << "top_k " << o.top_k << " top_p " << o.top_p << " min_p " << o.min_p;
    for (size_t i = 0; i < ours.size(); ++i) {
      ASSERT_TRUE(theirs.count(ours[i].id));
      EXPECT_NEAR(ours[i].probability, theirs.at(ours[i].id), 1e-5);
      if (i > 0) {
        EXPECT_GE(ours[i - 1].probability, ours[i].probability);
      }
    }
  }
}

// What was sampled weighs on what comes; the prompt does not.
TEST(Sampler, PenaltiesCountWhatWasSampled) {
  const std::vector<float> logits = random_logits(6, 21);
  for (const SamplerOptions& o : {SamplerOptions{.presence_penalty = 0.7, .seed = 3}, SamplerOptions{.frequency_penalty = 0.4, .seed = 4},
                                  SamplerOptions{.presence_penalty = -0.5, .frequency_penalty = 0.2, .seed = 5}}) {
    Sampler sampler(o);
    sampler.observe(std::vector<int32_t>{0, 1, 2});
    std::map<int32_t, int> sampled;
    for (int i = 0; i < 30; ++i) {
      const auto theirs = expected(logits, o, {}, sampled);
      for (const auto& c : sampler.distribution(logits)) EXPECT_NEAR(c.probability, theirs.at(c.id), 1e-5);
      ++sampled[sampler.sample(logits)];
    }
    EXPECT_GT(sampled.size(), 2u);
  }
}

TEST(Sampler, AForbiddenIdIsNeverDrawn) {
  Sampler sampler({.logit_bias = {{2, -kInf}, {400, 3.0f}}});
  for (int i = 0; i < 300; ++i) EXPECT_NE(sampler.sample(std::vector<float>{1, 1, 8, 1}), 2);
  EXPECT_EQ(Sampler({.temperature = 0, .logit_bias = {{3, 9.0f}}}).sample(std::vector<float>{1, 1, 8, 1}), 3);
  EXPECT_THROW(Sampler({.logit_bias = {{0, -kInf}}}).sample(std::vector<float>{1}), UserError);
}

TEST(Sampler, LogProbsAreThoseOfTheModel) {
  std::vector<float> logits = random_logits(50, 22);
  logits[8] = -kInf, logits[9] = logits[10] = 9;
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  const LogProbs found = log_probs(logits, 3, 4);
  EXPECT_NEAR(found.chosen, logits[3] - std::log(sum), 1e-5);
  ASSERT_EQ(found.top.size(), 4u);
  EXPECT_EQ(found.top[0].first, 9);
  EXPECT_EQ(found.top[1].first, 10);
  for (const auto& [id, value] : found.top) EXPECT_NEAR(value, logits[static_cast<size_t>(id)] - std::log(sum), 1e-5);
  EXPECT_TRUE(log_probs(logits, 3, 0).top.empty());
  EXPECT_EQ(log_probs(std::vector<float>{1, 2}, 0, 9).top.size(), 2u);
}

// Pearson's chi-square over 40,000 draws, 11 degrees of freedom: 31.3 is passed once in a thousand times.
TEST(Sampler, DrawsFollowTheDistribution) {
  for (const SamplerOptions& o : {SamplerOptions{.seed = 7}, SamplerOptions{.top_k = 12, .seed = 8}, SamplerOptions{.top_p = 0.999, .seed = 9}}) {
    const std::vector<float> logits = random_logits(12, 3, 0.8);
    Sampler sampler(o);
    std::map<int32_t, int> counts;
    const int draws = 40000;
    for (int i = 0; i < draws; ++i) ++counts[sampler.sample(logits)];
    double chi = 0;
    for (const auto& c : sampler.distribution(logits)) chi += std::pow(counts[c.id] - draws * c.probability, 2) / (draws * c.probability);
    EXPECT_LT(chi, 31.3);
  }
}

TEST(Sampler, GreedyTakesTheLowestOfTies) {
  Sampler sampler({.temperature = 0});
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 3, 2}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{kNan, -5, -kInf, -5}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{0, kInf, 2}), 1);
}

TEST(Sampler, TheSameSeedDrawsTheSame) {
  const std::vector<float> logits = random_logits(300, 5);
  const auto draw = [&](uint64_t seed, uint64_t stream) {
    Sampler sampler({.seed = seed}, stream);
    std::vector<int32_t> ids;
    for (int i = 0; i < 30; ++i) ids.push_back(sampler.sample(logits));
    return ids;
  };
  EXPECT_EQ(draw(1, 0), draw(1, 0));
  EXPECT_NE(draw(1, 0), draw(2, 0));
  EXPECT_NE(draw(1, 0), draw(1, 1));
  // The n-th draw does not depend on what the logits were before.
  Sampler a({.seed = 4}), b({.seed = 4});
  a.sample(logits);
  b.sample(std::vector<float>{0, kInf});
  EXPECT_EQ(a.sample(logits), b.sample(logits));
}

TEST(Sampler, ExtremeLogitsAndTemperatures) {
  EXPECT_EQ(Sampler({.temperature = 1e-40}).sample(std::vector<float>{1, 2, 3}), 2);
  EXPECT_EQ(Sampler({}).distribution(std::vector<float>{3e38f, -3e38f, kNan, -kInf}).size(), 1u);
  EXPECT_EQ(Sampler({.temperature = 100}).distribution(std::vector<float>{100, -100, 0}).size(), 3u);
  EXPECT_EQ(Sampler({.top_p = 1e-9}).distribution(std::vector<float>{1, 2, 3}).size(), 1u);
  EXPECT_EQ(Sampler({.top_k = 1}).sample(std::vector<float>{1, 2, 3}), 2);
  EXPECT_EQ(Sampler({.min_p = 1}).distribution(std::vector<float>{1, 3, 3}).size(), 2u);
  EXPECT_THROW(Sampler({}).sample(std::vector<float>{kNan, -kInf}), UserError);
}

TEST(Sampler, RefusesOptionsByName) {
  const auto refused = [](const SamplerOptions& o, const std::string& field) {
    try {
      Sampler sampler(o);
      ADD_FAILURE() << field << " was accepted";
    } catch (const UserError& e) {
      EXPECT_EQ(e.parts().field, field);
    }
  };
  refused({.temperature = -1}, "temperature");
  refused({.temperature = std::nan("")}, "temperature");
  refused({.temperature = 100.5}, "temperature");
  refused({.top_k = -1}, "top_k");
  refused({.top_p = 0}, "top_p");
  refused({.top_p = 1.01}, "top_p");
  refused({.typical_p = 0}, "typical_p");
  refused({.typical_p = 1.01}, "typical_p");
  refused({.presence_penalty = 100.5}, "presence_penalty");
  refused({.frequency_penalty = std::nan("")}, "frequency_penalty");
  refused({.logit_bias = {{-1, 1.0f}}}, "logit_bias");
  refused({.logit_bias = {{1, kInf}}}, "logit_bias");
  SamplerOptions many;
  for (int32_t i = 0; i <= 4096; ++i) many.logit_bias[i] = 1;
  refused(many, "logit_bias");
  refused({.min_p = -0.1}, "min_p");
  refused({.min_p = 1.1}, "min_p");
  refused({.repetition_penalty = 0}, "repetition_penalty");
  refused({.repetition_penalty = 100.5}, "repetition_penalty");
}

}  // namespace
}  // namespace fathom::infer::test
