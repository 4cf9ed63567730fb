// The forward against the mathematics in double precision; what it costs, to the integer; what it refuses.
#include <cmath>
#include <functional>
#include <limits>

#include "core/error.h"
#include "model/cost.h"
#include "plain_model.h"
#include "routing/select.h"
#include "support.h"

namespace fathom::infer::test {
namespace {

TEST(Forward, ComputesTheMathematics) {
  for (uint64_t seed = 1; seed <= 120; ++seed) {
    const Model model = Model::drawn(seed, {.dense = seed % 6 == 0, .paths = true, .adapters = true});
    SCOPED_TRACE(model.describe());
    Random random(seed);
    const std::vector<int32_t> tokens = model::random_tokens(model.config, 30, random);
    const RoutingPolicy policy = RoutingPolicy::given(model::random_decisions(model.config, 30, random));
    Engine engine(model.weights, {.threads = 1});
    const Reading ours = read(engine, tokens, policy);
    EXPECT_EQ(ours.decisions.run, policy.imposed->run);
    const PlainResult plain = plain_forward(model.config, model.tensors, tokens, *policy.imposed);
    double worst = 0;
    for (size_t t = 0; t < tokens.size(); ++t)
      for (int64_t v = 0; v < model.config.vocab_size; ++v)
        worst = std::max(worst, std::abs(ours.logits[t * model.config.vocab_size + v] - plain.logits[t][v]));
    EXPECT_LT(worst, 2e-4);  // a raw gate multiplies rounding as it multiplies the delta
    for (size_t r = 0; r < plain.decision.size(); ++r)
      for (size_t t = 0; t < tokens.size(); ++t) EXPECT_NEAR(ours.decisions.score[r][t], plain.decision[r][t], 2e-4);
    if (HasFailure()) return;
  }
}

// The paths of one token at all units, by the words of routing/unit.h: the dearest path whose cut is reached, exits remembered.
std::vector<uint8_t> paths_by(const routing::RoutingConfig& routing, bool forced, const std::function<bool(size_t unit, size_t cut)>& reached) {
  std::vector<uint8_t> out;
  bool exited = false;
  size_t cut = 0;
  for (size_t u = 0; u < routing.units.size(); ++u) {
    const routing::Paths& paths = routing.units[u].paths;
    const uint8_t least = paths.light && !paths.skip ? 2 : 0;
    int path = paths.exit ? -1 : least;
    if (paths.exit && paths.skip && reached(u, cut++)) path = 0;
    if (paths.light && (paths.exit || paths.skip) && reached(u, cut)) path = 2;
    cut += paths.light && paths.full && (paths.exit || paths.skip);
    if (paths.full && reached(u, cut)) path = 1;
    cut += paths.full;
    if (paths.full && forced) path = 1;
    exited = exited || path < 0;
    out.push_back(exited ? least : static_cast<uint8_t>(path));
  }
  EXPECT_EQ(cut, routing.cuts());
  return out;
}

TEST(Forward, PoliciesDecideAsTheySay) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const Model model = Model::drawn(seed + 1000);
    SCOPED_TRACE(model.describe());
    Random random(seed);
    const routing::RoutingConfig& routing = model.config.routing;
    const std::vector<int32_t> tokens = model::random_tokens(model.config, 50, random);
    Engine engine(model.weights, {.threads = 1});
    const std::vector<float> thresholds = model::random_thresholds(model.config, random);
    const Reading causal = read(engine, tokens, RoutingPolicy::causal(thresholds));
    const Reading control = read(engine, tokens, RoutingPolicy::control(model.config));
    const Reading teacher = read(engine, tokens, RoutingPolicy::teacher(model.config));
    const std::vector<double> capacity = routing.capacities();
    std::vector<double> left;  // [units] of the control's tokens, after exits before it
    size_t cut = 0;
    double now = 1;
    for (const routing::RoutedUnit& unit : routing.units) {
      left.push_back(now);
      if (unit.paths.exit) now = std::min(now, capacity[cut]);
      cut += unit.cuts();
    }
    for (int64_t t = 0; t < 50; ++t) {
      const bool forced = t < routing.forced_positions;
      const std::vector<uint8_t> by_score = paths_by(routing, forced, [&](size_t u, size_t c) { return causal.decisions.score[u][t] >= thresholds[c]; });
      const std::vector<uint8_t> by_hash = paths_by(routing, forced, [&](size_t u, size_t c) {
        const int64_t key = routing.units[u].block + (routing.units[u].part == routing::Part::mlp ? int64_t{1} << 32 : 0);
        return routing::random_score(routing.random_seed, key, t) * left[u] < capacity[c];
      });
      for (size_t u = 0; u < routing.units.size(); ++u) {
        EXPECT_EQ(causal.decisions.run[u][t], by_score[u]) << "unit " << u << ", token " << t;
        EXPECT_EQ(control.decisions.run[u][t], by_hash[u]) << "unit " << u << ", token " << t;
      }
    }
    if (routing.exits()) continue;  // the teacher's exits hang on each other
    // The teacher picks by the router's score, whatever the causal rule reads.
    const PlainResult plain = plain_forward(model.config, model.tensors, tokens, teacher.decisions);
    for (size_t r = 0; r < routing.units.size(); ++r) {
      double least_in = 1e9, greatest_out = -1e9;
      for (int64_t t = routing.forced_positions; t < 50; ++t) {
        if (teacher.decisions.run[r][t] == 1) least_in = std::min(least_in, plain.router[r][t]);
        else greatest_out = std::max(greatest_out, plain.router[r][t]);
      }
      if (!routing.units[r].is_static()) {
        EXPECT_GT(least_in, greatest_out - 1e-4);
      }
    }
    if (HasFailure()) return;
  }
}

