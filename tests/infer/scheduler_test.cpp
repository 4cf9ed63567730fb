// Whatever else runs, is cancelled, loses its memory or was read before by others: a text is what it is alone.
#include "infer/scheduler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>

#include "core/error.h"
#include "scheduler_support.h"

namespace fathom::infer::test {
namespace {

// A text alone, token by token, by nothing but the engine and a sampler.
struct Alone {
  std::vector<int32_t> ids;
  routing::Decisions decisions;
  Finish finish = Finish::length;
};

const RoutingPolicy& policy_at(const std::vector<PolicyFrom>& policies, int64_t position) {
  size_t i = 0;
  while (i + 1 < policies.size() && policies[i + 1].position <= position) ++i;
  return policies[i].policy;
}

Alone alone(Engine& engine, const Request& r, uint64_t sample) {
  Alone out;
  Sequence sequence = engine.new_sequence();
  Sampler sampler(r.sampling, r.stream + sample);
  sampler.observe(r.prompt);
  std::vector<int32_t> tokens = r.prompt;
  while (true) {
    const WorkItem item{.sequence = &sequence, .tokens = std::span(tokens).subspan(static_cast<size_t>(sequence.position()), 1),
                        .policy = &policy_at(r.policies, sequence.position())};
    const StepResult result = engine.forward({&item, 1});
    result.append_decisions(0, out.decisions);
    if (sequence.position() < static_cast<int64_t>(tokens.size())) continue;
    if (static_cast<int64_t>(out.ids.size()) == r.max_new_tokens) break;
    if (sequence.position() == engine.config().max_position_embeddings) {
      out.finish = Finish::context_full;
      break;
    }
    const int32_t id = sampler.sample(result.logits_of(0));
    if (std::find(r.stop_ids.begin(), r.stop_ids.end(), id) != r.stop_ids.end()) {
      out.finish = Finish::stop_id;
      break;
    }
    tokens.push_back(id);
    out.ids.push_back(id);
  }
  return out;
}

// One trace: arrivals, chunk sizes, cancellations, samples, changed dials, prefix hits, memory taken away.
struct Trace {
  Model model;
  Random random;
  KvType kv;
  int64_t page_limit = 0, limit_tokens = 0;  // that limit() draws
  Engine engine;
  std::vector<RoutingPolicy> dials;
  std::vector<std::vector<int32_t>> beginnings;
  struct Sent {
    Request request;
    std::map<size_t, Generated> texts;
    std::map<size_t, std::vector<int32_t>> told;
    bool cancelled = false;
  };
  std::map<RequestId, Sent> sent;
  int64_t steps = 0, preemptions = 0, cached = 0, cancellations = 0, forks = 0, guessed = 0, right = 0, changed = 0, refused = 0, late = 0;

  explicit Trace(uint64_t seed)
      : model(small(seed, true)), random(seed ^ 0x77), kv(kv_of(random.below(4))), engine(model.weights, {.threads = 1, .kv_bytes = limit(), .kv_type = kv}) {
    for (int i = 0; i < 3; ++i) dials.push_back(i == 2 && random.uniform() < 0.3 ? RoutingPolicy::control(model.config)
                                                                                 : RoutingPolicy::causal(model::random_thresholds(model.config, random)));
    for (int i = 0; i < 2; ++i) beginnings.push_back(model::random_tokens(model.config, 150, random));
  }

  int64_t limit() {
    if (random.uniform() < 0.4) return 0;
    // Exactly what one text of some length may need, up to what two of the longest may.
    const int64_t most = model.config.max_position_embeddings;
    limit_tokens = 24 + static_cast<int64_t>(random.below(static_cast<uint64_t>(2 * most - 24)));
    page_limit = (limit_tokens + kPagePositions - 1) / kPagePositions * (model.config.num_hidden_layers - model.config.silent_blocks());
    return page_limit * page_bytes(model.config, kv) + 1;
  }

