// What guesses save, and that they change nothing; scheduler_trace_test.cpp's traces show the latter among everything else that may happen.
#include <gtest/gtest.h>

#include <cmath>

#include "scheduler_support.h"

namespace fathom::infer::test {
namespace {

struct Written : Generated {
  SchedulerStats stats;
};

Written written(Engine& engine, Request request, const SchedulerOptions& options = {}) {
  Scheduler scheduler(engine, options);
  Written out;
  request.on_finish = [&](size_t, Generated&& text) { static_cast<Generated&>(out) = std::move(text); };
  scheduler.submit(std::move(request));
  while (!scheduler.idle()) scheduler.step();
  out.stats = scheduler.stats();
  return out;
}

const SchedulerOptions kUnclocked{.clock = [] { return 0.0; }};  // steps have the prices of which nothing is known yet

// A thousand prompts of a hundred models: drafts at a low dial, out of the text itself, and both; priced, and whether they pay or not.
TEST(Speculation, GreedyTextsAreTheSame) {
  int64_t guessed = 0, right = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    const Model model = small(seed, true);
    Engine engine(model.weights, {.threads = 1});
    Random random(seed);
    for (int prompt = 0; prompt < 10; ++prompt) {
      Request r = plain(model, 1 + static_cast<int64_t>(random.below(20)), 24, random);
      const Generated alone = written(engine, r);
      r.speculation = Speculation{.repeats = prompt % 4 != 1, .most = 1 + static_cast<int64_t>(random.below(8)), .same = 1, .always = prompt % 5 != 4};
      if (prompt % 2) r.speculation->draft = RoutingPolicy::causal(model::random_thresholds(model.config, random));
      const Generated text = written(engine, r);
      ASSERT_EQ(text.ids, alone.ids) << seed << " " << prompt;
      ASSERT_EQ(text.decisions.run, alone.decisions.run);
      guessed += text.guessed, right += text.guessed_right;
    }
  }
  EXPECT_GT(right, 1000);
  EXPECT_GT(guessed - right, 1000);
}

// Of two tokens, sampled with guesses in between, against the probabilities that the model gives them: chi-square over the second, the
// rarest together.
TEST(Speculation, SamplingKeepsTheDistribution) {
  const Model model = small(12);
  const auto V = static_cast<size_t>(model.config.vocab_size);
  Engine engine(model.weights, {.threads = 1});
  Random random(12);
  Request r = plain(model, 5, 3, random);
  r.sampling.temperature = 1.5;
  const RoutingPolicy policy = r.policies[0].policy;
  const auto next = [&](const std::vector<int32_t>& tokens) {  // [V]
    const Reading reading = read(engine, tokens, policy);
    std::vector<double> p(V);
    for (const Sampler::Candidate& c : Sampler(r.sampling).distribution(std::span(reading.logits).last(V))) p[static_cast<size_t>(c.id)] = c.probability;
    return p;
  };
  std::vector<double> expected(V), found(V);
  const std::vector<double> first = next(r.prompt);
  for (size_t id = 0; id < V; ++id) {
    std::vector<int32_t> tokens = r.prompt;
    tokens.push_back(static_cast<int32_t>(id));
    const std::vector<double> second = next(tokens);
    for (size_t other = 0; other < V; ++other) expected[other] += first[id] * second[other];
  }
  // A draft of its own thresholds: often wrong, often right.
  r.speculation = Speculation{.draft = RoutingPolicy::causal(model::random_thresholds(model.config, random)), .repeats = false, .most = 2, .always = true};
  constexpr int kTexts = 6000;
  int64_t guessed = 0, right = 0;
  for (int text = 0; text < kTexts; ++text) {
    r.stream = static_cast<uint64_t>(text);
    const Generated out = written(engine, r);
    found[static_cast<size_t>(out.ids.at(1))] += 1;
    guessed += out.guessed, right += out.guessed_right;
  }
  EXPECT_GT(right, kTexts / 10);
  EXPECT_GT(guessed - right, kTexts / 10);
  double square = 0, rare = 0, rare_found = 0;
  int bins = 0;
  for (size_t id = 0; id < V; ++id) {
    if (expected[id] * kTexts < 10) {
      rare += expected[id] * kTexts, rare_found += found[id];
      continue;
    }
    square += std::pow(found[id] - expected[id] * kTexts, 2) / (expected[id] * kTexts), ++bins;
  }
  if (rare >= 10) square += std::pow(rare_found - rare, 2) / rare, ++bins;
  ASSERT_GT(bins, 8);
  EXPECT_LT(square, bins - 1 + 4 * std::sqrt(2.0 * (bins - 1)));  // four standard deviations
}

TEST(Speculation, AsManyAreGuessedAsPay) {
  const Model model = small(8);
  Engine engine(model.weights, {.threads = 1});
  Random random(8);
  Request r = plain(model, 10, 120, random);
  r.speculation = Speculation{.draft = r.policies[0].policy, .draft_cost = 0.2, .repeats = false};
  const Generated cheap = written(engine, r, kUnclocked);
  EXPECT_EQ(cheap.guessed, cheap.guessed_right);
  EXPECT_GT(cheap.guessed, 60);
  r.speculation->draft_cost = 1;
  EXPECT_EQ(written(engine, r, kUnclocked).guessed, 0) << "a draft as dear as the text";
  r.sampling.temperature = 5;
  r.sampling.seed = 3;
  r.speculation = Speculation{.same = 1};  // what followed an equal token before: rarely right among so many
  const Generated wrong = written(engine, r, kUnclocked);
  EXPECT_LT(wrong.guessed_right * 4, wrong.guessed);
  EXPECT_LT(wrong.guessed, 60) << "of 120 tokens";
}

// A repetition is taken where there is one, the draft elsewhere.
TEST(Speculation, RepetitionAndDraftTakeTurns) {
  const Model model = small(8);
  Engine engine(model.weights, {.threads = 1});
  Random random(8);
  Request r = plain(model, 10, 60, random);
  r.speculation = Speculation{.draft = r.policies[0].policy, .most = 4, .always = true};
  const Written out = written(engine, r);
  EXPECT_GT(out.stats.draft_rows, 0);
  EXPECT_GT(out.guessed, out.stats.draft_rows) << "some were free";
}

// Guesses under the text's own policy are all right, sampled or not; the more so the more are made at once.
TEST(Speculation, GuessesSaveSteps) {
  const Model model = small(8);
  Engine engine(model.weights, {.threads = 1});
  Random random(8);
  for (const double temperature : {0.0, 1.0}) {
    Request r = plain(model, 10, 60, random);
    r.sampling.temperature = temperature;
    const Written alone = written(engine, r);
    EXPECT_EQ(alone.stats.steps, 61);
    r.speculation = Speculation{.draft = r.policies[0].policy, .repeats = false, .most = 8, .always = true};
    const Written text = written(engine, r);
    const SchedulerStats& stats = text.stats;
    EXPECT_EQ(text.ids, alone.ids);
    EXPECT_EQ(text.decisions.run, alone.decisions.run);
    EXPECT_EQ(stats.guessed, stats.guessed_right);
    EXPECT_EQ(text.guessed, stats.guessed);
    EXPECT_GT(stats.guessed, 45);
    // Every round is its guesses, each a step of the draft, and one check that yields one token more.
    EXPECT_EQ(stats.draft_rows, stats.guessed);
    EXPECT_LT(stats.steps - stats.draft_rows, 16);
  }
}

TEST(Speculation, ATextThatRepeatsItselfIsGuessed) {
  const Model model = small(10);
  Engine engine(model.weights, {.threads = 1});
  Random random(10);
  Request r = plain(model, 4, 100, random);
  r.sampling.logit_bias = {{1, 40.0f}};  // the same token over and over
  r.speculation.emplace();
  const Written out = written(engine, r, kUnclocked);
  EXPECT_EQ(out.ids, std::vector<int32_t>(100, 1));
  EXPECT_GT(out.guessed_right, 70);
  EXPECT_LT(out.stats.steps, 30);
  EXPECT_EQ(out.stats.draft_rows, 0);
}

}  // namespace
}  // namespace fathom::infer::test
