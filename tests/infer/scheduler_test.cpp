// The scheduler piece by piece: prefixes, samples, order, ends, dials and callbacks.
#include "infer/scheduler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>

#include "core/error.h"
#include "scheduler_support.h"

namespace fathom::infer::test {
namespace {

TEST(Scheduler, APromptReadBeforeIsNotReadAgain) {
  const Model model = small(3);
  Engine engine(model.weights, {.threads = 1});
  Scheduler scheduler(engine, {.prefix_tokens = 4096});
  Random random(3);
  const Request first = plain(model, 130, 5, random);
  std::vector<Generated> texts;
  const auto ask = [&](Request r) {
    r.on_finish = [&](size_t, Generated&& text) { texts.push_back(std::move(text)); };
    scheduler.submit(r);
    int64_t rows = 0;
    while (!scheduler.idle()) rows += scheduler.step().rows;
    return rows;
  };
  EXPECT_EQ(ask(first), 135);
  EXPECT_EQ(ask(first), 135 - 128);
  Request longer = first;  // the conversation goes on: what was answered is known as well
  longer.prompt.insert(longer.prompt.end(), texts[0].ids.begin(), texts[0].ids.end());
  longer.prompt.resize(150, 1);
  EXPECT_EQ(ask(longer), 155 - 135);
  Request other = first;
  other.prompt[100] = (other.prompt[100] + 1) % static_cast<int32_t>(model.config.vocab_size);
  EXPECT_EQ(ask(other), 135 - 64);
  Request exact = first;  // one token must be read for what follows it
  exact.prompt.resize(128);
  EXPECT_EQ(ask(exact), 133 - 64);
  Request dial = first;
  dial.policies[0].policy.thresholds[0] = 0.5;
  EXPECT_EQ(ask(dial), 135);
  EXPECT_EQ(texts[0].ids, texts[1].ids);
  const std::vector<int64_t> cached = {0, 128, 135, 64, 64, 0};
  for (size_t i = 0; i < cached.size(); ++i) EXPECT_EQ(texts[i].cached_tokens, cached[i]) << i;
  EXPECT_EQ(scheduler.stats().cached_tokens, 128 + 135 + 64 + 64);
}

TEST(Scheduler, SamplesShareTheirPrompt) {
  const Model model = small(5);
  Engine engine(model.weights, {.threads = 1});
  Scheduler scheduler(engine);
  Random random(5);
  Request r = plain(model, 100, 1, random);
  r.samples = 8;
  r.sampling.temperature = 5;
  std::vector<int32_t> ids;
  r.on_finish = [&](size_t sample, Generated&& text) {
    EXPECT_EQ(sample, ids.size());
    ids.push_back(text.ids.at(0));
  };
  scheduler.submit(r);
  int64_t rows = 0;
  while (!scheduler.idle()) rows += scheduler.step().rows;
  EXPECT_EQ(rows, 100 + 8);
  EXPECT_EQ(ids.size(), 8u);
  EXPECT_GT(std::set<int32_t>(ids.begin(), ids.end()).size(), 1u);
  // 100 positions are 6 full pages and a last one, which seven of the eight copy before they write on.
  EXPECT_EQ(engine.pool().peak_pages(), (7 + 7) * model.config.num_hidden_layers);
}

TEST(Scheduler, WhoComesFirstAndWhoMattersMoreGoesFirst) {
  const Model model = small(7);
  Engine engine(model.weights, {.threads = 1});
  Random random(7);
  std::string order;
  const auto send = [&](Scheduler& scheduler, char name, int64_t priority) {
    Request r = plain(model, 10, 5, random);
    r.priority = priority;
    r.on_finish = [&order, name](size_t, Generated&&) { order += name; };
    return scheduler.submit(r);
  };
  const auto finish = [](Scheduler& s) {
    while (!s.idle()) s.step();
  };
  {
    Scheduler one_by_one(engine, {.max_texts = 1});
    for (const char name : {'a', 'b', 'c'}) send(one_by_one, name, 0);
    send(one_by_one, 'd', 2);
    finish(one_by_one);
    EXPECT_EQ(order, "dabc");
  }
  order.clear();
  {
    // Important requests without end; the unimportant one is not forgotten: it rises by one every ten steps.
    Scheduler scheduler(engine, {.max_texts = 1, .aging_steps = 10});
    send(scheduler, 'x', 0);
    for (int i = 0; i < 40 && order.find('x') == std::string::npos; ++i) {
      send(scheduler, '.', 3);
      for (int step = 0; step < 6; ++step) scheduler.step();
    }
    EXPECT_NE(order.find('x'), std::string::npos) << order;
    EXPECT_GT(order.find('x'), 3u) << order;
  }
}

TEST(Scheduler, LogProbsComeWithTheirTokens) {
  const Model model = small(6);
  Engine engine(model.weights, {.threads = 1});
  Scheduler scheduler(engine);
  Random random(6);
  Request r = plain(model, 12, 6, random);
  r.sampling.temperature = 1.3;
  r.log_probs = 3;
  r.samples = 2;
  const std::vector<int32_t> prompt = r.prompt;
  std::map<size_t, std::vector<LogProbs>> told;
  r.on_token = [&](const TokenEvent& e) { return told[e.prompt].push_back(*e.log_probs), true; };
  int texts = 0;
  r.on_finish = [&](size_t sample, Generated&& text) {
    ++texts;
    ASSERT_EQ(text.log_probs.size(), 6u);
    ASSERT_EQ(told[sample].size(), 6u);
    std::vector<int32_t> all = prompt;
    all.insert(all.end(), text.ids.begin(), text.ids.end());
    Engine other(model.weights, {.threads = 1});
    const Reading reading = read(other, all, RoutingPolicy::full(model.config));
    for (size_t i = 0; i < 6; ++i) {
      const auto V = static_cast<size_t>(model.config.vocab_size);
      const LogProbs expected = log_probs(std::span(reading.logits).subspan((prompt.size() - 1 + i) * V, V), text.ids[i], 3);
      for (const LogProbs& found : {text.log_probs[i], told[sample][i]}) {
        EXPECT_EQ(found.chosen, expected.chosen);
        EXPECT_EQ(found.top, expected.top);
      }
    }
  };
  scheduler.submit(r);
  while (!scheduler.idle()) scheduler.step();
  EXPECT_EQ(texts, 2);
  r.log_probs = 129;
  EXPECT_THROW(scheduler.submit(r), UserError);
}

TEST(Scheduler, ADeadlineEndsAText) {
  const Model model = small(9);
  Engine engine(model.weights, {.threads = 1});
  double now = 100;
  Scheduler scheduler(engine, {.max_texts = 1, .clock = [&] { return now; }});
  Random random(9);
  std::vector<std::pair<Finish, size_t>> ends;
  for (const double deadline : {105.0, 104.0}) {  // the second never gets its turn
    Request r = plain(model, 4, 30, random);
    r.deadline = deadline;
    r.on_finish = [&](size_t, Generated&& text) { ends.emplace_back(text.finish, text.ids.size()); };
    scheduler.submit(r);
  }
  for (; !scheduler.idle(); now += 1) scheduler.step();
  // Steps at 100 (the prompt), 101 to 104 (a token each).
  EXPECT_EQ(ends, (std::vector<std::pair<Finish, size_t>>{{Finish::deadline, 0}, {Finish::deadline, 4}}));
  EXPECT_EQ(now, 106);
  EXPECT_EQ(engine.pool().pages_in_use(), 0);
}

TEST(Scheduler, ADialChangesOnTheWay) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const Model model = small(seed + 100);
    Engine engine(model.weights, {.threads = 1});
    Scheduler scheduler(engine);
    Random random(seed);
    Request r = plain(model, 20, 20, random);
    const RoutingPolicy later = RoutingPolicy::causal(model::random_thresholds(model.config, random));
    Generated out;
    int told = 0;
    RequestId id = 0;
    r.on_token = [&](const TokenEvent&) {
      if (++told == 7) scheduler.set_policy(id, later);
      return true;
    };
    r.on_finish = [&](size_t, Generated&& text) { out = std::move(text); };
    Request expected = r;
    expected.policies.push_back({27, later});
    id = scheduler.submit(r);
    while (!scheduler.idle()) scheduler.step();
    const Alone lone = alone(engine, expected, 0);
    EXPECT_EQ(out.ids, lone.ids);
    EXPECT_EQ(out.decisions.run, lone.decisions.run);
  }
}

