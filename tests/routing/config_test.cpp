#include "routing/config.h"

#include <gtest/gtest.h>

namespace fathom::routing {
namespace {

RoutingConfig read(const std::string& text, int64_t n_blocks = 8) {
  const Json json = parse_json(text, "c.json");
  return RoutingConfig::from_json(Fields(json, "c.json", "fathom"), n_blocks);
}

std::string error(const std::string& text, int64_t n_blocks = 8) {
  try {
    read(text, n_blocks);
  } catch (const UserError& e) {
    return e.what();
  }
  return "no error";
}

std::vector<int> routed(const std::string& pattern, int64_t n_blocks = 8) {
  std::vector<int> out;
  for (const auto& b : read("{\"routed_blocks\": " + pattern + ", \"capacity\": 0.5}", n_blocks).units) out.push_back(b.block);
  return out;
}

std::vector<double> capacity(const std::string& capacity, const std::string& pattern = "[1, 3, 5]") {
  std::vector<double> out;
  for (const auto& b : read("{\"routed_blocks\": " + pattern + ", \"capacity\": " + capacity + "}").units) out.push_back(b.capacity);
  return out;
}

using Ints = std::vector<int>;
using Doubles = std::vector<double>;

TEST(RoutingConfig, Patterns) {
  EXPECT_EQ(routed("\"every_second\""), (Ints{1, 3, 5, 7}));
  EXPECT_EQ(routed("\"every_second\"", 7), (Ints{1, 3, 5}));
  EXPECT_EQ(routed("\"every_third\""), (Ints{2, 5}));
  EXPECT_EQ(routed("\"all\"", 3), (Ints{0, 1, 2}));
  EXPECT_EQ(routed("\"none\""), Ints{});
  EXPECT_EQ(routed("[]"), Ints{});
  EXPECT_EQ(routed("[0, 7]"), (Ints{0, 7}));
  EXPECT_EQ(routed("{\"from\": 2, \"to\": 6, \"step\": 2}"), (Ints{2, 4, 6}));
  EXPECT_EQ(routed("{\"from\": 2, \"to\": 5, \"step\": 2}"), (Ints{2, 4}));
  EXPECT_EQ(routed("{\"from\": 6, \"to\": 7}"), (Ints{6, 7}));
  EXPECT_EQ(routed("{\"from\": 0, \"to\": 0}"), (Ints{0}));
}

TEST(RoutingConfig, Capacities) {
  EXPECT_EQ(capacity("0.125"), (Doubles{0.125, 0.125, 0.125}));
  EXPECT_EQ(capacity("[0.1, 0.2, 1]"), (Doubles{0.1, 0.2, 1}));
  EXPECT_EQ(capacity("{\"first\": 0.5, \"last\": 0.1}"), (Doubles{0.5, 0.5 * 0.5 + 0.1 * 0.5, 0.1}));
  EXPECT_EQ(capacity("{\"first\": 0.5, \"last\": 0.1}", "[4]"), (Doubles{0.5}));
  EXPECT_EQ(capacity("0.3", "\"none\""), Doubles{});
}

TEST(RoutingConfig, DefaultsStandInTheStruct) {
  RoutingConfig expected;
  expected.units = {{1, 0.25}};
  EXPECT_EQ(read(R"({"routed_blocks": [1], "capacity": 0.25})"), expected);
  EXPECT_EQ(read(R"({"routed_blocks": "none"})"), RoutingConfig{});
}

TEST(RoutingConfig, EveryFieldIsReadAndWritten) {
  const RoutingConfig c = read(R"({"version": 1, "routed_blocks": [0, 2], "capacity": [0.1, 0.3], "gate": "sigmoid",
    "gate_scale": 0.5, "rule": "predictor", "selection": "random", "kv": "keep", "router_input": "normed",
    "router_bias": true, "forced_positions": 2, "random_seed": 18446744073709551615})");
  EXPECT_EQ(c.units, (std::vector<RoutedUnit>{{0, 0.1}, {2, 0.3}}));
  EXPECT_EQ(c.gate, Gate::sigmoid);
  EXPECT_EQ(c.gate_scale, 0.5);
  EXPECT_EQ(c.rule, CausalRule::predictor);
  EXPECT_EQ(c.selection, Selection::random);
  EXPECT_EQ(c.kv, KvPolicy::keep);
  EXPECT_EQ(c.router_input, RouterInput::normed);
  EXPECT_TRUE(c.router_bias);
  EXPECT_EQ(c.forced_positions, 2);
  EXPECT_EQ(c.random_seed, UINT64_MAX);
  EXPECT_EQ(read(c.to_json().dump()), c);
}

TEST(RoutingConfig, EveryNameComesBack) {
  RoutingConfig c;
  c.units = {{3, 0.1 + 0.2}};  // not a short decimal
  const auto comes_back = [&](const auto& names, auto member) {
    for (const auto& [name, value] : names) {
      c.*member = value;
      EXPECT_EQ(read(c.to_json().dump()), c) << name;
    }
  };
  comes_back(kGateNames, &RoutingConfig::gate);
  comes_back(kCausalRuleNames, &RoutingConfig::rule);
  comes_back(kSelectionNames, &RoutingConfig::selection);
  comes_back(kKvPolicyNames, &RoutingConfig::kv);
  comes_back(kRouterInputNames, &RoutingConfig::router_input);
}

TEST(RoutingConfig, UnitsOfABlock) {
  const RoutingConfig c = read(R"({"units": [{"block": 1, "capacity": 0.5}, {"block": 4, "part": "attention", "capacity": 0.5},
    {"block": 4, "part": "mlp", "capacity": 0.5}, {"block": 6, "part": "mlp", "capacity": 0.5}]})");
  const auto both = [&](int64_t block) { return std::pair(c.unit_of(block, Part::attention), c.unit_of(block, Part::mlp)); };
  EXPECT_EQ(both(0), std::pair(-1, -1));
  EXPECT_EQ(both(1), std::pair(0, 0));
  EXPECT_EQ(both(4), std::pair(1, 2));
  EXPECT_EQ(both(5), std::pair(-1, -1));
  EXPECT_EQ(both(6), std::pair(-1, 3));
  EXPECT_EQ(both(7), std::pair(-1, -1));
  EXPECT_EQ(c.units_of(4), (std::pair<size_t, size_t>(1, 3)));
  EXPECT_EQ(c.units_of(5).first, c.units_of(5).second);
  EXPECT_EQ(RoutingConfig{}.unit_of(0, Part::mlp), -1);
  EXPECT_EQ(c.routed_blocks(), 3);
  // A block counts for depth when all of its units ran in full.
  using Run = std::vector<uint8_t>;
  EXPECT_EQ(c.full_blocks(Run{1, 1, 1, 1}), 3);
  EXPECT_EQ(c.full_blocks(Run{1, 0, 1, 1}), 2);
  EXPECT_EQ(c.full_blocks(Run{0, 1, 2, 1}), 1);
  EXPECT_EQ(c.full_blocks(Run{2, 2, 0, 0}), 0);
}

