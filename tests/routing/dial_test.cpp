#include "routing/dial.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/random.h"
#include "routing/select.h"

namespace fathom::routing {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

DialPoint point(double dial, Floats thresholds, double capacity = 0.5, double loss = 2) {
  return {dial, dial + 0.01, std::move(thresholds), Doubles(2, capacity), loss};
}

DialTable table() {
  DialTable t;
  t.default_dial = 0.6;
  t.points = {point(0.5, {2, 4}, 0.1, 3), point(0.6, {1, 2}, 0.3, 2), point(1.0, {-3, 0}, 1, 1)};
  t.text = "books, 1,024 tokens each";
  t.tokens = 65536;
  return t;
}

template <class Call>
std::string error(Call call) {
  try {
    call();
  } catch (const UserError& e) {
    return e.what();
  }
  return "no error";
}

TEST(DialTable, InterpolatesBetweenGridPoints) {
  EXPECT_EQ(table().thresholds(0.5), (Floats{2, 4}));
  EXPECT_EQ(table().thresholds(0.6), (Floats{1, 2}));
  const Floats middle = table().thresholds(0.8);
  EXPECT_FLOAT_EQ(middle[0], -1);
  EXPECT_FLOAT_EQ(middle[1], 1);
  EXPECT_FLOAT_EQ(table().thresholds(0.525)[1], 3.5f);
}

TEST(DialTable, AtOneEverybodyRuns) {
  EXPECT_EQ(table().thresholds(1.0), (Floats{-kInf, -kInf}));
  EXPECT_NEAR(table().thresholds(std::nextafter(1.0, 0.0))[0], -3, 1e-5);
  EXPECT_EQ(table().at(1.0).capacity, (Doubles{1, 1}));
}

TEST(DialTable, BelowTheLowestPointTheLowestHolds) {
  EXPECT_EQ(table().thresholds(0.01), (Floats{2, 4}));
  EXPECT_EQ(table().at(0.01).block_fraction, 0.51);
  EXPECT_EQ(table().at(0.01).dial, 0.01);
}

TEST(DialTable, FiguresAreInterpolatedToo) {
  const DialPoint p = table().at(0.8);
  EXPECT_EQ(p.dial, 0.8);
  EXPECT_NEAR(p.block_fraction, 0.81, 1e-12);
  EXPECT_NEAR(p.capacity[1], 0.65, 1e-12);
  EXPECT_NEAR(p.loss, 1.5, 1e-12);
  EXPECT_EQ(p.thresholds, table().thresholds(0.8));
}

TEST(DialTable, FromAnInfiniteThresholdTheLowerPointHoldsUpToTheNext) {
  DialTable t = table();
  t.points[0].thresholds = {kInf, kInf};
  t.points[1].thresholds = {kInf, 2};
  EXPECT_EQ(t.thresholds(0.5), (Floats{kInf, kInf}));
  EXPECT_EQ(t.thresholds(0.55), (Floats{kInf, kInf}));
  EXPECT_EQ(t.thresholds(0.6), (Floats{kInf, 2}));
  EXPECT_EQ(t.thresholds(0.8)[0], kInf);
  t.points[1].thresholds = {kInf, 2};
  t.points[2].thresholds = {-kInf, -kInf};
  EXPECT_EQ(t.thresholds(0.8), (Floats{kInf, 2}));
}

TEST(DialTable, RefusesDialsOutsideItsRange) {
  for (double dial : {0.0, -0.1, 1.0001, std::numeric_limits<double>::infinity()})
    EXPECT_EQ(error([&] { table().thresholds(dial); }),
              str("dial: found ", dial, ", expected a block fraction above 0 and at most 1; 1 runs every token in full"));
  EXPECT_NE(error([&] { table().thresholds(std::nan("")); }), "no error");
  EXPECT_NE(error([&] { table().at(0); }), "no error");
  EXPECT_NE(error([&] { capacities_for_dial(0, {0.5}, [](const Doubles&) { return 0.5; }); }), "no error");
}

void expect_equal(const DialTable& a, const DialTable& b) {
  EXPECT_EQ(a.default_dial, b.default_dial);
  EXPECT_EQ(a.text, b.text);
  EXPECT_EQ(a.tokens, b.tokens);
  ASSERT_EQ(a.points.size(), b.points.size());
  for (size_t i = 0; i < a.points.size(); ++i) {
    EXPECT_EQ(a.points[i].dial, b.points[i].dial);
    EXPECT_EQ(a.points[i].block_fraction, b.points[i].block_fraction);
    EXPECT_EQ(a.points[i].capacity, b.points[i].capacity);
    EXPECT_TRUE(a.points[i].loss == b.points[i].loss || (std::isnan(a.points[i].loss) && std::isnan(b.points[i].loss)));
    ASSERT_EQ(a.points[i].thresholds.size(), b.points[i].thresholds.size());
    for (size_t r = 0; r < a.points[i].thresholds.size(); ++r)
      EXPECT_EQ(std::bit_cast<uint32_t>(a.points[i].thresholds[r]), std::bit_cast<uint32_t>(b.points[i].thresholds[r]));
  }
}

DialTable through_text(const DialTable& t, size_t routed_blocks = 2) {
  return DialTable::from_json(parse_json(t.to_json().dump(2), "d.json"), "d.json", routed_blocks);
}

TEST(DialFile, ComesBackToTheBit) {
  expect_equal(table(), through_text(table()));
  DialTable t = table();
  t.points[0].thresholds = {kInf, -kInf};
  t.points[0].loss = std::nan("");
  t.points[1].thresholds = {std::numeric_limits<float>::denorm_min(), -std::numeric_limits<float>::max()};
  t.points[2].thresholds = {-0.0f, std::nextafter(1.0f, 2.0f)};
  expect_equal(t, through_text(t));
  EXPECT_NE(t.to_json().dump().find("[\"inf\",\"-inf\"]"), std::string::npos);
}

TEST(DialFile, AnyThresholdComesBackToTheBit) {
  Random random(3);
  DialTable t = table();
  t.points.resize(1);
  t.points[0].dial = 1;
  t.points[0].thresholds.clear();
  while (t.points[0].thresholds.size() < 20000) {
    const float f = std::bit_cast<float>(static_cast<uint32_t>(random.bits()));
    if (!std::isnan(f)) t.points[0].thresholds.push_back(f);
  }
  t.points[0].capacity.assign(t.points[0].thresholds.size(), 0.1);
  expect_equal(t, through_text(t, t.points[0].thresholds.size()));
}

TEST(DialFile, FloatsAreShortDecimals) {
  DialTable t = table();
  t.points[0].thresholds = {0.1f, -1.7f};
  EXPECT_NE(t.to_json().dump().find("[0.1,-1.7]"), std::string::npos) << t.to_json().dump();
}

TEST(DialFile, AnotherDefaultKeepsTheTrainedPoint) {
  DialTable t = table();
  const double trained = t.default_dial;
  EXPECT_EQ(t.to_json()["version"], 1);
  t.set_default(0.4);
  EXPECT_EQ(t.default_dial, 0.4);
  const DialTable back = through_text(t);
  EXPECT_EQ(t.to_json()["version"], 2);
  EXPECT_EQ(back.default_dial, 0.4);
  EXPECT_EQ(back.trained(), trained);
  t.set_default(0.3), t.set_default(trained);
  EXPECT_EQ(t.to_json(), table().to_json()) << "as if nothing had been";
  EXPECT_THROW(t.set_default(0), UserError);
}

TEST(DialFile, BadFiles) {
  const std::string good = R"({"version": 1, "default_dial": 0.5, "points": [
    {"dial": 0.5, "block_fraction": 0.5, "thresholds": [1], "capacity": [0.1], "loss": null},
    {"dial": 1, "block_fraction": 1, "thresholds": [0], "capacity": [1], "loss": 2}]})";
  const auto load = [](const std::string& text) { return error([&] { DialTable::from_json(parse_json(text, "d"), "d", 1); }); };
  ASSERT_EQ(load(good), "no error");
  const auto edit = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return load(text.replace(at, from.size(), to));
  };
  EXPECT_EQ(load("[]"), "d: found an array of 0, expected an object { … }");
  EXPECT_EQ(edit("\"version\": 1", "\"version\": 3"), "d: version: found the number 3, expected a whole number from 1 to 2");
  EXPECT_EQ(edit("\"version\": 1", "\"version\": 2"), "d: trained_dial: found no such key, expected a number from 0 to 1");
  EXPECT_EQ(edit("\"version\": 1", "\"version\": 2, \"trained_dial\": 0.5"), "no error");
  EXPECT_EQ(edit("\"version\": 1", "\"version\": 2, \"trained_dial\": 0"), "d: trained_dial: found 0, expected a block fraction above 0 and at most 1");
  EXPECT_NE(edit("\"version\": 1", "\"version\": 1, \"trained_dial\": 0.5").find("trained_dial: found an unknown key"), std::string::npos);
  EXPECT_EQ(edit("\"version\": 1, ", ""), "d: version: found no such key, expected a whole number from 1 to 2");
  EXPECT_EQ(edit("\"default_dial\": 0.5", "\"default_dial\": 0"), "d: default_dial: found 0, expected a block fraction above 0 and at most 1");
  EXPECT_EQ(edit("\"default_dial\": 0.5", "\"default_dial\": 2"), "d: default_dial: found the number 2, expected a number from 0 to 1");
  EXPECT_EQ(edit("\"dial\": 0.5", "\"dial\": 0"), "d: points[0].dial: found 0, expected a block fraction above 0 and at most 1");
  EXPECT_EQ(edit("\"dial\": 0.5", "\"dial\": 1"), "d: points[1].dial: found 1 after 1, expected ascending dials");
  EXPECT_EQ(edit("\"dial\": 1,", "\"dial\": 0.9,"), "d: points[1].dial: found 0.9, expected 1, the last point's dial");
  EXPECT_EQ(edit("[1]", "[1, 2]"), "d: points[0].thresholds: found an array of 2, expected one per cut of a routed block: 1");
  EXPECT_EQ(edit("[1]", "1"), "d: points[0].thresholds: found the number 1, expected one per cut of a routed block: 1");
  EXPECT_EQ(edit("[1]", "[\"low\"]"),
            "d: points[0].thresholds[0]: found the string \"low\", expected a number within the range of f32, \"inf\" or \"-inf\"");
  EXPECT_EQ(edit("[1]", "[1e39]"),
            "d: points[0].thresholds[0]: found the number 1e+39, expected a number within the range of f32, \"inf\" or \"-inf\"");
  EXPECT_EQ(edit("[1]", "[null]"),
            "d: points[0].thresholds[0]: found null, expected a number within the range of f32, \"inf\" or \"-inf\"");
  EXPECT_EQ(edit("[0.1]", "[1.1]"), "d: points[0].capacity[0]: found the number 1.1, expected a number from 0 to 1");
  EXPECT_EQ(edit("[0.1]", "[]"), "d: points[0].capacity: found an array of 0, expected one per cut of a routed block: 1");
  EXPECT_EQ(edit("\"block_fraction\": 0.5", "\"block_fraction\": -1"),
            "d: points[0].block_fraction: found the number -1, expected a number from 0 to 1000000");
  EXPECT_EQ(edit("\"loss\": null", "\"lost\": null"),
            "d: points[0].lost: found an unknown key, expected \"loss\" perhaps; remove it or correct its name");
  EXPECT_EQ(load(R"({"version": 1, "default_dial": 1, "points": []})"), "d: points: found an array of 0, expected an array of 1 to 1024 points");
}