  Request drawn() {
    Request r;
    const std::vector<int32_t>& beginning = beginnings[random.below(beginnings.size())];
    r.prompt.assign(beginning.begin(), beginning.begin() + static_cast<std::ptrdiff_t>(random.below(beginning.size() + 1)));
    const std::vector<int32_t> own = model::random_tokens(model.config, 1 + static_cast<int64_t>(random.below(20)), random);
    r.prompt.insert(r.prompt.end(), own.begin(), own.end());
    r.policies = {{0, dials[random.below(dials.size())]}};
    if (random.uniform() < 0.3) r.policies.push_back({1 + static_cast<int64_t>(random.below(r.prompt.size() + 10)), dials[random.below(dials.size())]});
    r.sampling.temperature = random.uniform() < 0.3 ? 0 : 1.5;
    r.sampling.repetition_penalty = random.uniform() < 0.3 ? 1.3 : 1;
    r.sampling.seed = random.below(3);
    r.stream = random.below(3);
    if (random.uniform() < 0.3) r.samples = 2 + static_cast<int64_t>(random.below(2));
    r.max_new_tokens = 1 + static_cast<int64_t>(random.below(40));
    if (page_limit > 0 && random.uniform() < 0.5) {  // a text that needs the limit to the page, where it is a small one
      const int64_t room = limit_tokens - std::ssize(r.prompt);
      if (room >= 1 && room <= 80) r.max_new_tokens = room;
    }
    for (int i = 0; i < 3 && random.uniform() < 0.2; ++i)
      r.sampling.logit_bias[static_cast<int32_t>(random.below(static_cast<uint64_t>(model.config.vocab_size - 1)))] = random.uniform() < 0.5 ? -INFINITY : 2.0f;
    if (random.uniform() < 0.1) r.deadline = static_cast<double>(random.below(200));
    if (random.uniform() < 0.3) r.stop_ids = model::random_tokens(model.config, 1, random);
    r.priority = static_cast<int64_t>(random.below(3));
    if (random.uniform() < 0.4) {
      r.speculation.emplace();
      if (random.uniform() < 0.6) r.speculation->draft = random.uniform() < 0.5 ? dials[0] : r.policies[0].policy;
      r.speculation->most = 1 + static_cast<int64_t>(random.below(6));
      r.speculation->same = 1 + static_cast<int64_t>(random.below(3));
    }
    return r;
  }

  void run() {
    const int64_t texts = 3 + static_cast<int64_t>(random.below(5));
    SchedulerOptions options{.step_rows = texts + 1 + static_cast<int64_t>(random.below(60)), .prefill_chunk = 1 + static_cast<int64_t>(random.below(70)),
                             .max_texts = texts, .prefix_tokens = random.uniform() < 0.3 ? 0 : static_cast<int64_t>(random.below(700)),
                             .admit_worst_case = random.uniform() < 0.2, .overcommit = 1 + 4 * random.uniform(), .aging_steps = 1 + static_cast<int64_t>(random.below(50)),
                             .clock = [this] { return static_cast<double>(steps); }};
    Scheduler scheduler(engine, options);
    const int64_t requests = 3 + static_cast<int64_t>(random.below(6));
    const auto submit = [&] {
      Request request = drawn();
      const int64_t tokens = std::min<int64_t>(std::ssize(request.prompt) + request.max_new_tokens, model.config.max_position_embeddings);
      if (page_limit > 0 && (options.admit_worst_case ? request.samples : 1) * engine.kv_bytes_for(tokens) > engine.pool().byte_limit()) {
        EXPECT_THROW(scheduler.submit(request), UserError);
        ++refused;
        return;
      }
      // Known once submitted; no callback comes before the step.
      auto id = std::make_shared<RequestId>(0);
      const bool cancels = random.uniform() < 0.05;
      // A text of one sample may change its dial: which token is the first is known to its callback.
      const size_t changes = request.samples == 1 && random.uniform() < 0.3 ? 1 + random.below(8) : 0;
      const RoutingPolicy later = dials[random.below(dials.size())];
      request.on_token = [this, id, cancels, changes, later, &scheduler](const TokenEvent& e) {
        Sent& s = sent.at(*id);
        s.told[e.prompt].push_back(e.id);
        if (cancels && s.told[e.prompt].size() == 3) scheduler.cancel(*id), s.cancelled = true;
        if (changes == s.told[e.prompt].size()) {
          std::erase_if(s.request.policies, [&](const PolicyFrom& p) { return p.position > e.position; });
          s.request.policies.push_back({e.position + 1, later});
          scheduler.set_policy(*id, later);
          ++changed;
        }
        return true;
      };
      request.on_finish = [this, id](size_t sample, Generated&& text) { EXPECT_TRUE(sent.at(*id).texts.emplace(sample, std::move(text)).second); };
      Request copy = request;
      *id = scheduler.submit(std::move(request));
      sent[*id].request = std::move(copy);
    };
    while (static_cast<int64_t>(sent.size()) < requests || !scheduler.idle()) {
      if (static_cast<int64_t>(sent.size()) < requests && (scheduler.idle() || random.uniform() < 0.2)) submit();
      if (!sent.empty() && random.uniform() < 0.02) {
        auto& [id, s] = *std::next(sent.begin(), static_cast<std::ptrdiff_t>(random.below(sent.size())));
        scheduler.cancel(id);
        s.cancelled = true;
      }
      const Scheduler::Step step = scheduler.step();
      ASSERT_LE(step.rows, options.step_rows);
      ASSERT_LE(scheduler.running(), texts);
      if (page_limit > 0) {
        ASSERT_LE(engine.pool().pages_in_use(), page_limit);
      }
      ASSERT_LT(++steps, 20000) << "it does not end";
    }
    if (options.admit_worst_case) {
      EXPECT_EQ(scheduler.stats().preemptions, 0);
    }
    preemptions = scheduler.stats().preemptions, cached = scheduler.stats().cached_tokens;
    guessed = scheduler.stats().guessed, right = scheduler.stats().guessed_right;
    EXPECT_EQ(scheduler.stats().submitted, requests);
    scheduler.forget_prefixes();
    EXPECT_EQ(engine.pool().pages_in_use(), 0);
    check();
  }