TEST(RoutingConfig, CutsLieBetweenPaths) {
  const RoutingConfig c = read(R"({"units": [
    {"block": 0, "capacity": 0.25},
    {"block": 1, "paths": ["full", "light", "skip", "exit"], "light_rank": 3, "capacity": 0.125, "light_capacity": 0.5, "skip_capacity": 0.25},
    {"block": 2, "paths": "light", "light_rank": 2},
    {"block": 3, "paths": "exit,full", "capacity": 0.5},
    {"block": 4, "paths": "light,full", "light_rank": 2, "capacity": 0.75},
    {"block": 5, "paths": "skip"},
    {"block": 6, "paths": "exit,light,full", "light_rank": 1, "capacity": 0.25, "light_capacity": 0.25}]})");
  EXPECT_EQ(c.capacities(), (Doubles{0.25, 0.875, 0.625, 0.125, 0.5, 0.75, 0.5, 0.25}));
  EXPECT_EQ(c.cuts(), 8u);
  const std::vector<size_t> first = {0, 1, 4, 4, 5, 6, 6};
  for (size_t u = 0; u < first.size(); ++u) EXPECT_EQ(c.first_cut(u), first[u]) << u;
  EXPECT_EQ(c.full_cut(1), 3u);
  EXPECT_TRUE(c.exits());
  EXPECT_EQ(c.static_blocks(), 2);
  const auto shares = [&](size_t u) {
    const auto s = c.shares(u, c.capacities());
    return std::pair(s.full, s.light);
  };
  EXPECT_EQ(shares(0), std::pair(0.25, 0.0));
  EXPECT_EQ(shares(1), std::pair(0.125, 0.5));
  EXPECT_EQ(shares(2), std::pair(0.0, 1.0));
  EXPECT_EQ(shares(3), std::pair(0.5, 0.0));
  EXPECT_EQ(shares(4), std::pair(0.75, 0.25));
  EXPECT_EQ(shares(5), std::pair(0.0, 0.0));
  EXPECT_EQ(shares(6), std::pair(0.25, 0.75)) << "who exits takes the light path, too";
  const std::vector<Path> cheapest = {Path::skip, Path::skip, Path::light, Path::skip, Path::light, Path::skip, Path::light};
  for (size_t u = 0; u < cheapest.size(); ++u) EXPECT_EQ(c.units[u].cheapest(), cheapest[u]) << u;
  EXPECT_EQ(read(c.to_json().dump()), c);
  EXPECT_EQ(c.to_json()["version"], 2);
  EXPECT_FALSE(read(R"({"units": [{"block": 0, "paths": "skip"}]})").decides());
}

