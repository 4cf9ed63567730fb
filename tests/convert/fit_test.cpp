// Fitted light paths and routers in the engine itself: what the fit says a light path costs is what a routed model costs whose tokens
// take it, whatever the units are; and a second fit, on the stream that routing makes, brings that stream nearer to the dense one.
#include "convert/fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "convert/surgery.h"
#include "core/error.h"
#include "core/file.h"
#include "core/thread_pool.h"
#include "infer/dense_walk.h"
#include "infer/score.h"
#include "model/random_model.h"

namespace fathom::convert {
namespace {

using routing::Part;
using routing::Path;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Case {
  model::ModelConfig dense;
  model::Weights tensors;
  std::shared_ptr<const infer::Weights> weights;
  std::vector<std::vector<int32_t>> texts;
  std::vector<std::span<const int32_t>> windows;

  explicit Case(uint64_t seed, int64_t blocks = 5) {
    Random random(seed);
    do dense = model::random_config(random, {.dense = true});
    while (dense.hidden_size < 12);
    dense.num_hidden_layers = blocks;
    dense.max_position_embeddings = 64;
    tensors = model::random_weights(dense, seed);
    weights = infer::Weights::from(dense, tensors);
    for (int i = 0; i < 20; ++i) texts.push_back(model::random_tokens(dense, 20 + static_cast<int64_t>(random.below(30)), random));
    windows.assign(texts.begin(), texts.end());
  }

  // The dense tensors and those that surgery made, in an engine.
  infer::Engine engine(const Surgery& surgery) const {
    std::map<std::string, std::vector<float>> all;
    for (const model::TensorSpec& spec : model::schema(surgery.config)) {
      const auto made = surgery.made.find(spec.name);
      all[spec.name] = made == surgery.made.end() ? tensors.at(spec.name) : made->second.to_f32();
    }
    return infer::Engine(infer::Weights::from(surgery.config, all), {.threads = 1});
  }
  double loss(infer::Engine& engine, const infer::RoutingPolicy& policy) const {
    double sum = 0;
    int64_t n = 0;
    infer::score_documents(engine, windows, {.policy = policy}, [&](infer::DocumentScore&& s) {
      for (const float nll : s.nll) sum += nll, ++n;
    });
    return sum / static_cast<double>(n);
  }
};

infer::RoutingPolicy at(const model::ModelConfig& c, float threshold) { return infer::RoutingPolicy::causal(std::vector<float>(c.routing.cuts(), threshold)); }

TEST(DenseWalk, IsTheEngine) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const Case c(seed);
    infer::DenseWalk walk(c.weights, c.windows);
    infer::Engine engine(c.weights);
    double sum = 0;
    infer::score_documents(engine, c.windows, {.policy = infer::RoutingPolicy::full(c.dense)}, [&](infer::DocumentScore&& s) {
      for (const float nll : s.nll) sum += nll;
    });
    EXPECT_EQ(walk.loss_if().sum, sum);
    std::vector<float> before, between, after;
    const infer::DenseWalk::Hooks hooks{.attention = [&](const auto& rows) { between.insert(between.end(), rows.now.begin(), rows.now.end()); },
                                        .mlp = [&](const auto& rows) {
                                          before.insert(before.end(), rows.before.begin(), rows.before.end());
                                          after.insert(after.end(), rows.now.begin(), rows.now.end());
                                        }};
    std::vector<float> last;
    while (walk.block() < c.dense.num_hidden_layers) {
      before.clear(), between.clear(), after.clear();
      walk.look(hooks);
      EXPECT_TRUE(last.empty() || last == before) << "a block reads what the one before wrote";
      EXPECT_NE(before, between);
      EXPECT_NE(between, after);
      last = after;
      // A hook that undoes the block for all tokens is forgotten by a look, and not by loss_if.
      const infer::DenseWalk::Hooks undo{.attention = {}, .mlp = [](const auto& rows) { std::ranges::copy(rows.before, rows.now.begin()); }};
      EXPECT_NE(walk.loss_if(undo).sum, sum);
      EXPECT_EQ(walk.loss_if().sum, sum);
      walk.look(undo);
      if (walk.block() % 2 == 0) walk.advance();
      else walk.go_on(after);
    }
    EXPECT_EQ(walk.loss_if().sum, sum) << "at the end";
  }
}

