// How far two models are apart: by hand where it can be written down, against whole forwards otherwise.
#include "study/divergence.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "sample.h"

namespace fathom::study {
namespace {

TEST(Divergence, ByHand) {
  // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): Σ p ln(p/q) = ½ ln 2 + 0 + ¼ ln ½ = ¼ ln 2
  const float ln2 = std::log(2.0F);
  const std::vector<float> p = {ln2, 0, 0}, q = {0, 0, ln2};
  EXPECT_NEAR(kl_divergence(p, q), 0.25 * std::log(2.0), 1e-7);
  // The other way round by the same symmetry; with a constant on all logits nothing changes.
  EXPECT_NEAR(kl_divergence(q, p), 0.25 * std::log(2.0), 1e-7);
  const std::vector<float> shifted = {ln2 + 100, 100, 100};
  EXPECT_NEAR(kl_divergence(shifted, q), 0.25 * std::log(2.0), 1e-5);
  // It has a direction: p = (¾, ¼) and q = (½, ½) give ¾ ln 3/2 + ¼ ln ½ one way, ½ ln ⅔ + ½ ln 2 the other.
  const std::vector<float> a = {std::log(3.0F), 0}, b = {0, 0};
  EXPECT_NEAR(kl_divergence(a, b), 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-7);
  EXPECT_NEAR(kl_divergence(b, a), 0.5 * std::log(2.0 / 3) + 0.5 * std::log(2.0), 1e-7);
  EXPECT_TRUE(std::isnan(kl_divergence(std::vector<float>{NAN, 0}, b)));
}

TEST(Divergence, IsNeverBelowNothing) {
  Random random(1);
  for (int n = 0; n < 200; ++n) {
    std::vector<float> a(50), b(50);
    for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(3 * random.normal()), b[i] = a[i] + static_cast<float>(random.normal() * std::pow(10.0, -n % 7));
    EXPECT_GE(kl_divergence(a, b), -1e-15);
    EXPECT_EQ(kl_divergence(a, a), 0.0);
  }
}

class Diverge : public ::testing::TestWithParam<bool> {};

TEST_P(Diverge, AModelFromItselfIsNothing) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "m", GetParam(), 3);
  const HeldOut text = sample_text(s, 32);
  const Subject same = Subject::open(folder.path() + "/m", {.threads = 2});
  const Divergence d = diverge(s, same, text);
  EXPECT_EQ(d.kl, 0.0);
  EXPECT_EQ(d.agreement(), 1.0);
  EXPECT_EQ(d.original.nll, d.result.nll);
  EXPECT_EQ(d.tokens, text.predicted);
  // The losses and fractions are those of eval.
  const Evaluation e = evaluate(s, text, infer::Rule::causal);
  EXPECT_NEAR(d.original.nll, e.nll, 1e-6 * e.nll);
  EXPECT_NEAR(d.original.perplexity(d.tokens), e.perplexity(), 1e-5);
  EXPECT_DOUBLE_EQ(d.original.block_fraction(), e.block_fraction());
  EXPECT_EQ(d.windows, e.windows);
  EXPECT_EQ(d.context, e.context);
}

TEST_P(Diverge, IsTheSumOverTokensOfWholeForwards) {
  const TemporaryFolder folder;
  const Subject a = sample_subject(folder, "a", GetParam(), 3), b = sample_subject(folder, "b", GetParam(), 4);
  const HeldOut text = sample_text(a, 40);
  const auto policy = [](const Subject& s) { return policy_of(s, infer::Rule::causal, {}); };
  double kl = 0, nll = 0;
  int64_t agreed = 0, tokens = 0;
  std::vector<double> unit(text.units);
  for (const Window& w : text.windows) {
    infer::StepResult results[2];
    const Subject* subjects[] = {&a, &b};
    for (int i = 0; i < 2; ++i) {
      infer::Sequence sequence = subjects[i]->engine->new_sequence();
      const infer::RoutingPolicy p = policy(*subjects[i]);
      const infer::WorkItem item{.sequence = &sequence, .tokens = w.tokens, .policy = &p, .logits = infer::Logits::all};
      results[i] = subjects[i]->engine->forward({&item, 1});
    }
    for (size_t t = 0; t + 1 < w.tokens.size(); ++t) {
      const auto x = results[0].logits_of(0, static_cast<int64_t>(t)), y = results[1].logits_of(0, static_cast<int64_t>(t));
      double zx = 0, zy = 0, here = 0;
      for (size_t v = 0; v < x.size(); ++v) zx += std::exp(static_cast<double>(x[v])), zy += std::exp(static_cast<double>(y[v]));
      size_t best_x = 0, best_y = 0;
      for (size_t v = 0; v < x.size(); ++v) {
        const double p = std::exp(static_cast<double>(x[v])) / zx, q = std::exp(static_cast<double>(y[v])) / zy;
        here += p * std::log(p / q);
        if (x[v] > x[best_x]) best_x = v;
        if (y[v] > y[best_y]) best_y = v;
      }
      kl += here, unit[w.unit] += here;
      nll += std::log(zy) - y[static_cast<size_t>(w.tokens[t + 1])];
      agreed += best_x == best_y;
      ++tokens;
    }
  }
  for (const int64_t chunk : {1, 7, 64}) {
    const Divergence d = diverge(a, b, text, {}, chunk);
    EXPECT_EQ(d.tokens, tokens);
    EXPECT_NEAR(d.kl, kl, 1e-9 * kl) << chunk;
    EXPECT_NEAR(d.result.nll, nll, 1e-9 * nll) << chunk;
    EXPECT_EQ(d.agreed, agreed) << chunk;
    EXPECT_GT(d.mean_kl(), 0.01);
    EXPECT_LT(d.agreement(), 1);
    for (size_t u = 0; u < unit.size(); ++u) EXPECT_NEAR(d.units[u].nll, unit[u], 1e-9 * kl);
    const Json j = d.to_json();
    EXPECT_EQ(j["kl_divergence"]["value"], d.mean_kl());
    EXPECT_EQ(j["top1_agreement"], d.agreement());
  }
}

INSTANTIATE_TEST_SUITE_P(DenseAndRouted, Diverge, ::testing::Bool());

TEST(Divergence, StopsWhenAskedAndRefusesOtherVocabularies) {
  const TemporaryFolder folder;
  const Subject a = sample_subject(folder, "a", false, 3);
  const HeldOut text = sample_text(a, 40);
  EXPECT_THROW(diverge(a, a, text, [](int64_t, int64_t, double) { throw Interrupted("stop"); }), Interrupted);
  const Subject b = sample_subject(folder, "b", false, 3, [](model::ModelConfig& c) { c.vocab_size += 1; });
  EXPECT_THROW(diverge(a, b, text), UserError);
}

TEST(HeldOut, HalfOfTheWindowsCanBeTaken) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "m", false, 3);
  HeldOut text = sample_text(s, 20);
  const std::vector<Window> all = text.windows;
  const int64_t predicted = text.predicted;
  const std::vector<Window> taken = take_half(text);
  ASSERT_EQ(taken.size() + text.windows.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ((i % 2 == 0 ? taken : text.windows)[i / 2].tokens.data(), all[i].tokens.data());
  EXPECT_EQ(text.predicted + predicted_tokens(taken), predicted);
  const std::vector<Window> few = spread_windows(taken, 50);
  EXPECT_LE(predicted_tokens(few), 50);
  EXPECT_GT(predicted_tokens(few), 0);
  HeldOut one = cut_windows({{1, 2, 3}}, 8);
  EXPECT_THROW(take_half(one), UserError);
}

}  // namespace
}  // namespace fathom::study
