// Whatever else runs, is cancelled, loses its memory or was read before by others: a text is what it is alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include "core/error.h"
#include "quantized_model.h"
#include "scheduler_support.h"

namespace fathom::infer::test {
namespace {

// Weights of any type that a file may hold, on any ISA.
Model drawn_model(uint64_t seed) {
  Random random(seed ^ 0x3355);
  if (random.uniform() < 0.5) return small(seed, true);
  const GgmlType type = kTypes[random.below(std::size(kTypes))];
  model::ModelConfig c = small(seed, true).config;
  c.hidden_size = c.intermediate_size = formats::ggml_block_elements(type) == 256 ? 256 : 32;  // whole blocks
  c.num_attention_heads = 4, c.num_key_value_heads = 1 + static_cast<int64_t>(random.below(2)), c.head_dim = 8;
  if (!c.rope_scaling.divisors.empty()) c.rope_scaling.divisors.assign(4, 1.5f);
  for (routing::RoutedUnit& unit : c.routing.units)
    if (unit.paths.light) unit.light_rank = 4;
  Model out(c, seed);
  const auto quantised = std::make_shared<QuantizedModel>(c, seed, [type](const std::string&) { return type; });
  out.weights = std::shared_ptr<const Weights>(quantised, quantised->weights.get());
  return out;
}

const kernels::Kernels& drawn_kernels(Random& random) {
  const std::vector<kernels::Isa> all = kernels::available();
  return kernels::kernels_for(all[random.below(all.size())]);
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
      : model(drawn_model(seed)), random(seed ^ 0x77), kv(kv_of(random.below(4))),
        engine(model.weights, {.threads = random.uniform() < 0.1 ? 2 : 1, .kernels = &drawn_kernels(random), .kv_bytes = limit(), .kv_type = kv}) {
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
      r.speculation->repeats = random.uniform() < 0.7 || !r.speculation->draft;
      r.speculation->always = random.uniform() < 0.8;
      r.speculation->draft_cost = random.uniform();
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
    Engine other(model.weights, {.threads = 1, .kv_type = kv});  // by the kernels of this machine
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

}  // namespace
}  // namespace fathom::infer::test