// One unit at a time, so that the price of its light path is the difference of two whole models.
TEST(Fit, TheLossIsTheRoutedModels) {
  const std::vector<std::pair<Part, routing::Paths>> kinds = {{Part::block, {.exit = false, .skip = false, .light = true, .full = true}},
                                                              {Part::attention, {.exit = false, .skip = false, .light = true, .full = true}},
                                                              {Part::mlp, {.exit = false, .skip = false, .light = true, .full = true}},
                                                              {Part::block, {.exit = false, .skip = true, .light = false, .full = true}},
                                                              {Part::mlp, {.exit = false, .skip = true, .light = false, .full = true}},
                                                              {Part::block, {.exit = false, .skip = false, .light = true, .full = false}},
                                                              {Part::block, {.exit = false, .skip = true, .light = true, .full = true}}};
  for (uint64_t seed = 1; seed <= 3; ++seed)
    for (const auto& [part, paths] : kinds) {
      const Case c(seed + 100);
      SurgeryOptions options{.parts = {part}, .paths = paths, .light_rank = 4, .context = 32};
      (paths.full ? options.blocks : options.statics) = {2};
      options.refit = false;
      Surgery surgery = plan_surgery(c.dense, options, "dense");
      SCOPED_TRACE(str(seed, " ", surgery.config.routing.units[0].name(), " ", surgery.config.routing.units[0].paths.text()));
      fit_surgery(surgery, c.weights, c.windows, options, {.loss_tokens = 1 << 20, .threads = 2});
      ASSERT_EQ(surgery.fitted.size(), 1U);
      infer::Engine routed = c.engine(surgery), dense(c.weights, {.threads = 1});
      const double plain = c.loss(dense, infer::RoutingPolicy::full(c.dense));
      EXPECT_NEAR(c.loss(routed, at(surgery.config, kInfinity)) - plain, surgery.fitted[0].loss_increase, 2e-5);
      if (!paths.full) continue;
      EXPECT_EQ(c.loss(routed, at(surgery.config, -kInfinity)), plain) << "every token in full is the dense model to the bit";
      // Scores are the engine's.
      std::vector<float> scores;
      infer::score_documents(routed, c.windows, {.policy = at(surgery.config, -kInfinity)}, [&](infer::DocumentScore&& s) {
        for (const float score : s.decisions.score[0]) scores.push_back(score);
      });
      ASSERT_EQ(scores.size(), surgery.fitted[0].scores.size());
      const float moved = scores[5] - surgery.fitted[0].scores[5];  // the bias was moved so that the threshold is 0
      for (size_t t = 0; t < scores.size(); ++t)
        if (surgery.fitted[0].scores[t] < kInfinity) ASSERT_NEAR(scores[t] - surgery.fitted[0].scores[t], moved, 2e-3) << t;
    }
}

TEST(Fit, TheTargetIsMetAndALightPathOfFullRankExplainsMore) {
  for (const std::vector<Part>& parts : {std::vector<Part>{Part::block}, {Part::attention, Part::mlp}}) {
    const Case c(7, 6);
    double unexplained = 2;
    for (const int64_t rank : {2, 6, 12}) {
      SurgeryOptions options{.blocks = {1, 2, 3, 4}, .parts = parts, .light_rank = rank, .target = 0.8, .context = 32};
      Surgery surgery = plan_surgery(c.dense, options, "dense");
      fit_surgery(surgery, c.weights, c.windows, options, {.loss_tokens = 200, .threads = 1});
      EXPECT_NEAR(model::expected_block_fraction(surgery.config, 32, surgery.config.routing.capacities()), 0.8, 0.03);
      EXPECT_LT(surgery.fitted[0].light.unexplained, unexplained);
      unexplained = surgery.fitted[0].light.unexplained;
    }
  }
}

TEST(Fit, TheSecondFitBringsTheStreamBack) {
  int better = 0;
  double first = 0, second = 0;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const Case c(seed + 30, 8);
    SurgeryOptions options{.blocks = {1, 2, 3, 4, 5, 6}, .light_rank = 6, .target = 0.5, .lowest = 0.5, .highest = 0.5, .context = 32};
    const auto distance = [&](bool refit) {
      options.refit = refit;
      Surgery surgery = plan_surgery(c.dense, options, "dense");
      fit_surgery(surgery, c.weights, c.windows, options, {.loss_tokens = 200, .threads = 1});
      infer::Engine engine = c.engine(surgery);
      return std::abs(c.loss(engine, at(surgery.config, 0)) - [&] {
        infer::Engine dense(c.weights, {.threads = 1});
        return c.loss(dense, infer::RoutingPolicy::full(c.dense));
      }());
    };
    const double without = distance(false), with = distance(true);
    better += with < without;
    first += without, second += with;
  }
  EXPECT_GE(better, 6);
  EXPECT_LT(second, first);
}