TEST(DialFile, TheNumberOfPointsHasABound) {
  DialTable t = table();
  t.points.clear();
  for (int i = 1; i <= 1024; ++i) t.points.push_back(point(i / 1024.0, {0, 0}));
  EXPECT_EQ(through_text(t).points.size(), 1024u);
  t.points.insert(t.points.begin(), point(1e-4, {0, 0}));
  EXPECT_EQ(error([&] { through_text(t); }), "d.json: points: found an array of 1025, expected an array of 1 to 1024 points");
}

// A cost like that of a stack where half of the blocks are routed.
double half(const Doubles& capacity) {
  double sum = 0;
  for (double c : capacity) sum += c * (0.97 + 0.03 * c);
  return 0.5 + 0.5 * sum / static_cast<double>(capacity.size());
}

TEST(CapacitiesForDial, MeetTheDial) {
  const Doubles trained = {0.1, 0.3, 0.2};
  for (double dial : {0.51, 0.55, 0.6, 0.75, 0.99}) {
    const Doubles c = capacities_for_dial(dial, trained, half);
    EXPECT_NEAR(half(c), dial, 1e-12) << dial;
    for (double x : c) EXPECT_TRUE(x >= 0 && x <= 1);
  }
  EXPECT_EQ(capacities_for_dial(half(trained), trained, half), trained);
}