// How much of the prompt was read by then, or was kept of an earlier text, changes nothing.
TEST(Scheduler, ADialThatChangesBeforeThePromptIsReadBeginsBehindIt) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const Model model = small(seed + 300);
    Engine engine(model.weights, {.threads = 1});
    Random random(seed);
    Request r = plain(model, 150, 10, random);
    r.policies.push_back({70, RoutingPolicy::causal(model::random_thresholds(model.config, random))});
    const RoutingPolicy later = RoutingPolicy::causal(model::random_thresholds(model.config, random));
    Request expected = r;
    expected.policies.push_back({150, later});
    const Alone lone = alone(engine, expected, 0);
    for (const bool kept : {false, true})
      for (const int steps : {0, 1, 2}) {
        Scheduler scheduler(engine, {.prefill_chunk = 48, .prefix_tokens = 1024});
        if (kept) {
          scheduler.submit(r);
          while (!scheduler.idle()) scheduler.step();
        }
        Generated out;
        int told = 0;
        Request again = r;
        again.on_token = [&](const TokenEvent&) { return ++told; };
        again.on_finish = [&](size_t, Generated&& text) { out = std::move(text); };
        const RequestId id = scheduler.submit(again);
        for (int i = 0; i < steps; ++i) scheduler.step();
        if (told > 0) continue;
        scheduler.set_policy(id, later);
        while (!scheduler.idle()) scheduler.step();
        EXPECT_EQ(out.ids, lone.ids) << seed << kept << steps;
        EXPECT_EQ(out.decisions.run, lone.decisions.run) << seed << kept << steps;
      }
  }
}