// Beside a skip, the light path is for those alone that will take it: of the first unit, whose stream is the dense one, no map of the rank misses less
// where the weighted errors of just these tokens are added up, and one that was fitted to the skipping ones as well misses more.
TEST(Fit, TheSecondFitKnowsWhoSkips) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    const Case c(seed + 80, 4);
    SurgeryOptions options{.blocks = {1, 2}, .paths = {.exit = false, .skip = true, .light = true, .full = true}, .light_rank = 3, .target = 0.6, .lowest = 0.6, .highest = 0.6, .context = 32};
    Surgery surgery = plan_surgery(c.dense, options, "dense");
    fit_surgery(surgery, c.weights, c.windows, options, {.ridge = 1e-9, .loss_tokens = 200, .threads = 1});
    const routing::RoutedUnit& unit = surgery.config.routing.units[0];
    ASSERT_GT(unit.light_capacity, 0.0);
    std::vector<ScoreFit::Score> routers;
    for (const FittedUnit& f : surgery.fitted) routers.push_back(f.router);
    const std::vector<float> together(c.windows.size(), 0.0f), never(2, -kInfinity);
    std::vector<FittedUnit> other = surgery.fitted;
    refit_light_paths(c.weights, surgery.config.routing.units, routers, never, c.windows, together, {.ridge = 1e-9, .loss_tokens = 0, .threads = 1}, other);
    // Who takes it: the shares of the fit say so, the router's scores which. Its own order suffices.
    const int64_t C = c.dense.hidden_size;
    std::vector<float> x, delta;
    std::vector<double> score, size;
    infer::DenseWalk walk(c.weights, c.windows);
    for (int64_t block = 0; block <= 1; ++block) {
      if (block < 1) {
        walk.advance();
        continue;
      }
      walk.look({.attention = {}, .mlp = [&](const auto& rows) {
        for (size_t n = 0; n < rows.position.size(); ++n) {
          if (rows.position[n] < 2) continue;
          double square = 0, after = 0;
          for (int64_t i = 0; i < C; ++i) square += std::pow(rows.before[n * static_cast<size_t>(C) + static_cast<size_t>(i)], 2), after += std::pow(rows.now[n * static_cast<size_t>(C) + static_cast<size_t>(i)], 2);
          const double rms = std::sqrt(square / static_cast<double>(C) + c.dense.rms_norm_eps);
          double s = routers[0].bias;
          for (int64_t i = 0; i < C; ++i) {
            const size_t at = n * static_cast<size_t>(C) + static_cast<size_t>(i);
            x.push_back(static_cast<float>(rows.before[at] / rms)), delta.push_back(rows.now[at] - rows.before[at]);
            s += static_cast<double>(routers[0].weight[static_cast<size_t>(i)]) * x.back();
          }
          score.push_back(s), size.push_back(after / static_cast<double>(C));
        }
      }});
    }
    std::vector<double> below;
    for (const double s : score)
      if (s < 0) below.push_back(s);
    std::ranges::sort(below);
    ASSERT_GT(below.size(), 30U);
    const double skips = below[below.size() / 3];
    const auto missed = [&](const LowRankFit::Map& map, bool by_those_who_take_it) {
      ThreadPool one(1);
      const std::vector<float> light = map.apply(x, C, one);
      double sum = 0;
      for (size_t n = 0; n < score.size(); ++n)
        if (score[n] < 0 && (score[n] >= skips) == by_those_who_take_it)
          for (size_t i = n * static_cast<size_t>(C); i < (n + 1) * static_cast<size_t>(C); ++i) sum += std::pow(delta[i] - light[i], 2) / size[n];
      return sum;
    };
    EXPECT_LT(missed(surgery.fitted[0].light, true), missed(other[0].light, true)) << seed;
    EXPECT_GT(missed(surgery.fitted[0].light, false), missed(other[0].light, false)) << seed;
  }
}

TEST(Fit, StaticUnitsMakeUpForEachOther) {
  double alone = 0, together = 0;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const Case c(seed + 60, 7);
    SurgeryOptions options{.light_rank = 8, .statics = {2, 3, 4}, .context = 32};
    Surgery surgery = plan_surgery(c.dense, options, "dense");
    fit_surgery(surgery, c.weights, c.windows, options, {.loss_tokens = 0, .threads = 1});
    EXPECT_TRUE(std::isnan(surgery.fitted[0].loss_increase));
    infer::Engine chained = c.engine(surgery), dense(c.weights, {.threads = 1});
    // Each fitted as if it were the only one.
    for (size_t u = 0; u < 3; ++u) {
      SurgeryOptions one = options;
      one.statics = {static_cast<int>(2 + u)};
      Surgery single = plan_surgery(c.dense, one, "dense");
      fit_surgery(single, c.weights, c.windows, one, {.loss_tokens = 0, .threads = 1});
      for (const char* name : {"light.down.weight", "light.up.weight"}) {
        const std::string tensor = model::unit_prefix(single.config.routing.units[0]) + name;
        surgery.made.at(tensor) = single.made.at(tensor);
      }
    }
    infer::Engine apart = c.engine(surgery);
    const double plain = c.loss(dense, infer::RoutingPolicy::full(c.dense));
    together += c.loss(chained, infer::RoutingPolicy::full(surgery.config)) - plain;
    alone += c.loss(apart, infer::RoutingPolicy::full(surgery.config)) - plain;
  }
  EXPECT_LT(together, alone);
}