TEST(CapacitiesForDial, ScaleDownTogetherAndMoveUpTogether) {
  const Doubles trained = {0.1, 0.3};
  const Doubles down = capacities_for_dial(0.53, trained, half), up = capacities_for_dial(0.8, trained, half);
  EXPECT_NEAR(down[0] / down[1], 1.0 / 3, 1e-9);
  EXPECT_NEAR((1 - up[0]) / (1 - up[1]), 0.9 / 0.7, 1e-9);
}

TEST(CapacitiesForDial, BeyondReachTheEndsHold) {
  EXPECT_EQ(capacities_for_dial(0.3, {0.1, 0.3}, half), (Doubles{0, 0}));
  EXPECT_EQ(capacities_for_dial(1, {0.1, 0.3}, half), (Doubles{1, 1}));
  EXPECT_EQ(capacities_for_dial(1, {1, 1}, [](const Doubles& c) { return half(c) + 0.01; })[0] > 0.9, true);
  EXPECT_EQ(capacities_for_dial(1, {0.5}, [](const Doubles& c) { return 0.5 * c[0]; }), (Doubles{1}));
}

TEST(ThresholdFor, LetsAtLeastTheShareRunAndNoLowerThresholdThanNeeded) {
  Random random(11);
  for (int trial = 0; trial < 2000; ++trial) {
    Floats scores;
    const size_t n = 1 + random.below(50);
    const bool ties = random.uniform() < 0.5;
    for (size_t i = 0; i < n; ++i) scores.push_back(ties ? static_cast<float>(random.below(5)) : static_cast<float>(random.normal()));
    const double capacity = std::max(1e-6, random.uniform());
    const Floats original = scores;
    const float t = threshold_for(scores, capacity);
    const auto running = [&](float threshold) {
      return std::count_if(original.begin(), original.end(), [&](float s) { return runs(s, threshold); });
    };
    const int64_t wanted = selected_count(capacity, static_cast<int64_t>(n));
    EXPECT_GE(running(t), wanted);
    EXPECT_LT(running(std::nextafter(t, kInf)), wanted) << "not the largest";
    if (!ties) {
      EXPECT_EQ(running(t), wanted);
    }
  }
}