// Some logits that are no numbers, by a bias that the model's own numbers cannot outweigh: the text fails, its neighbour does not.
TEST(Scheduler, ATextThatFailsFailsAlone) {
  const Model model = small(17);
  Engine engine(model.weights, {.threads = 1});
  Scheduler scheduler(engine, {.prefix_tokens = 256});
  Random random(17);
  Request bad = plain(model, 70, 5, random);
  bad.samples = 2;
  bad.sampling.temperature = 1;
  for (int32_t id = 1; id < model.config.vocab_size; ++id) bad.sampling.logit_bias[id] = -INFINITY;
  bad.sampling.logit_bias[0] = -3e38f;
  bad.sampling.frequency_penalty = bad.sampling.presence_penalty = 2;
  bad.sampling.repetition_penalty = 2;
  bad.prompt[3] = 0;  // seen, so that the penalty doubles its −3e38
  Request good = plain(model, 4, 5, random);
  const Alone expected = alone(engine, good, 0);
  std::vector<int32_t> ids;
  int failed = 0;
  good.on_finish = [&](size_t, Generated&& text) { ids = text.ids; };
  bad.on_finish = [&](size_t, Generated&& text) {
    EXPECT_EQ(text.finish, Finish::failed);
    EXPECT_TRUE(text.ids.empty());
    try {
      std::rethrow_exception(text.error);
    } catch (const UserError& e) {
      failed += std::string(e.what()).find("no finite logit") != std::string::npos;
    }
  };
  scheduler.submit(good);
  scheduler.submit(bad);
  while (!scheduler.idle()) scheduler.step();
  EXPECT_EQ(failed, 2);
  EXPECT_EQ(ids, expected.ids);
  scheduler.forget_prefixes();
  EXPECT_EQ(engine.pool().pages_in_use(), 0);
  for (auto& [id, bias] : bad.sampling.logit_bias) bias = -INFINITY;
  EXPECT_THROW(scheduler.submit(bad), UserError);
}

// No memory for a step: its texts fail, whoever comes later does not.
TEST(Scheduler, AForwardThatThrowsFailsItsTexts) {
  static bool full = false;
  kernels::Kernels some = kernels::chosen();
  static void (*const norm)(const float*, int64_t, int64_t, int64_t, const float*, float, float*, int64_t) = some.rms_norm;
  some.rms_norm = [](const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, float eps, float* y, int64_t y_stride) {
    if (full) throw std::bad_alloc();
    norm(x, x_stride, rows, width, weight, eps, y, y_stride);
  };
  const Model model = small(23);
  Engine engine(model.weights, {.threads = 1, .kernels = &some});
  Scheduler scheduler(engine, {.prefix_tokens = 256});
  Random random(23);
  const Request r = plain(model, 70, 5, random);
  const Alone expected = alone(engine, r, 0);
  int failed = 0, right = 0;
  const auto send = [&] {
    Request one = r;
    one.on_finish = [&](size_t, Generated&& text) {
      if (text.finish != Finish::failed) {
        right += text.ids == expected.ids;
        return;
      }
      try {
        std::rethrow_exception(text.error);
      } catch (const std::bad_alloc&) {
        ++failed;
      }
    };
    scheduler.submit(one);
  };
  send(), send();
  for (int step = 0; step < 3; ++step) scheduler.step();
  full = true;
  scheduler.step();
  full = false;
  EXPECT_EQ(failed, 2);
  EXPECT_TRUE(scheduler.idle());
  send();
  while (!scheduler.idle()) scheduler.step();
  EXPECT_EQ(right, 1);
  scheduler.forget_prefixes();
  EXPECT_EQ(engine.pool().pages_in_use(), 0);
}