// Stopped in either pass and between them, a fit goes on with the units that are done and ends with the same bits, whatever kind they are of.
TEST(Fit, GoesOnWhereItWasStopped) {
  const Case c(5, 7);
  const std::vector<SurgeryOptions> kinds = {{.blocks = {1, 2, 3, 4, 5}, .light_rank = 4, .target = 0.7, .context = 32},
                                             {.blocks = {1, 2, 4, 5}, .parts = {Part::attention, Part::mlp}, .paths = {.exit = false, .skip = true, .light = true, .full = true}, .light_rank = 3, .statics = {3}, .target = 0.7, .context = 32},
                                             {.blocks = {1, 2, 4, 5}, .full_attention = {2, 5}, .light_rank = 4, .target = 0.8, .context = 32},
                                             {.blocks = {1, 2, 3}, .paths = {.exit = false, .skip = true, .light = false, .full = true}, .target = 0.8, .context = 32},
                                             {.light_rank = 4, .statics = {2, 3}, .context = 32}};
  for (size_t kind = 0; kind < kinds.size(); ++kind) {
    const SurgeryOptions& options = kinds[kind];
    FitOptions fit{.loss_tokens = 200, .threads = 1};
    Surgery whole = plan_surgery(c.dense, options, "dense");
    int64_t steps = 0;
    fit.progress = [&](int64_t, int64_t) { ++steps; };
    fit_surgery(whole, c.weights, c.windows, options, fit);
    for (int64_t stop = 1; stop <= steps; ++stop) {
      SCOPED_TRACE(str("kind ", kind, ", stopped at step ", stop));
      const TemporaryFolder folder;
      fit.kept = folder.path();
      int64_t step = 0;
      fit.progress = [&](int64_t, int64_t) {
        if (++step == stop) throw Interrupted("");
      };
      Surgery first = plan_surgery(c.dense, options, "dense"), second = first;
      EXPECT_THROW(fit_surgery(first, c.weights, c.windows, options, fit), Interrupted);
      std::map<std::string, std::filesystem::file_time_type> written;
      for (const std::string& name : list_folder(folder.path())) written[name] = std::filesystem::last_write_time(join_path(folder.path(), name));
      fit.progress = {}, fit.threads = 2;
      fit_surgery(second, c.weights, c.windows, options, fit);
      for (const auto& [name, when] : written) EXPECT_EQ(std::filesystem::last_write_time(join_path(folder.path(), name)), when) << name << " was fitted again";
      EXPECT_GT(list_folder(folder.path()).size(), 0U);
      ASSERT_EQ(second.made.size(), whole.made.size());
      for (const auto& [name, tensor] : whole.made) EXPECT_EQ(second.made.at(name).to_f32(), tensor.to_f32()) << name;
      EXPECT_EQ(second.config.routing.capacities(), whole.config.routing.capacities());
      for (size_t u = 0; u < whole.fitted.size(); ++u) {
        EXPECT_EQ(second.fitted[u].scores, whole.fitted[u].scores);
        EXPECT_EQ(second.fitted[u].miss, whole.fitted[u].miss);
        EXPECT_EQ(second.fitted[u].light.unexplained, whole.fitted[u].light.unexplained);
        EXPECT_EQ(second.fitted[u].router.explained, whole.fitted[u].router.explained);
      }
    }
  }
}

TEST(Fit, TooLittleTextIsSaid) {
  Case c(3);
  c.windows.resize(1);
  c.windows[0] = c.windows[0].first(4);
  SurgeryOptions options{.blocks = {1}, .light_rank = 8};
  Surgery surgery = plan_surgery(c.dense, options, "dense");
  try {
    fit_surgery(surgery, c.weights, c.windows, options, {.loss_tokens = 0, .threads = 1});
    FAIL();
  } catch (const UserError& e) {
    EXPECT_NE(std::string(e.what()).find("2 tokens behind the forced positions"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace fathom::convert