TEST(ThresholdFor, Edges) {
  Floats s = {3, 1, 2};
  EXPECT_EQ(threshold_for(s, 0), kInf);
  EXPECT_EQ(threshold_for(s, 1), 1);
  EXPECT_EQ(threshold_for(s, 0.3), 3);
  EXPECT_EQ(threshold_for(s, 0.34), 2);
  Floats equal = {5, 5, 5};
  EXPECT_EQ(threshold_for(equal, 0.1), 5);
  Floats with_nan = {kNan, 1, kNan, 2};
  EXPECT_EQ(threshold_for(with_nan, 0.25), 2);
  EXPECT_EQ(threshold_for(with_nan, 1), 1);
  Floats only_nan = {kNan, kNan};
  EXPECT_EQ(threshold_for(only_nan, 0.5), -kInf);
  Floats infinite = {kInf, 0};
  EXPECT_EQ(threshold_for(infinite, 0.5), kInf);
  Floats none;
  EXPECT_THROW(threshold_for(none, 0.5), std::logic_error);
}

// Each token's score at a block depends on how many blocks before it the token ran.
struct Stack {
  int64_t tokens = 4001;
  std::vector<Floats> base;  // [blocks][tokens]

  explicit Stack(size_t blocks) {
    Random random(5);
    for (size_t r = 0; r < blocks; ++r) {
      base.emplace_back();
      for (int64_t t = 0; t < tokens; ++t) base.back().push_back(static_cast<float>(random.normal()));
    }
  }
  Floats scores(size_t block, const Floats& before) const {
    Floats depth(static_cast<size_t>(tokens), 0), out;
    for (size_t r = 0; r <= block; ++r) {
      out.clear();
      for (size_t t = 0; t < depth.size(); ++t) out.push_back(base[r][t] + 1.5f * depth[t]);
      if (r < block)
        for (size_t t = 0; t < depth.size(); ++t) depth[t] += runs(out[t], before.at(r));
    }
    return out;
  }
};