  void check() {
    Engine other(model.weights, {.threads = 1, .kv_type = kv});
    for (auto& [id, s] : sent) {
      ASSERT_EQ(static_cast<int64_t>(s.texts.size()), s.request.samples);
      forks += s.request.samples - 1;
      for (auto& [sample, text] : s.texts) {
        Alone expected = alone(other, s.request, sample);
        ASSERT_EQ(s.told[sample], text.ids);
        if (text.finish == Finish::cancelled || text.finish == Finish::deadline) {
          ASSERT_TRUE(text.finish == Finish::cancelled ? s.cancelled : s.request.deadline.has_value());
          ++(text.finish == Finish::cancelled ? cancellations : late);
          ASSERT_LE(text.ids.size(), expected.ids.size());
          expected.ids.resize(text.ids.size());
          for (auto& run : expected.decisions.run) run.resize(static_cast<size_t>(text.read_tokens));
          for (auto& score : expected.decisions.score) score.resize(static_cast<size_t>(text.read_tokens));
        } else {
          ASSERT_EQ(text.finish, expected.finish);
          ASSERT_EQ(text.read_tokens, static_cast<int64_t>(s.request.prompt.size() + text.ids.size()));
        }
        ASSERT_EQ(text.ids, expected.ids);
        if (text.read_tokens == 0) continue;
        ASSERT_EQ(text.decisions.run, expected.decisions.run);
        for (size_t r = 0; r < expected.decisions.score.size(); ++r)
          ASSERT_TRUE(same_bits(text.decisions.score[r], expected.decisions.score[r]));
      }
    }
  }
};

// FATHOM_TRACES=10000 runs as many as the engine's proof wants; every build runs some.
TEST(Scheduler, ATextIsWhatItIsAlone) {
  const char* asked = std::getenv("FATHOM_TRACES");
  const uint64_t traces = asked ? std::strtoull(asked, nullptr, 10) : 300;
  int64_t preemptions = 0, cached = 0, cancellations = 0, forks = 0, guessed = 0, right = 0, changed = 0, refused = 0, late = 0;
  for (uint64_t seed = 1; seed <= traces; ++seed) {
    Trace trace(seed);
    trace.run();
    if (HasFailure()) FAIL() << "trace " << seed << " of " << trace.model.describe();
    preemptions += trace.preemptions, cached += trace.cached, cancellations += trace.cancellations, forks += trace.forks;
    guessed += trace.guessed, right += trace.right, changed += trace.changed, refused += trace.refused, late += trace.late;
  }
  // The traces are only worth something if all of it happened.
  const int64_t n = static_cast<int64_t>(traces);
  EXPECT_GT(preemptions, n / 4);
  EXPECT_GT(cached, 10 * n);
  EXPECT_GT(cancellations, n / 20);
  EXPECT_GT(forks, n / 4);
  EXPECT_GT(right, n);
  EXPECT_GT(guessed - right, n);
  EXPECT_GT(changed, n / 2);
  EXPECT_GT(refused, n / 10);
  EXPECT_GT(late, n / 20);
  std::printf("%s\n", str(changed, " changed dials, ", refused, " refused and ", late, " late texts, ", preemptions, " preemptions, ", cached, " cached tokens, ", cancellations, " cancelled texts, ", forks, " forks, ", right, " of ", guessed, " guesses right").c_str());
}

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
