// What guesses save. That they change nothing is shown by scheduler_test.cpp's traces.
#include <gtest/gtest.h>

#include "scheduler_support.h"

namespace fathom::infer::test {
namespace {

// Guesses under the text's own policy are all right, sampled or not; the more so the more are made at once.
TEST(Speculation, GuessesSaveSteps) {
  const Model model = small(8);
  Engine engine(model.weights, {.threads = 1});
  Random random(8);
  for (const double temperature : {0.0, 1.0}) {
    Request r = plain(model, 10, 60, random);
    r.sampling.temperature = temperature;
    const auto run = [&](Request request) {
      Scheduler scheduler(engine);
      Generated out;
      request.on_finish = [&](size_t, Generated&& text) { out = std::move(text); };
      scheduler.submit(request);
      while (!scheduler.idle()) scheduler.step();
      return std::pair(out, scheduler.stats());
    };
    const auto [plain_text, plain_stats] = run(r);
    EXPECT_EQ(plain_stats.steps, 61);
    r.speculation = Speculation{.draft = r.policies[0].policy, .most = 8, .same = 3};
    const auto [text, stats] = run(r);
    EXPECT_EQ(text.ids, plain_text.ids);
    EXPECT_EQ(text.decisions.run, plain_text.decisions.run);
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
  Generated out;
  r.on_finish = [&](size_t, Generated&& text) { out = std::move(text); };
  Scheduler scheduler(engine);
  scheduler.submit(r);
  while (!scheduler.idle()) scheduler.step();
  EXPECT_EQ(out.ids, std::vector<int32_t>(100, 1));
  EXPECT_GT(out.guessed_right, 70);
  EXPECT_LT(scheduler.stats().steps, 30);
  EXPECT_EQ(scheduler.stats().draft_rows, 0);
}

}  // namespace
}  // namespace fathom::infer::test