TEST(Calibrate, RealisesTheCapacitiesThoughEarlierBlocksMoveLaterScores) {
  const Stack stack(5);
  const Doubles capacity = {0.125, 0.5, 0.125, 0.9, 0.25};
  size_t calls = 0;
  RoutingConfig routing;
  for (int block = 0; block < 5; ++block) routing.units.push_back({block, capacity[static_cast<size_t>(block)]});
  const Floats thresholds = calibrate(routing, capacity, [&](size_t r, const Floats& before) {
    EXPECT_EQ(r, calls++);
    EXPECT_EQ(before.size(), r);
    return stack.scores(r, before);
  });
  ASSERT_EQ(thresholds.size(), capacity.size());
  for (size_t r = 0; r < capacity.size(); ++r) {
    const Floats scores = stack.scores(r, thresholds);
    const auto running = std::count_if(scores.begin(), scores.end(), [&](float s) { return runs(s, thresholds[r]); });
    const double share = static_cast<double>(running) / static_cast<double>(stack.tokens);
    EXPECT_GE(share, capacity[r]);
    EXPECT_LE(share, capacity[r] + 1.0 / static_cast<double>(stack.tokens)) << "block " << r;
  }
  // The check has teeth: thresholds taken from scores without the earlier decisions miss the capacity.
  Floats alone = stack.base[4];
  const float naive = threshold_for(alone, capacity[4]);
  const Floats scores = stack.scores(4, thresholds);
  const auto running = std::count_if(scores.begin(), scores.end(), [&](float s) { return runs(s, naive); });
  EXPECT_GT(static_cast<double>(running) / static_cast<double>(stack.tokens), 0.5);
}

// Two cuts from one score, none for a static unit; a token that has exited stands at −∞ and is no part of a share.
TEST(Calibrate, UnitsHaveAThresholdPerCut) {
  RoutingConfig routing;
  routing.units = {{.block = 0, .capacity = 0.25, .paths = {.light = true}, .light_rank = 1, .light_capacity = 0.5},
                   {.block = 1, .capacity = 0, .paths = {.skip = true, .full = false}},
                   {.block = 2, .capacity = 0.5, .part = Part::mlp, .paths = {.exit = true, .skip = false}}};
  std::vector<size_t> asked;
  const Floats thresholds = calibrate(routing, routing.capacities(), [&](size_t u, const Floats& before) {
    asked.push_back(u);
    EXPECT_EQ(before.size(), u == 0 ? 0u : 2u);
    return u == 0 ? Floats{7, 3, 8, 1, 5, 2, 6, 4} : Floats{1, -kInf, 4, -kInf, 2, 3, -kInf, -kInf};
  });
  EXPECT_EQ(asked, (std::vector<size_t>{0, 2}));
  EXPECT_EQ(thresholds, (Floats{3, 7, 1}));
  EXPECT_THROW(calibrate(routing, {0.5}, [](size_t, const Floats&) { return Floats{1}; }), std::logic_error);
}

TEST(DialFile, AUnitsThresholdsRise) {
  RoutingConfig routing;
  routing.units = {{0, 0.5}, {.block = 1, .capacity = 0.25, .paths = {.light = true}, .light_rank = 1, .light_capacity = 0.5}};
  DialTable t = table();
  t.points.resize(1);
  const auto order = [&](Floats thresholds) {
    t.points[0].thresholds = std::move(thresholds);
    return error([&] { t.require_order(routing, "d.json"); });
  };
  EXPECT_EQ(order({5, 1, 1}), "no error");
  EXPECT_EQ(order({5, -kInf, kInf}), "no error");
  EXPECT_EQ(order({5, 1, 0.5}), "d.json: points[0].thresholds[2]: found 0.5 after 1, expected rising thresholds of block 1, whose paths are skip,light,full");
}

TEST(DefaultGrid, HoldsTheTrainedPointAndEndsAtOne) {
  for (const auto& [least, trained] : std::vector<std::pair<double, double>>{
           {0.5, 0.55}, {0.001, 0.13}, {0.5, 1.0}, {0.9, 0.95}, {0.5, 0.5}, {0.02, 0.021}, {0.5, 1.2}, {0.99, 0.999}}) {
    const Doubles grid = default_grid(least, trained);
    EXPECT_EQ(grid.back(), 1.0);
    EXPECT_NE(std::find(grid.begin(), grid.end(), std::min(trained, 1.0)), grid.end());
    EXPECT_TRUE(std::is_sorted(grid.begin(), grid.end()));
    EXPECT_EQ(std::adjacent_find(grid.begin(), grid.end()), grid.end());
    EXPECT_GT(grid.front(), 0);
    if (least < trained) {
      EXPECT_GT(grid.front(), least);
    }
    EXPECT_LE(grid.size(), 14u);
  }
  EXPECT_EQ(default_grid(0.5, 0.55).size(), 3u + 5u);
}

}  // namespace
}  // namespace fathom::routing
