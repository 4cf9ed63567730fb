// Paths beside skip and full: parts of a block decided apart, light paths, exits and static units. The law for every combination of
// them, what they cost, and what must come to the same.
#include <algorithm>
#include <limits>

#include "core/error.h"
#include "model/cost.h"
#include "plain_model.h"
#include "support.h"

namespace fathom::infer::test {
namespace {

using routing::KvPolicy;
using routing::Part;
using routing::Paths;
using routing::RoutedUnit;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Four blocks, of which 1 and 3 are routed so.
model::ModelConfig shape(uint64_t seed, const std::vector<Part>& parts, const Paths& paths) {
  Random random(seed);
  model::ModelConfig c = model::random_config(random, {.max_width = 40, .max_heads = 4, .max_feed_forward = 50, .max_vocabulary = 60});
  c.num_hidden_layers = 4, c.hidden_size = std::max<int64_t>(c.hidden_size, 8), c.intermediate_size = std::max<int64_t>(c.intermediate_size, 8);
  c.routing.units.clear();
  for (const int block : {1, 3})
    for (const Part part : parts) {
      RoutedUnit unit{.block = block, .capacity = 0.3, .part = part, .paths = paths, .light_rank = paths.light ? 1 : 0};
      if (paths.light && (paths.skip || paths.exit)) unit.light_capacity = 0.3;
      if (paths.skip && paths.exit) unit.skip_capacity = 0.2;
      c.routing.units.push_back(unit);
    }
  return c;
}

std::string words(const model::ModelConfig& c) { return c.routing.to_json().dump(); }

// Everything the law says about one text under one policy.
void expect_law(const Model& model, std::span<const int32_t> tokens, const RoutingPolicy& policy, std::span<const int32_t> other, const RoutingPolicy& other_policy) {
  Engine engine(model.weights, {.threads = 1});
  const auto V = static_cast<size_t>(model.config.vocab_size);
  const Reading cached = read(engine, tokens, policy, 1);
  for (size_t t = 1; t <= tokens.size(); t += 3) {
    const Reading full = read(engine, tokens.first(t), policy);
    ASSERT_TRUE(same_bits(std::span(full.logits).last(V), std::span(cached.logits).subspan((t - 1) * V, V))) << "token " << t - 1;
  }
  for (const int64_t chunk : {0, 5}) expect_same(read(engine, tokens, policy, chunk), cached, str("chunks of ", chunk));
  Sequence ahead = engine.new_sequence(), beside = engine.new_sequence();
  const WorkItem first{.sequence = &ahead, .tokens = other.first(7), .policy = &other_policy};
  engine.forward({&first, 1});
  const WorkItem both[] = {{.sequence = &ahead, .tokens = other.subspan(7), .policy = &other_policy},
                           {.sequence = &beside, .tokens = tokens, .policy = &policy, .logits = Logits::all}};
  Reading together;
  together.append(engine.forward(both), 1);
  expect_same(together, cached, "in a batch");
  for (const kernels::Isa isa : kernels::available())
    for (const int threads : {1, 2}) {
      Engine again(model.weights, {.threads = threads, .kernels = &kernels::kernels_for(isa)});
      expect_same(read(again, tokens, policy, 9), cached, str(kernels::isa_name(isa), ", threads ", threads));
    }
}

TEST(Paths, TheLawHoldsForEveryCombination) {
  const std::vector<Part> granularities[] = {{Part::block}, {Part::attention}, {Part::mlp}, {Part::attention, Part::mlp}};
  const Paths path_sets[] = {{.skip = true, .light = false}, {.skip = false, .light = true}, {.skip = true, .light = true}};
  int64_t took[3] = {}, exits = 0;
  uint64_t seed = 7000;
  for (const std::vector<Part>& parts : granularities)
    for (Paths paths : path_sets)
      for (const bool exit : {false, true})
        for (const KvPolicy kv : {KvPolicy::drop, KvPolicy::keep})
          for (const bool with_static : {false, true}) {
            paths.exit = exit;
            model::ModelConfig config = shape(++seed, parts, paths);
            config.routing.kv = kv;
            if (with_static) {  // block 2, or a part of it, is light or skipped by all
              const Part part = std::vector<Part>{Part::block, Part::attention, Part::mlp}[seed % 3];
              const bool light = seed % 2 == 0;
              config.routing.units.insert(config.routing.units.begin() + static_cast<std::ptrdiff_t>(parts.size()),
                                          RoutedUnit{.block = 2, .capacity = 0, .part = part, .paths = {.exit = false, .skip = !light, .light = light, .full = false}, .light_rank = light});
            }
            config.validate("a combination");
            const Model model(config, seed);
            SCOPED_TRACE(words(config));
            Random random(seed);
            const std::vector<int32_t> tokens = model::random_tokens(config, 25, random), other = model::random_tokens(config, 19, random);
            std::vector<float> thresholds;  // a unit's around its middle: every path is taken
            for (const RoutedUnit& unit : config.routing.units)
              for (size_t cut = 0; cut < unit.cuts(); ++cut) thresholds.push_back(static_cast<float>(0.7 * (static_cast<double>(cut) - (unit.paths.exit ? 1.2 : 0.5))));
            const RoutingPolicy policy = RoutingPolicy::causal(thresholds);
            expect_law(model, tokens, policy, other, drawn_policy(config, 19, random));
            Engine engine(model.weights, {.threads = 1, .kernels = &kernels::kernels_for(kernels::Isa::reference)});
            // The same numbers as the mathematics, the same operations as the cost model.
            const int64_t before = kernels::reference_multiply_adds();
            const Reading reading = read(engine, tokens, policy);
            EXPECT_EQ(kernels::reference_multiply_adds() - before, model::forward_cost(config, 25, reading.decisions, 25).total());
            const PlainResult plain = plain_forward(config, model.tensors, tokens, reading.decisions);
            for (size_t t = 0; t < tokens.size(); ++t)
              for (int64_t v = 0; v < config.vocab_size; ++v)
                ASSERT_NEAR(reading.logits[t * static_cast<size_t>(config.vocab_size) + static_cast<size_t>(v)], plain.logits[t][static_cast<size_t>(v)], 2e-4) << "token " << t;
            for (const auto& run : reading.decisions.run)
              for (const uint8_t path : run) ++took[path];
            // Whoever exits at the first unit goes the cheapest way from there on.
            for (size_t t = 0; exit && t < tokens.size(); ++t)
              if (static_cast<int64_t>(t) >= config.routing.forced_positions && !(reading.decisions.score[0][t] >= thresholds[0])) {
                ++exits;
                for (size_t u = 0; u < config.routing.units.size(); ++u)
                  EXPECT_EQ(reading.decisions.run[u][t], static_cast<uint8_t>(config.routing.units[u].cheapest())) << "token " << t << ", unit " << u;
              }
            if (HasFailure()) return;
          }
  EXPECT_EQ(seed, 7096u);
  for (const int64_t n : took) EXPECT_GT(n, 1000);
  EXPECT_GT(exits, 100);
}

// What was decided is all that matters: the same decisions imposed give the same bits, exits included.
TEST(Paths, DecisionsReplayToTheBit) {
  for (uint64_t seed = 7100; seed < 7100 + cases(30); ++seed) {
    const Model model = Model::drawn(seed);
    Random random(seed);
    Engine engine(model.weights, {.threads = 1});
    const std::vector<int32_t> tokens = model::random_tokens(model.config, 30, random);
    const Reading decided = read(engine, tokens, RoutingPolicy::causal(model::random_thresholds(model.config, random)));
    expect_same(read(engine, tokens, RoutingPolicy::given(decided.decisions), 4), decided, model.describe());
  }
}

// Matrices of zeros add nothing, so light is skip.
TEST(Paths, ALightPathOfNothingIsSkip) {
  for (uint64_t seed = 7200; seed < 7200 + cases(24); ++seed) {
    const std::vector<Part> parts = seed % 3 == 0 ? std::vector<Part>{Part::block} : seed % 3 == 1 ? std::vector<Part>{Part::attention, Part::mlp} : std::vector<Part>{Part::mlp};
    model::ModelConfig light = shape(seed, parts, {.skip = false, .light = true}), skip = light;
    for (RoutedUnit& unit : skip.routing.units) unit.paths = {}, unit.light_rank = 0;
    model::Weights tensors = model::random_weights(light, seed);
    for (auto& [name, values] : tensors)
      if (name.ends_with("light.up.weight")) std::ranges::fill(values, 0.0f);
    Random random(seed);
    const std::vector<int32_t> tokens = model::random_tokens(light, 25, random);
    const RoutingPolicy policy = RoutingPolicy::causal(model::random_thresholds(light, random));
    Engine a(Weights::from(light, tensors), {.threads = 1}), b(Weights::from(skip, tensors), {.threads = 1});
    const Reading one = read(a, tokens, policy), other = read(b, tokens, policy);
    EXPECT_TRUE(same_bits(one.logits, other.logits)) << words(light);
    for (size_t u = 0; u < one.decisions.run.size(); ++u)
      for (size_t t = 0; t < tokens.size(); ++t) EXPECT_EQ(one.decisions.run[u][t] == 1, other.decisions.run[u][t] == 1);
  }
}

// One decision about a block, or the same one about each of its parts, where the gate is 1.
TEST(Paths, PartsThatAgreeAreTheBlock) {
  for (uint64_t seed = 7300; seed < 7300 + cases(20); ++seed) {
    model::ModelConfig whole = shape(seed, {Part::block}, {}), parts = shape(seed, {Part::attention, Part::mlp}, {});
    whole.routing.gate = parts.routing.gate = routing::Gate::hard;
    model::Weights tensors = model::random_weights(whole, seed);
    for (const auto& [name, values] : model::random_weights(parts, seed)) tensors.emplace(name, values);
    Random random(seed);
    const std::vector<int32_t> tokens = model::random_tokens(whole, 25, random);
    const routing::Decisions decisions = model::random_decisions(whole, 25, random);
    routing::Decisions twice;
    for (const auto& run : decisions.run) twice.run.insert(twice.run.end(), {run, run});
    Engine a(Weights::from(whole, tensors), {.threads = 1}), b(Weights::from(parts, tensors), {.threads = 1});
    EXPECT_TRUE(same_bits(read(a, tokens, RoutingPolicy::given(decisions)).logits, read(b, tokens, RoutingPolicy::given(twice)).logits)) << words(whole);
  }
}

TEST(Paths, WhatIsNotRunIsNotRead) {
  model::ModelConfig config = shape(7400, {Part::attention, Part::mlp}, {.skip = false, .light = true});
  config.routing.kv = KvPolicy::drop, config.routing.forced_positions = 0;
  config.routing.units = {config.routing.units[0], config.routing.units[1],
                          {.block = 2, .capacity = 0, .part = Part::attention, .paths = {.skip = false, .light = true, .full = false}, .light_rank = 2},
                          {.block = 3, .capacity = 0, .part = Part::block, .paths = {.skip = true, .full = false}}};
  config.validate("here");
  const Model model(config, 7400);
  Random random(1);
  const std::vector<int32_t> tokens = model::random_tokens(config, 16, random);
  const auto& blocks = model.weights->blocks();
  const auto& units = model.weights->units();
  const auto attention = [&](size_t b) { return blocks[b].q.bytes() + blocks[b].k.bytes() + blocks[b].v.bytes() + blocks[b].o.bytes(); };
  const auto mlp = [&](size_t b) { return blocks[b].gate.bytes() + blocks[b].up.bytes() + blocks[b].down.bytes(); };
  const auto light = [&](size_t u) { return units[u].light_down.bytes() + units[u].light_up.bytes(); };
  EXPECT_EQ(attention(2), 0);  // static units have no weights of their own
  EXPECT_EQ(attention(3) + mlp(3), 0);
  const int64_t predictors = units[0].predictor_fc1.bytes() + units[1].predictor_fc1.bytes();
  const int64_t always = attention(0) + mlp(0) + light(2) + mlp(2) + predictors + model.weights->head().bytes();
  Engine engine(model.weights, {.threads = 1});
  const auto counted = [&](const RoutingPolicy& policy) {
    const EngineCounters before = engine.counters();
    read(engine, tokens, policy);
    EngineCounters after = engine.counters();
    after.weight_bytes -= before.weight_bytes;
    for (size_t b = 0; b < 4; ++b) after.block_rows[b] -= before.block_rows[b], after.kv_slots[b] -= before.kv_slots[b];
    for (size_t u = 0; u < 4; ++u) after.unit_rows[u] -= before.unit_rows[u];
    return after;
  };
  using Counts = std::vector<int64_t>;
  EngineCounters c = counted(RoutingPolicy::causal({-kInfinity, kInfinity}));
  EXPECT_EQ(c.weight_bytes, always + attention(1) + light(1));
  EXPECT_EQ(c.unit_rows, (Counts{16, 0, 0, 0}));
  EXPECT_EQ(c.block_rows, (Counts{16, 0, 0, 0}));
  EXPECT_EQ(c.kv_slots, (Counts{16, 16, 0, 0}));
  c = counted(RoutingPolicy::causal({kInfinity, -kInfinity}));
  EXPECT_EQ(c.weight_bytes, always + light(0) + mlp(1));
  EXPECT_EQ(c.unit_rows, (Counts{0, 16, 0, 0}));
  EXPECT_EQ(c.kv_slots, (Counts{16, 0, 0, 0}));
  c = counted(RoutingPolicy::full(config));
  EXPECT_EQ(c.weight_bytes, always + attention(1) + mlp(1));
  EXPECT_EQ(c.block_rows, (Counts{16, 16, 0, 0}));
}

TEST(Paths, WhatAUnitDoesNotHaveCannotBeImposed) {
  const model::ModelConfig config = shape(7500, {Part::block}, {});
  const Model model(config, 7500);
  Engine engine(model.weights, {.threads = 1});
  const std::vector<int32_t> tokens = {1};
  routing::Decisions decisions{.run = {{2}, {0}}, .score = {}};
  EXPECT_THROW(read(engine, tokens, RoutingPolicy::given(decisions)), std::logic_error);
  decisions.run = {{0}, {3}};
  EXPECT_THROW(read(engine, tokens, RoutingPolicy::given(decisions)), std::logic_error);
}

}  // namespace
}  // namespace fathom::infer::test