// A token whose scores are no numbers, guessed but never chosen: each of those that the text does without in turn. The text stays what it is.
TEST(Scheduler, AGuessThatFailsIsButAGuess) {
  int64_t wrong = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Random random(seed);
    model::ModelConfig config = model::random_config(random, {.max_blocks = 3, .max_width = 16});
    config.routing.units = {{0, 0.5}};
    config.routing.rule = routing::CausalRule::score;
    config.routing.forced_positions = 0;
    config.tie_word_embeddings = false;
    config.vocab_size = 12;
    config.eos_token_ids.clear(), config.bos_token_id.reset(), config.pad_token_id.reset();
    const Model model(config, seed);
    Engine sound(model.weights, {.threads = 1});
    Request r = plain(model, 4, 8, random);
    const Alone expected = alone(sound, r, 0);
    r.speculation = Speculation{.draft = RoutingPolicy::causal({std::numeric_limits<float>::infinity()}), .repeats = false, .most = 8, .always = true};
    for (int32_t id = 0; id < config.vocab_size; ++id) {
      if (std::ranges::count(r.prompt, id) + std::ranges::count(expected.ids, id) > 0) continue;
      model::Weights tensors = model.tensors;
      for (int64_t i = 0; i < config.hidden_size; ++i) tensors["model.embed_tokens.weight"][static_cast<size_t>(id * config.hidden_size + i)] = std::numeric_limits<float>::quiet_NaN();
      Engine engine(Weights::from(config, tensors), {.threads = 1});
      Scheduler scheduler(engine);
      Generated out;
      Request guessed = r;
      guessed.on_finish = [&](size_t, Generated&& text) { out = std::move(text); };
      scheduler.submit(guessed);
      while (!scheduler.idle()) scheduler.step();
      ASSERT_EQ(out.ids, expected.ids) << seed << " " << id;
      wrong += out.guessed - out.guessed_right;
    }
  }
  EXPECT_GT(wrong, 200);
}

// A router of NaN: the step is read, its texts fail one by one, and the scheduler goes on.
TEST(Scheduler, ADamagedModelFailsItsTexts) {
  Random random(19);
  model::ModelConfig config = model::random_config(random, {.max_blocks = 3, .max_width = 16, .max_vocabulary = 30});
  config.routing.units = {{0, 0.5}};
  config.routing.rule = routing::CausalRule::score;
  const Model model(config, 19);
  model::Weights tensors = model.tensors;
  tensors["model.layers.0.router.weight"][0] = std::numeric_limits<float>::quiet_NaN();
  Engine engine(Weights::from(config, tensors), {.threads = 1});
  Scheduler scheduler(engine, {.prefix_tokens = 256});
  for (int again = 0; again < 2; ++again) {
    int failed = 0;
    for (int text = 0; text < 2; ++text) {
      Request r = plain(model, 70, 5, random);
      r.on_finish = [&](size_t, Generated&& g) { failed += g.finish == Finish::failed; };
      scheduler.submit(r);
    }
    while (!scheduler.idle()) scheduler.step();
    EXPECT_EQ(failed, 2);
    EXPECT_EQ(engine.pool().pages_in_use(), 0);
    EXPECT_EQ(scheduler.prefixes().snapshots(), 0);
  }
}

TEST(Scheduler, CallbacksMaySubmitCancelAndThrow) {
  const Model model = small(11);
  Engine engine(model.weights, {.threads = 1});
  Scheduler scheduler(engine);
  Random random(11);
  Request second = plain(model, 4, 3, random);
  int ended = 0;
  second.on_finish = [&](size_t, Generated&& text) { ended += text.finish == Finish::length ? 10 : 1000; };
  Request first = plain(model, 4, 3, random);
  first.on_finish = [&](size_t, Generated&&) { ++ended, scheduler.submit(second); };
  scheduler.submit(first);
  Request bad = plain(model, 4, 30, random);
  bad.on_token = [](const TokenEvent&) -> bool { throw std::runtime_error("a full disk"); };
  bad.on_finish = [&](size_t, Generated&& text) { ended += text.finish == Finish::cancelled ? 100 : 1000; };
  scheduler.submit(bad);
  int thrown = 0;
  while (!scheduler.idle()) {
    try {
      scheduler.step();
    } catch (const std::runtime_error& e) {
      EXPECT_STREQ(e.what(), "a full disk");
      ++thrown;
    }
  }
  EXPECT_EQ(thrown, 1);
  EXPECT_EQ(ended, 111);
  // A prompt that never was read has samples to tell of too.
  Request many = plain(model, 4, 3, random);
  many.samples = 3;
  std::vector<size_t> cancelled;
  many.on_finish = [&](size_t sample, Generated&& text) {
    EXPECT_EQ(text.finish, Finish::cancelled);
    cancelled.push_back(sample);
  };
  const RequestId id = scheduler.submit(many);
  scheduler.cancel(id);
  scheduler.cancel(id);
  scheduler.cancel(12345);
  EXPECT_EQ(cancelled, (std::vector<size_t>{0, 1, 2}));
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(scheduler.step().rows, 0);
}

}  // namespace
}  // namespace fathom::infer::test