TEST(RoutingConfig, APatternMayHavePathsAndParts) {
  const RoutingConfig c = read(R"({"routed_blocks": [1, 3], "capacity": [0.25, 0.5], "granularity": "attention+mlp", "paths": "skip,light,full",
    "light_rank": 4, "light_capacity": 0.5})");
  ASSERT_EQ(c.units.size(), 4u);
  for (size_t u = 0; u < 4; ++u)
    EXPECT_EQ(c.units[u], (RoutedUnit{.block = u < 2 ? 1 : 3, .capacity = u < 2 ? 0.25 : 0.5, .part = u % 2 ? Part::mlp : Part::attention,
                                      .paths = {.exit = false, .skip = true, .light = true, .full = true}, .light_rank = 4, .light_capacity = 0.5})) << u;
  EXPECT_EQ(read(R"({"routed_blocks": "all", "paths": "light", "light_rank": 2, "granularity": "mlp"})", 3).units.size(), 3u);
}

// Programs that know whole blocks alone read what others of them wrote, and write what they wrote.
TEST(RoutingConfig, WholeBlocksAreWrittenAsEver) {
  const RoutingConfig c = read(R"({"version": 1, "routed_blocks": [1, 3], "capacity": [0.25, 0.5]})");
  EXPECT_EQ(c.to_json(), parse_json(R"({"version": 1, "routed_blocks": [1, 3], "capacity": [0.25, 0.5], "gate": "hard", "gate_scale": 0.2, "rule": "score",
    "selection": "topk", "kv": "drop", "router_input": "hidden", "router_bias": false, "forced_positions": 0, "random_seed": 0})", "c"));
  EXPECT_EQ(read(R"({"version": 2, "units": [{"block": 1, "capacity": 0.25}, {"block": 3, "capacity": 0.5}]})"), c);
}

