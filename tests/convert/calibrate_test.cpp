// The engine's calibration: thresholds are those of plain forwards with later blocks shut, shares meet the dials, and a table that
// says what its model does comes back as it was.
#include "convert/calibrate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "infer/score.h"
#include "model/cost.h"
#include "model/random_model.h"

namespace fathom::convert {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Case {
  model::ModelConfig config;
  std::shared_ptr<const infer::Weights> weights;
  std::vector<std::vector<int32_t>> texts;
  std::vector<std::span<const int32_t>> windows;
  routing::DialTable grid;

  explicit Case(uint64_t seed) {
    Random random(seed);
    do config = model::random_config(random, {.paths = true});
    while (config.routing.random() || !config.routing.decides());
    config.max_position_embeddings = 64;
    weights = infer::Weights::from(config, model::random_weights(config, seed));
    for (int i = 0; i < 30; ++i) texts.push_back(model::random_tokens(config, 20 + static_cast<int64_t>(random.below(45)), random));
    windows.assign(texts.begin(), texts.end());
    const std::vector<double> trained = config.routing.capacities(), none(trained.size(), 0.0);
    grid.default_dial = std::min(0.999, model::expected_block_fraction(config, 64, trained));
    for (const double dial : routing::default_grid(model::expected_block_fraction(config, 64, none), grid.default_dial)) {
      grid.points.emplace_back();
      grid.points.back().dial = dial;
    }
  }
  CalibrationText text() const { return {windows, "drawn", 64}; }

  // Scores of unit u when the units before it are decided by `before` and nobody runs the ones behind: by whole forwards.
  std::vector<float> scores(size_t u, std::vector<float> before) const {
    before.resize(config.routing.cuts(), kInfinity);
    infer::Engine engine(weights);
    std::vector<float> out;
    infer::score_documents(engine, windows, {.policy = infer::RoutingPolicy::causal(before)}, [&](infer::DocumentScore&& s) {
      for (size_t t = 0; t < s.decisions.score[u].size(); ++t) {
        bool exited = false;
        for (size_t e = 0, cut = 0; e < u; cut += config.routing.units[e++].cuts())
          exited = exited || (config.routing.units[e].paths.exit && !(s.decisions.score[e][t] >= before[cut]));
        out.push_back(static_cast<int64_t>(t) < config.routing.forced_positions ? kInfinity : exited ? -kInfinity : s.decisions.score[u][t]);
      }
    });
    return out;
  }
};

TEST(Calibrate, ThresholdsAreThoseOfPlainForwards) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Case c(seed);
    SCOPED_TRACE(str(seed, " ", c.config.to_json().dump()));
    const routing::DialTable table = calibrate_dial(c.weights, c.grid, c.text());
    ASSERT_EQ(table.points.size(), c.grid.points.size());
    EXPECT_EQ(table.default_dial, c.grid.default_dial);
    int64_t tokens = 0;
    for (const auto& w : c.windows) tokens += static_cast<int64_t>(w.size());
    EXPECT_EQ(table.tokens, tokens);
    const std::vector<double> trained = c.config.routing.capacities();
    const auto fraction = [&](const std::vector<double>& capacity) { return model::expected_block_fraction(c.config, 64, capacity); };
    for (size_t i = 0; i < table.points.size(); ++i) {
      const routing::DialPoint& point = table.points[i];
      EXPECT_EQ(point.dial, c.grid.points[i].dial);
      std::vector<double> wanted = point.dial >= 1                          ? std::vector<double>(trained.size(), 1.0)
                                   : point.dial == c.grid.default_dial ? trained
                                                                        : routing::capacities_for_dial(point.dial, trained, fraction);
      if (i % 3 == 0) {  // whole forwards for every block take a while
        EXPECT_EQ(point.thresholds, routing::calibrate(c.config.routing, wanted, [&](size_t u, const std::vector<float>& before) { return c.scores(u, before); }));
      }
      // At least the share asked for runs, and no token more than ties with the threshold's: equal tokens at the first block do.
      // Where tokens exit, fewer may be left.
      for (size_t r = 0; r < wanted.size() && !c.config.routing.exits(); ++r) {
        EXPECT_GE(point.capacity[r], wanted[r] - 1e-12) << point.dial;
        if (c.config.routing.units[0].block > 0) {
          const double forced = static_cast<double>(c.config.routing.forced_positions * std::ssize(c.windows)) / static_cast<double>(tokens);
          EXPECT_LE(point.capacity[r], std::max(forced, wanted[r]) + 4.0 / static_cast<double>(tokens)) << point.dial;
        }
      }
      EXPECT_EQ(point.block_fraction, fraction(point.capacity));
      EXPECT_TRUE(std::isfinite(point.loss));
    }
    // The table of the same weights on the same text is the same.
    routing::DialTable again = calibrate_dial(c.weights, table, c.text(), {.threads = 1, .progress = {}, .check = {}});
    EXPECT_EQ(again.to_json(), table.to_json());
    // Nor does it matter which of its points somebody made the default.
    again.set_default(table.points[0].dial);
    EXPECT_EQ(calibrate_dial(c.weights, again, c.text()).to_json()["points"], table.to_json()["points"]);
  }
}

