// The one law, bit for bit, over random models: how a text is cut into steps, what travels with it, how many threads
// compute it and with which instructions changes nothing.
#include <algorithm>
#include <limits>

#include "support.h"

namespace fathom::infer::test {
namespace {

using routing::CausalRule;
using routing::Gate;
using routing::KvPolicy;

constexpr Gate kGates[] = {Gate::one_plus_tanh, Gate::sigmoid, Gate::raw, Gate::hard};
constexpr CausalRule kRules[] = {CausalRule::score, CausalRule::predictor, CausalRule::router_bce};
constexpr KvPolicy kPolicies[] = {KvPolicy::drop, KvPolicy::keep};

// (a) for every gate, causal rule and kv policy
TEST(Law, CachedDecodeIsFullRecompute) {
  uint64_t seed = 100;
  for (Gate gate : kGates)
    for (CausalRule rule : kRules)
      for (KvPolicy kv : kPolicies)
        for (int trial = 0; trial < 2; ++trial) {
          Random random(++seed);
          model::ModelConfig config = model::random_config(random, {.paths = true});
          config.routing.gate = gate, config.routing.rule = rule, config.routing.kv = kv;
          if (trial == 1) add_all_properties(config);
          const Model model(config, seed);
          SCOPED_TRACE(model.describe());
          Engine engine(model.weights, {.threads = 1, .kv_type = kv_of(seed)});
          const std::vector<int32_t> tokens = model::random_tokens(config, 35, random);
          const RoutingPolicy policy = RoutingPolicy::causal(model::random_thresholds(config, random));
          const Reading cached = read(engine, tokens, policy, 1);
          for (size_t t = 1; t <= tokens.size(); ++t) {
            const Reading full = read(engine, std::span(tokens).first(t), policy);
            ASSERT_TRUE(same_bits(std::span(full.logits).last(config.vocab_size),
                                  std::span(cached.logits).subspan((t - 1) * config.vocab_size, config.vocab_size)))
                << "token " << t - 1;
            for (size_t r = 0; r < full.decisions.run.size(); ++r)
              ASSERT_TRUE(std::equal(full.decisions.run[r].begin(), full.decisions.run[r].end(), cached.decisions.run[r].begin()))
                  << "decisions up to token " << t - 1 << " in routed block " << r;
          }
        }
}

// (b)
TEST(Law, PrefillWholeIsPrefillInChunksIsTokenByToken) {
  for (uint64_t seed = 200; seed < 200 + cases(40); ++seed) {
    const Model model = Model::drawn(seed);
    SCOPED_TRACE(model.describe());
    Random random(seed);
    const std::vector<int32_t> tokens =
        model::random_tokens(model.config, std::min<int64_t>(150, model.config.max_position_embeddings), random);
    const RoutingPolicy policy = drawn_policy(model.config, static_cast<int64_t>(tokens.size()), random);
    Engine engine(model.weights, {.threads = 1, .kv_type = kv_of(seed)});
    const Reading whole = read(engine, tokens, policy);
    for (int64_t chunk : {1, 7, 64}) expect_same(read(engine, tokens, policy, chunk), whole, str("chunks of ", chunk));
    if (HasFailure()) return;
  }
}

// (c) texts of mixed lengths and policies in one batch, each cut at random
TEST(Law, ASequenceAloneIsTheSameInAnyBatch) {
  for (uint64_t seed = 300; seed < 300 + cases(30); ++seed) {
    const Model model = Model::drawn(seed);
    SCOPED_TRACE(model.describe());
    Random random(seed);
    Engine engine(model.weights, {.threads = 1, .kv_type = kv_of(seed)});
    for (size_t batch : {1, 2, 5, 16}) {
      std::vector<std::vector<int32_t>> texts;
      std::vector<RoutingPolicy> policies;
      std::vector<Sequence> sequences;
      std::vector<Reading> together(batch);
      for (size_t i = 0; i < batch; ++i) {
        texts.push_back(model::random_tokens(model.config, 1 + static_cast<int64_t>(random.below(60)), random));
        policies.push_back(drawn_policy(model.config, static_cast<int64_t>(texts[i].size()), random));
        sequences.push_back(engine.new_sequence());
      }
      while (true) {
        std::vector<WorkItem> items;
        std::vector<size_t> who;
        for (size_t i = 0; i < batch; ++i) {
          const size_t at = static_cast<size_t>(sequences[i].position()), left = texts[i].size() - at;
          if (left == 0 || random.below(4) == 0) continue;  // sometimes a sequence sits a step out
          const size_t count = random.below(2) ? 1 : 1 + random.below(left);
          items.push_back({.sequence = &sequences[i], .tokens = std::span<const int32_t>(texts[i]).subspan(at, count),
                           .policy = &policies[i], .logits = Logits::all});
          who.push_back(i);
        }
        if (!items.empty()) {
          const StepResult result = engine.forward(items);
          for (size_t i = 0; i < who.size(); ++i) together[who[i]].append(result, i);
        }
        bool done = true;
        for (size_t i = 0; i < batch; ++i) done = done && sequences[i].position() == static_cast<int64_t>(texts[i].size());
        if (done) break;
      }
      for (size_t i = 0; i < batch; ++i)
        expect_same(together[i], read(engine, texts[i], policies[i]), str("text ", i, " of ", batch));
      if (HasFailure()) return;
    }
  }
}

// (d) on every ISA, the reference among them
TEST(Law, CapacityOneWithGateOneIsTheDenseModel) {
  for (uint64_t seed = 400; seed < 400 + cases(30); ++seed) {
    Random random(seed);
    model::ModelConfig routed = model::random_config(random, {.paths = true});
    std::erase_if(routed.routing.units, [](const routing::RoutedUnit& unit) { return unit.is_static(); });
    // Gate 1 by the hard gate, or because every position is forced.
    const bool forced = seed % 2 == 0;
    if (forced) routed.routing.forced_positions = 1000;
    else routed.routing.gate = Gate::hard;
    for (auto& unit : routed.routing.units) unit.capacity = 1, unit.light_capacity = unit.skip_capacity = 0;
    model::ModelConfig dense = routed;
    dense.routing = {};
    const model::Weights tensors = model::random_weights(routed, seed);
    const std::vector<int32_t> tokens = model::random_tokens(routed, 40, random);
    for (kernels::Isa isa : kernels::available()) {
      const EngineOptions options{.threads = 1, .kernels = &kernels::kernels_for(isa), .kv_type = kv_of(seed / 2)};
      Engine a(Weights::from(routed, tensors), options), b(Weights::from(dense, tensors), options);
      const Reading full = read(b, tokens, RoutingPolicy::full(dense));
      const std::vector<float> never(routed.routing.cuts(), std::numeric_limits<float>::infinity());
      const RoutingPolicy policies[] = {forced ? RoutingPolicy::causal(never) : RoutingPolicy::full(routed),
                                        RoutingPolicy::teacher(routed), RoutingPolicy::control(routed)};
      for (const RoutingPolicy& policy : policies)
        EXPECT_TRUE(same_bits(read(a, tokens, policy).logits, full.logits)) << kernels::isa_name(isa) << " " << routed.to_json().dump();
    }
    if (HasFailure()) return;
  }
}

// Large enough that threads are really used, in decode too.
Model model_worth_threads(uint64_t seed) {
  Random random(seed);
  model::ModelConfig config = model::random_config(random);
  config.hidden_size = 253, config.intermediate_size = 650, config.num_hidden_layers = 3, config.vocab_size = 1003;
  config.num_attention_heads = 6, config.num_key_value_heads = 3, config.head_dim = 36, config.max_position_embeddings = 512;
  config.eos_token_ids.clear(), config.bos_token_id.reset(), config.pad_token_id.reset();
  config.routing.units = {{1, 0.5}, {2, 0.25}};
  add_all_properties(config);
  if (seed % 2 == 1)
    config.routing.units = {{.block = 1, .capacity = 0.3, .part = routing::Part::attention, .paths = {.light = true}, .light_rank = 24, .light_capacity = 0.3},
                            {.block = 1, .capacity = 0.6, .part = routing::Part::mlp, .paths = {.exit = true, .skip = false}},
                            {.block = 2, .capacity = 0.5, .paths = {.skip = false, .light = true}, .light_rank = 90}};
  return Model(config, seed);
}

TEST(Law, AnyNumberOfThreadsAndAnyIsaGiveTheSameBits) {
  for (uint64_t seed = 500; seed < 500 + cases(4); ++seed) {
    const Model model = model_worth_threads(seed);
    SCOPED_TRACE(model.describe());
    Random random(seed);
    const std::vector<int32_t> tokens = model::random_tokens(model.config, 200, random);
    const RoutingPolicy policy = RoutingPolicy::causal(seed % 2 == 1 ? std::vector<float>{-0.4f, 0.4f, -0.8f, 0.1f} : std::vector<float>{0.1f, -0.3f});
    Engine one(model.weights, {.threads = 1, .kernels = &kernels::kernels_for(kernels::Isa::reference), .kv_type = kv_of(seed)});
    const Reading expected = read(one, tokens, policy);
    for (const kernels::Isa isa : isas())
      for (int threads : {1, 2, 3}) {
        Engine engine(model.weights, {.threads = threads, .kernels = &kernels::kernels_for(isa), .kv_type = kv_of(seed)});
        ASSERT_EQ(engine.threads(), threads);
        expect_same(read(engine, tokens, policy, 150), expected, str(kernels::isa_name(isa), ", threads ", threads, ", prefill"));
        expect_same(read(engine, std::span(tokens).first(8), policy, 1), read(one, std::span(tokens).first(8), policy),
                    str(kernels::isa_name(isa), ", threads ", threads, ", decode"));
      }
    if (HasFailure()) return;
  }
}

TEST(Law, RandomModelsGiveTheSameBitsOnEveryIsa) {
  for (uint64_t seed = 600; seed < 600 + cases(40); ++seed) {
    const Model model = Model::drawn(seed);
    SCOPED_TRACE(model.describe());
    Random random(seed);
    const std::vector<int32_t> tokens = model::random_tokens(model.config, 50, random);
    const RoutingPolicy policy = drawn_policy(model.config, 50, random);
    Engine reference(model.weights, {.threads = 1, .kernels = &kernels::kernels_for(kernels::Isa::reference), .kv_type = kv_of(seed)});
    const Reading expected = read(reference, tokens, policy);
    for (kernels::Isa isa : kernels::available()) {
      Engine engine(model.weights, {.threads = 1, .kernels = &kernels::kernels_for(isa), .kv_type = kv_of(seed)});
      expect_same(read(engine, tokens, policy, 13), expected, kernels::isa_name(isa));
    }
    if (HasFailure()) return;
  }
}

// The teacher's view looks into the future, so it obeys one part of the law only: the batch does not matter.
TEST(Law, TheTeacherIsTheSameInAnyBatch) {
  for (uint64_t seed = 700; seed < 700 + cases(40); ++seed) {
    const Model model = Model::drawn(seed);
    Random random(seed);
    Engine engine(model.weights, {.threads = 1, .kv_type = kv_of(seed)});
    const RoutingPolicy teacher = RoutingPolicy::teacher(model.config);
    std::vector<std::vector<int32_t>> texts;
    std::vector<Sequence> sequences;
    for (int i = 0; i < 4; ++i) {
      texts.push_back(model::random_tokens(model.config, 1 + static_cast<int64_t>(random.below(60)), random));
      sequences.push_back(engine.new_sequence());
    }
    std::vector<WorkItem> items;
    for (int i = 0; i < 4; ++i)
      items.push_back({.sequence = &sequences[i], .tokens = texts[i], .policy = &teacher, .logits = Logits::all});
    const StepResult result = engine.forward(items);
    for (int i = 0; i < 4; ++i) {
      Reading together;
      together.append(result, i);
      expect_same(together, read(engine, texts[i], teacher), str("text ", i));
      // ceil(capacity · T) tokens run, the forced ones among them
      bool exits = false;  // then fewer may be left
      for (size_t u = 0; u < model.config.routing.units.size(); ++u) {
        const routing::RoutedUnit& unit = model.config.routing.units[u];
        const int64_t T = static_cast<int64_t>(texts[i].size()), forced = unit.is_static() ? 0 : std::min(T, model.config.routing.forced_positions);
        const auto picked = [&](double share) { return std::max<int64_t>(forced, static_cast<int64_t>(std::ceil(share * static_cast<double>(T) - 1e-9))); };
        const auto& run = together.decisions.run[u];
        const int64_t full = std::count(run.begin(), run.end(), 1), light = std::count(run.begin(), run.end(), 2);
        exits = exits || unit.paths.exit;
        if (!exits) {
          EXPECT_EQ(full, picked(unit.capacity)) << unit.name();
          if (unit.paths.light) EXPECT_EQ(light, (unit.paths.skip ? picked(unit.capacity + unit.light_capacity) : T) - full) << unit.name();
        }
        EXPECT_LE(full, picked(unit.capacity)) << unit.name();
      }
    }
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace fathom::infer::test