TEST(RoutingConfig, TrainingRefusesWhatItDoesNotCompute) {
  const auto refusal = [](const std::string& text) {
    try {
      read(text).require_plain("c.json");
    } catch (const UserError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(refusal(R"({"routed_blocks": "all", "capacity": 0.5})"), "no error");
  EXPECT_EQ(refusal(R"({"units": [{"block": 1, "capacity": 0.5}, {"block": 2, "part": "mlp", "capacity": 0.5}]})"),
            "c.json: fathom.units[1].part: found mlp, expected block; training knows whole blocks that a token skips or runs in full; the engine runs the others");
  EXPECT_EQ(refusal(R"({"routed_blocks": [1], "capacity": 0.5, "paths": "exit,full"})"),
            "c.json: fathom.units[0].paths: found exit,full, expected skip,full; training knows whole blocks that a token skips or runs in full; the engine runs the others");
}

constexpr const char* kPattern =
    "expected a list of block indices, \"none\", \"all\", \"every_second\", \"every_third\" or {\"from\": a, \"to\": b, \"step\": s}";
constexpr const char* kCapacity =
    "expected a number above 0 and at most 1, a list of them (one per routed block) or {\"first\": a, \"last\": b}";

constexpr const char* kPaths =
    "expected full with one or more of exit, skip and light; or skip or light alone, which every token takes; such as skip,full or skip,light,full";

TEST(RoutingConfig, BadFiles) {
  const std::pair<std::string, std::string> cases[] = {
      {R"([])", "c.json: fathom: found an array of 0, expected an object { … }"},
      {R"({})", str("c.json: fathom.routed_blocks: found no such key, ", kPattern)},
      {R"({"routed_blocks": null})", str("c.json: fathom.routed_blocks: found no such key, ", kPattern)},
      {R"({"routed_blocks": 3})", str("c.json: fathom.routed_blocks: found the number 3, ", kPattern)},
      {R"({"routed_blocks": "every_fifth"})", str("c.json: fathom.routed_blocks: found the string \"every_fifth\", ", kPattern)},
      {R"({"routed_blocks": [8]})", "c.json: fathom.routed_blocks[0]: found the number 8, expected a whole number from 0 to 7"},
      {R"({"routed_blocks": [-1]})", "c.json: fathom.routed_blocks[0]: found the number -1, expected a whole number from 0 to 7"},
      {R"({"routed_blocks": [1.5]})", "c.json: fathom.routed_blocks[0]: found the number 1.5, expected a whole number from 0 to 7"},
      {R"({"routed_blocks": [1, 1]})", "c.json: fathom.routed_blocks[1]: found 1 after 1, expected ascending indices, each once"},
      {R"({"routed_blocks": [3, 1]})", "c.json: fathom.routed_blocks[1]: found 1 after 3, expected ascending indices, each once"},
      {R"({"routed_blocks": {"from": 5, "to": 2}})", "c.json: fathom.routed_blocks.to: found the number 2, expected a whole number from 5 to 7"},
      {R"({"routed_blocks": {"from": 1, "to": 2, "step": 0}})",
       "c.json: fathom.routed_blocks.step: found the number 0, expected a whole number from 1 to 8"},
      {R"({"routed_blocks": {"from": 1, "to": 2, "stop": 3}})",
       "c.json: fathom.routed_blocks.stop: found an unknown key, expected \"step\" perhaps; remove it or correct its name"},
      {R"({"routed_blocks": [1]})", str("c.json: fathom.capacity: found no such key, ", kCapacity)},
      {R"({"routed_blocks": [1], "capacity": "x"})", str("c.json: fathom.capacity: found the string \"x\", ", kCapacity)},
      {R"({"routed_blocks": [1], "capacity": 0})", "c.json: fathom.capacity: found the number 0, expected a number above 0 and at most 1"},
      {R"({"routed_blocks": [1], "capacity": 1.01})",
       "c.json: fathom.capacity: found the number 1.01, expected a number above 0 and at most 1"},
      {R"({"routed_blocks": [1], "capacity": [true]})", "c.json: fathom.capacity[0]: found true, expected a number above 0 and at most 1"},
      {R"({"routed_blocks": [1], "capacity": [0.1, 0.2]})", "c.json: fathom.capacity: found an array of 2, expected as many as routed blocks: 1"},
      {R"({"routed_blocks": [1], "capacity": {"first": 0.1, "last": 0}})",
       "c.json: fathom.capacity.last: found the number 0, expected a number above 0 and at most 1"},
      {R"({"routed_blocks": "none", "version": 3})", "c.json: fathom.version: found the number 3, expected a whole number from 1 to 2"},
      {R"({"routed_blocks": [1], "capacity": 0.5, "granularity": "head"})", "c.json: fathom.granularity: found \"head\", expected one of block, attention, mlp, attention+mlp"},
      {R"({"routed_blocks": [1], "capacity": 0.5, "paths": "light"})", "c.json: fathom.light_rank: found no such key, expected a whole number from 1 to 131072"},
      {R"({"routed_blocks": [1], "capacity": 0.5, "paths": "light", "light_rank": 2})",
       "c.json: fathom.capacity: found the number 0.5, expected no such key with paths light; every token takes the one path"},
      {R"({"routed_blocks": [1], "capacity": 0.5, "light_rank": 2})", "c.json: fathom.light_rank: found the number 2, expected no such key with paths skip,full; it is the rank of the light path"},
      {R"({"routed_blocks": [1], "capacity": 0.5, "paths": "skip,light,full", "light_rank": 2})", "c.json: fathom.light_capacity: found no such key, expected a share of tokens from 0 to 1"},
      {R"({"routed_blocks": [1], "capacity": 0.5, "paths": "skip,light,full", "light_rank": 2, "light_capacity": 0.51})",
       "c.json: fathom.light_capacity: found the number 0.51, expected a share of tokens that the dearer paths leave over"},
      {R"({"units": 3})", "c.json: fathom.units: found the number 3, expected a list of units"},
      {R"({"units": [3]})", "c.json: fathom.units[0]: found the number 3, expected a unit { … }"},
      {R"({"units": [], "capacity": 1})", "c.json: fathom.capacity: found the number 1, expected no such key beside \"units\"; every unit has its own"},
      {R"({"units": [{}]})", "c.json: fathom.units[0].block: found no such key, expected a whole number from 0 to 7"},
      {R"({"units": [{"block": 1}]})", "c.json: fathom.units[0].capacity: found no such key, expected a number from 0 to 1"},
      {R"({"units": [{"block": 1, "capacity": 0}]})", "c.json: fathom.units[0].capacity: found 0, expected a number above 0 and at most 1"},
      {R"({"units": [{"block": 1, "capacity": 1, "part": "norm"}]})", "c.json: fathom.units[0].part: found \"norm\", expected one of block, attention, mlp"},
      {R"({"units": [{"block": 1, "capacity": 1, "capasity": 3}]})", "c.json: fathom.units[0].capasity: found an unknown key, expected \"capacity\" perhaps; remove it or correct its name"},
      {R"({"units": [{"block": 1, "capacity": 1}, {"block": 1, "capacity": 1, "part": "mlp"}]})",
       "c.json: fathom.units[1]: found MLP of block 1 after block 1, expected units ascending by block, a block's attention before its MLP, each once"},
      {R"({"units": [{"block": 1, "part": "mlp", "capacity": 1}, {"block": 1, "part": "attention", "capacity": 1}]})",
       "c.json: fathom.units[1]: found attention of block 1 after MLP of block 1, expected units ascending by block, a block's attention before its MLP, each once"},
      {R"({"units": [{"block": 1, "paths": "exit"}]})", str("c.json: fathom.units[0].paths: found \"exit\", ", kPaths)},
      {R"({"units": [{"block": 1, "paths": ["full"]}]})", str("c.json: fathom.units[0].paths: found \"full\", ", kPaths)},
      {R"({"units": [{"block": 1, "paths": "skip,light"}]})", str("c.json: fathom.units[0].paths: found \"skip,light\", ", kPaths)},
      {R"({"units": [{"block": 1, "paths": "skip,skip,full"}]})", str("c.json: fathom.units[0].paths: found \"skip,skip,full\", ", kPaths)},
      {R"({"units": [{"block": 1, "paths": "skip,full,"}]})", str("c.json: fathom.units[0].paths: found \"skip,full,\", ", kPaths)},
      {R"({"units": [{"block": 1, "paths": "exit,skip,full", "capacity": 0.5, "skip_capacity": 0.6}]})",
       "c.json: fathom.units[0].skip_capacity: found the number 0.6, expected a share of tokens that the dearer paths leave over"},
      {R"({"units": [{"block": 1, "capacity": 0.5, "skip_capacity": 0.2}]})",
       "c.json: fathom.units[0].skip_capacity: found the number 0.2, expected no such key with paths skip,full; the cheapest path takes what the others leave"},
      {R"({"routed_blocks": "none", "gate": "softmax"})",
       "c.json: fathom.gate: found \"softmax\", expected one of one_plus_tanh, sigmoid, raw, hard"},
      {R"({"routed_blocks": "none", "rule": "topk"})", "c.json: fathom.rule: found \"topk\", expected one of score, predictor, router_bce"},
      {R"({"routed_blocks": "none", "gate_scale": 101})", "c.json: fathom.gate_scale: found the number 101, expected a number from 0 to 100"},
      {R"({"routed_blocks": "none", "forced_positions": 16777217})",
       "c.json: fathom.forced_positions: found the number 16777217, expected a whole number from 0 to 16777216"},
      {R"({"routed_blocks": "none", "random_seed": -1})",
       "c.json: fathom.random_seed: found the number -1, expected a whole number from 0 to 18446744073709551615"},
      {R"({"routed_blocks": "none", "random_seed": 18446744073709551616})",
       "c.json: fathom.random_seed: found the number 1.8446744073709552e+19, expected a whole number from 0 to 18446744073709551615"},
      {R"({"routed_blocks": "none", "capasity": 1})",
       "c.json: fathom.capasity: found an unknown key, expected \"capacity\" perhaps; remove it or correct its name"},
  };
  for (const auto& [text, message] : cases) EXPECT_EQ(error(text), message) << text;
}

TEST(RoutingConfig, APatternThatRoutesNothingIsSaid) {
  EXPECT_EQ(error(R"({"routed_blocks": "every_second", "capacity": 0.5})", 1),
            "c.json: fathom.routed_blocks: found \"every_second\", which routes no block of 1, expected a pattern that routes a "
            "block; write \"none\" for a dense model");
}

TEST(RoutingConfig, BoundsAreInclusive) {
  EXPECT_EQ(read(R"({"routed_blocks": [7], "capacity": 1, "gate_scale": 100, "forced_positions": 16777216})").gate_scale, 100);
  EXPECT_EQ(read(R"({"routed_blocks": [0], "capacity": 1e-9, "gate_scale": 0})").units[0].capacity, 1e-9);
  const auto rank = [](int64_t r) { return str(R"({"units": [{"block": 0, "paths": "light", "light_rank": )", r, "}]}"); };
  EXPECT_EQ(read(rank(limits::kWidth)).units[0].light_rank, limits::kWidth);
  EXPECT_EQ(error(rank(limits::kWidth + 1)), "c.json: fathom.units[0].light_rank: found the number 131073, expected a whole number from 1 to 131072");
}

}  // namespace
}  // namespace fathom::routing