TEST(Forward, ANanScoreNeverRuns) {
  Random random(5);
  model::ModelConfig config = model::random_config(random);
  config.routing.units = {{0, 1.0}};
  config.routing.forced_positions = 0;
  config.routing.rule = routing::CausalRule::score;
  model::Weights tensors = model::random_weights(config, 5);
  tensors["model.layers.0.router.weight"][0] = std::numeric_limits<float>::quiet_NaN();
  Engine engine(Weights::from(config, tensors), {.threads = 1});
  const std::vector<int32_t> tokens = {1, 2, 3};
  EXPECT_EQ(read(engine, tokens, RoutingPolicy::full(config)).decisions.run[0], std::vector<uint8_t>(3, 0));
}

// Counted by the reference kernels' own loops.
TEST(Forward, MultiplyAddsAreTheCostModelsToTheInteger) {
  for (uint64_t seed = 1; seed <= 80; ++seed) {
    const Model model = Model::drawn(seed + 2000, {.dense = seed % 8 == 0, .paths = true, .adapters = true});
    SCOPED_TRACE(model.describe());
    Random random(seed);
    Engine engine(model.weights, {.threads = seed % 2 ? 1 : 2, .kernels = &kernels::kernels_for(kernels::Isa::reference)});
    const int64_t T = 1 + static_cast<int64_t>(random.below(60));
    const std::vector<int32_t> tokens = model::random_tokens(model.config, T, random);
    const RoutingPolicy policy = drawn_policy(model.config, T, random);
    for (int64_t chunk : {0, 1, 9}) {
      const int64_t before = kernels::reference_multiply_adds();
      const Reading reading = read(engine, tokens, policy, chunk);
      EXPECT_EQ(kernels::reference_multiply_adds() - before,
                model::forward_cost(model.config, T, reading.decisions, T).total()) << "chunks of " << chunk;
    }
    // A prompt: one row of the head.
    Sequence sequence = engine.new_sequence();
    const WorkItem item{.sequence = &sequence, .tokens = tokens, .policy = &policy};
    const int64_t before = kernels::reference_multiply_adds();
    const StepResult result = engine.forward({&item, 1});
    EXPECT_EQ(kernels::reference_multiply_adds() - before, model::forward_cost(model.config, T, result.decisions_of(0), 1).total());
    if (HasFailure()) return;
  }
}

