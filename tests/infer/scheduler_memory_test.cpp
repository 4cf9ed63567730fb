// Who gets memory, in what order, and that what a check accepts is enough.
#include <gtest/gtest.h>

#include "core/error.h"
#include "scheduler_support.h"

namespace fathom::infer::test {
namespace {

// A limit that its own check accepts is enough, whatever snapshots of the text itself take of it.
TEST(Scheduler, ATextAloneEndsInWhatItMayNeed) {
  const Model model = small(15);
  Random random(15);
  for (const int64_t prompt : {20, 100, 105, 118, 127})
    for (const double threshold : {-1.0, 0.0, 0.2}) {
      const int64_t kv_bytes = 128 / kPagePositions * model.config.num_hidden_layers * page_bytes(model.config);
      Engine engine(model.weights, {.threads = 1, .kv_bytes = kv_bytes});
      Scheduler scheduler(engine, {.prefill_chunk = 64, .prefix_tokens = 4096});
      std::vector<int32_t> said;
      Request first = plain(model, prompt - 12, 6, random);
      for (float& t : first.policies[0].policy.thresholds) t = static_cast<float>(threshold);
      const std::vector<PolicyFrom> policies = first.policies;
      first.on_finish = [&](size_t, Generated&& text) { said = text.ids; };
      const auto finish = [&] {
        int steps = 0;
        while (!scheduler.idle()) {
          scheduler.step();
          ASSERT_LT(++steps, 200) << prompt << " " << threshold;
        }
      };
      scheduler.submit(first);
      finish();
      Request second = plain(model, 6, 128 - prompt, random);  // goes on from where the first ended, up to the limit
      second.policies = policies;
      second.prompt.insert(second.prompt.begin(), said.begin(), said.end());
      second.prompt.insert(second.prompt.begin(), first.prompt.begin(), first.prompt.end());
      bool ended = false;
      second.on_finish = [&](size_t, Generated&& text) { ended = std::ssize(text.ids) == 128 - prompt; };
      scheduler.submit(second);
      finish();
      EXPECT_TRUE(ended);
      EXPECT_EQ(scheduler.stats().preemptions, 0);
    }
}

// Two samples of a prompt shorter than a page, with exactly the memory of two: one writes on in the page that both hold, one copies it.
TEST(Scheduler, TheWorstCaseIsEnough) {
  const Model model = small(16);
  Random random(16);
  for (const int64_t prompt : {3, 10, 15}) {
    Engine engine(model.weights, {.threads = 1, .kv_bytes = 2 * model.config.num_hidden_layers * page_bytes(model.config)});
    Scheduler scheduler(engine, {.admit_worst_case = true});
    Request r = plain(model, prompt, kPagePositions - prompt, random);
    r.samples = 2;
    r.sampling.temperature = 2;
    r.speculation = Speculation{.draft = r.policies[0].policy, .repeats = false, .most = 8, .always = true};
    int ended = 0;
    r.on_finish = [&](size_t, Generated&& text) { ended += std::ssize(text.ids) == kPagePositions - prompt; };
    scheduler.submit(r);
    while (!scheduler.idle()) scheduler.step();
    EXPECT_EQ(ended, 2);
    EXPECT_EQ(scheduler.stats().preemptions, 0);
    r.samples = 3;
    EXPECT_THROW(scheduler.submit(r), UserError);
  }
}

// Whoever is put back for want of memory ages by its waiting alone, not by its attempts.
TEST(Scheduler, AttemptsDoNotAge) {
  const Model model = small(21);
  const int64_t pages = 64 / kPagePositions * model.config.num_hidden_layers;
  Engine engine(model.weights, {.threads = 1, .kv_bytes = pages * page_bytes(model.config)});
  Scheduler scheduler(engine, {.max_texts = 3, .overcommit = 8, .aging_steps = 10});
  Random random(21);
  std::string order;
  const auto send = [&](char name, int64_t prompt, int64_t new_tokens, int64_t priority) {
    Request r = plain(model, prompt, new_tokens, random);
    r.priority = priority;
    r.on_finish = [&order, name](size_t, Generated&&) { order += name; };
    scheduler.submit(r);
  };
  send('a', 4, 60, 0);
  for (int i = 0; i < 40; ++i) scheduler.step();
  send('b', 60, 4, 0);  // its prompt does not fit beside what the first holds
  for (int i = 0; i < 15; ++i) scheduler.step();
  send('c', 60, 4, 3);
  while (!scheduler.idle()) scheduler.step();
  EXPECT_EQ(order, "acb");
}

TEST(Scheduler, RefusesWhatCouldNeverFit) {
  const Model model = small(13);
  const int64_t L = model.config.num_hidden_layers;
  Engine engine(model.weights, {.threads = 1, .kv_bytes = 4 * L * page_bytes(model.config)});
  Scheduler scheduler(engine, {.max_texts = 2});
  Random random(13);
  scheduler.submit(plain(model, 40, 24, random));
  const auto refused = [&](const Request& r, const std::string& what) {
    try {
      scheduler.submit(r);
      ADD_FAILURE() << what << " was accepted";
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
    }
  };
  refused(plain(model, 40, 25, random), "a text of 65 tokens");
  refused(plain(model, 40, 25, random), str("give --kv-memory ", 5 * L * page_bytes(model.config), " or more"));
  Request r = plain(model, 4, 4, random);
  r.samples = 3;
  refused(r, "samples");
  r.samples = 1;
  r.prompt[2] = static_cast<int32_t>(model.config.vocab_size);
  refused(r, "prompt");
  while (!scheduler.idle()) scheduler.step();
  EXPECT_EQ(scheduler.stats().finished, 1);
}

}  // namespace
}  // namespace fathom::infer::test