// Dials other than the default one move its thresholds together, until the fraction is the dial. Drawn models have few tokens and units, whose fraction
// moves in steps: the nearest that such a threshold gives is found by trying.
TEST(Calibrate, AShiftMovesAllThresholdsAlike) {
  int met = 0, points = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Case c(seed);
    if (c.config.routing.exits()) continue;
    SCOPED_TRACE(str(seed, " ", c.config.to_json().dump()));
    const routing::DialTable plain = calibrate_dial(c.weights, c.grid, c.text()), table = calibrate_dial(c.weights, c.grid, c.text(), {.threads = 1, .shift = true});
    const auto base = std::ranges::find(plain.points, c.grid.default_dial, &routing::DialPoint::dial)->thresholds;
    for (size_t i = 0; i < table.points.size(); ++i) {
      const routing::DialPoint& point = table.points[i];
      EXPECT_EQ(point.dial, c.grid.points[i].dial);
      if (point.dial >= 1 || point.dial == c.grid.default_dial) {
        EXPECT_EQ(point.thresholds, plain.points[i].thresholds);
        continue;
      }
      std::optional<double> amount;
      for (size_t cut = 0; cut < base.size(); ++cut) {
        if (!std::isfinite(base[cut])) continue;
        const double by = static_cast<double>(point.thresholds[cut]) - base[cut];
        EXPECT_NEAR(by, amount.value_or(by), 1e-5 * (1 + std::abs(by) + std::abs(base[cut])));
        amount = by;
      }
      ++points;
      met += std::abs(point.block_fraction - point.dial) < 0.02;
      EXPECT_EQ(point.block_fraction, model::expected_block_fraction(c.config, 64, point.capacity));
      if (i > 0) EXPECT_GE(point.block_fraction, table.points[i - 1].block_fraction);
    }
  }
  EXPECT_GT(points, 60);
  EXPECT_GT(met, points * 2 / 3);
}

TEST(Calibrate, TheRandomControlKeepsItsTable) {
  Random random(7);
  model::ModelConfig config;
  do config = model::random_config(random);
  while (!config.routing.random());
  routing::DialTable grid = model::random_dial(config, random);
  const std::vector<int32_t> text = {1, 2, 3};
  const std::vector<std::span<const int32_t>> windows = {text};
  const auto weights = infer::Weights::from(config, model::random_weights(config, 7));
  EXPECT_EQ(calibrate_dial(weights, grid, {windows, "three tokens", 3}).to_json(), grid.to_json());
}

TEST(Calibrate, NeedsTextAndStopsWhenAsked) {
  const Case c(3);
  EXPECT_THROW(calibrate_dial(c.weights, c.grid, {{}, "nothing", 64}), UserError);
  int steps = 0;
  CalibrationOptions options;
  options.check = [&] { if (++steps == 5) throw Interrupted("stop"); };
  EXPECT_THROW(calibrate_dial(c.weights, c.grid, c.text(), options), Interrupted);
  std::vector<size_t> said;
  options.check = {};
  options.progress = [&](size_t done, size_t of) {
    said.push_back(done);
    EXPECT_EQ(of, c.grid.points.size());
  };
  calibrate_dial(c.weights, c.grid, c.text(), options);
  EXPECT_EQ(said.size(), c.grid.points.size());
}

}  // namespace
}  // namespace fathom::convert