TEST(Forward, SkippingSkips) {
  Random random(9);
  model::ModelConfig config = model::random_config(random);
  config.num_hidden_layers = 4;
  config.routing.units = {{1, 0.5}, {3, 0.5}};
  config.routing.forced_positions = 0;
  config.routing.kv = routing::KvPolicy::drop;
  const Model model(config, 9);
  const std::vector<int32_t> tokens = model::random_tokens(config, 32, random);
  const float inf = std::numeric_limits<float>::infinity();
  Engine engine(model.weights, {.threads = 1});
  read(engine, tokens, RoutingPolicy::causal({inf, -inf}));
  EXPECT_EQ(engine.counters().block_rows, (std::vector<int64_t>{32, 0, 32, 32}));
  EXPECT_EQ(engine.counters().kv_slots, (std::vector<int64_t>{32, 0, 32, 32}));
  EXPECT_EQ(engine.counters().rows, 32);
  EXPECT_EQ(engine.counters().head_rows, 32);
  EXPECT_EQ(engine.counters().steps, 1);
}

TEST(Forward, LossesAreThoseOfTheLogits) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const Model model = Model::drawn(seed + 3000);
    Random random(seed);
    Engine engine(model.weights, {.threads = 1});
    const std::vector<int32_t> tokens = model::random_tokens(model.config, 20, random);
    std::vector<int32_t> targets(tokens.begin() + 1, tokens.end());
    targets.push_back(-1);
    const RoutingPolicy policy = RoutingPolicy::full(model.config);
    const Reading reading = read(engine, tokens, policy);
    for (Logits logits : {Logits::none, Logits::last, Logits::all}) {
      Sequence sequence = engine.new_sequence();
      const WorkItem item{.sequence = &sequence, .tokens = tokens, .policy = &policy, .logits = logits, .targets = targets};
      const StepResult result = engine.forward({&item, 1});
      ASSERT_EQ(result.nll.size(), 20u);
      EXPECT_TRUE(std::isnan(result.nll[19]));
      EXPECT_EQ(result.best[19], -1);
      EXPECT_EQ(result.items[0].logits_rows, logits == Logits::none ? 0 : logits == Logits::last ? 1 : 20);
      const int64_t V = model.config.vocab_size;
      for (int64_t t = 0; t < 19; ++t) {
        const float* const row = reading.logits.data() + t * V;
        double total = 0;
        for (int64_t v = 0; v < V; ++v) total += std::exp(static_cast<double>(row[v]) - row[targets[t]]);
        EXPECT_NEAR(result.nll[t], std::log(total), 1e-5);
        EXPECT_EQ(result.best[t], std::max_element(row, row + V) - row);
      }
    }
  }
}

TEST(Forward, RefusesWhatAModelCannotRead) {
  const Model model = Model::drawn(77);
  Engine engine(model.weights, {.threads = 1});
  const RoutingPolicy policy = RoutingPolicy::full(model.config);
  Sequence sequence = engine.new_sequence();
  const auto forward = [&](std::vector<int32_t> tokens, std::vector<int32_t> targets = {}) {
    const WorkItem item{.sequence = &sequence, .tokens = tokens, .policy = &policy, .targets = targets};
    engine.forward({&item, 1});
  };
  const int32_t V = static_cast<int32_t>(model.config.vocab_size);
  forward({0, V - 1}, {V - 1, -1});
  EXPECT_THROW(forward({V}), UserError);
  EXPECT_THROW(forward({-1}), UserError);
  EXPECT_THROW(forward({0}, {V}), UserError);
  EXPECT_THROW(forward({0}, {-2}), UserError);
  const int64_t room = model.config.max_position_embeddings - 2;
  EXPECT_THROW(forward(std::vector<int32_t>(room + 1, 0)), UserError);
  EXPECT_EQ(sequence.position(), 2);
  forward(std::vector<int32_t>(room, 0));
  EXPECT_THROW(forward({0}), UserError);
  EXPECT_THROW(Engine(model.weights, {.threads = -1}), UserError);
  EXPECT_THROW(Engine(model.weights, {.threads = 1 << 20}), UserError);
  // A caller's mistakes
  EXPECT_THROW(forward({}), std::logic_error);
  const std::vector<int32_t> one = {0};
  Sequence a = engine.new_sequence();
  const WorkItem twice[] = {{.sequence = &a, .tokens = one, .policy = &policy}, {.sequence = &a, .tokens = one, .policy = &policy}};
  EXPECT_THROW(engine.forward(twice), std::logic_error);
  Engine other(model.weights, {.threads = 1});
  const WorkItem foreign{.sequence = &a, .tokens = one, .policy = &policy};
  EXPECT_THROW(other.forward({&foreign, 1}), std::logic_error);
}

TEST(Policy, DialFindsItsThresholds) {
  Model model = Model::drawn(11, {});
  model.config.routing.selection = routing::Selection::topk;
  Random random(11);
  const routing::DialTable table = model::random_dial(model.config, random);
  EXPECT_EQ(RoutingPolicy::at_dial(model.config, table).thresholds, table.thresholds(table.default_dial));
  EXPECT_EQ(RoutingPolicy::at_dial(model.config, table, 0.7).thresholds, table.thresholds(0.7));
  EXPECT_EQ(RoutingPolicy::at_dial(model.config, {}, 1.0).thresholds, RoutingPolicy::full(model.config).thresholds);
  EXPECT_THROW(RoutingPolicy::at_dial(model.config, {}), UserError);
  EXPECT_THROW(RoutingPolicy::at_dial(model.config, {}, 0.5), UserError);
  EXPECT_THROW(RoutingPolicy::at_dial(model.config, table, 1.5), UserError);
  const Model dense = Model::drawn(12, {.dense = true});
  EXPECT_TRUE(RoutingPolicy::at_dial(dense.config, {}).thresholds.empty());
  EXPECT_TRUE(RoutingPolicy::at_dial(dense.config, {}, 1.0).thresholds.empty());
  EXPECT_THROW(RoutingPolicy::at_dial(dense.config, {}, 0.5), UserError);
}

TEST(Policy, AModelOfRandomSelectionRunsAsItsOwnControl) {
  Model model = Model::drawn(11, {});
  model.config.routing.selection = routing::Selection::random;
  Random random(11);
  routing::DialTable table = model::random_dial(model.config, random);
  table.default_dial = 0.432109876;
  const RoutingPolicy control = RoutingPolicy::control(model.config);
  for (const auto& policy : {RoutingPolicy::at_dial(model.config, table), RoutingPolicy::at_dial(model.config, {}),
                             RoutingPolicy::at_dial(model.config, table, 0.432)}) {  // as `fathom eval` prints it
    EXPECT_EQ(policy.rule, Rule::random);
    EXPECT_EQ(policy.capacity, control.capacity);
    EXPECT_EQ(policy.seed, model.config.routing.random_seed);
  }
  EXPECT_EQ(RoutingPolicy::at_dial(model.config, table, 1.0).thresholds, RoutingPolicy::full(model.config).thresholds);
  EXPECT_EQ(RoutingPolicy::at_dial(model.config, table, 1.0).rule, Rule::causal);
  for (const std::optional<routing::DialTable>& t : {std::optional(table), std::optional<routing::DialTable>()})
    try {
      RoutingPolicy::at_dial(model.config, t, 0.7);
      FAIL();
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("pick tokens at random"), std::string::npos) << e.what();
    }
}

}  // namespace
}  // namespace fathom::infer::test
