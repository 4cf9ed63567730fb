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
  for (const auto& b : read("{\"routed_blocks\": " + pattern + ", \"capacity\": 0.5}", n_blocks).blocks) out.push_back(b.block);
  return out;
}

std::vector<double> capacity(const std::string& capacity, const std::string& pattern = "[1, 3, 5]") {
  std::vector<double> out;
  for (const auto& b : read("{\"routed_blocks\": " + pattern + ", \"capacity\": " + capacity + "}").blocks) out.push_back(b.capacity);
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
  expected.blocks = {{1, 0.25}};
  EXPECT_EQ(read(R"({"routed_blocks": [1], "capacity": 0.25})"), expected);
  EXPECT_EQ(read(R"({"routed_blocks": "none"})"), RoutingConfig{});
}

TEST(RoutingConfig, EveryFieldIsReadAndWritten) {
  const RoutingConfig c = read(R"({"version": 1, "routed_blocks": [0, 2], "capacity": [0.1, 0.3], "gate": "sigmoid",
    "gate_scale": 0.5, "rule": "predictor", "selection": "random", "kv": "keep", "router_input": "normed",
    "router_bias": true, "forced_positions": 2, "random_seed": 18446744073709551615})");
  EXPECT_EQ(c.blocks, (std::vector<RoutedBlock>{{0, 0.1}, {2, 0.3}}));
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
  c.blocks = {{3, 0.1 + 0.2}};  // not a short decimal
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

TEST(RoutingConfig, RoutedIndex) {
  const RoutingConfig c = read(R"({"routed_blocks": [1, 4, 7], "capacity": 0.5})");
  EXPECT_EQ(c.routed_index(0), -1);
  EXPECT_EQ(c.routed_index(1), 0);
  EXPECT_EQ(c.routed_index(4), 1);
  EXPECT_EQ(c.routed_index(5), -1);
  EXPECT_EQ(c.routed_index(7), 2);
  EXPECT_EQ(c.routed_index(8), -1);
  EXPECT_EQ(RoutingConfig{}.routed_index(0), -1);
}

constexpr const char* kPattern =
    "expected a list of block indices, \"none\", \"all\", \"every_second\", \"every_third\" or {\"from\": a, \"to\": b, \"step\": s}";
constexpr const char* kCapacity =
    "expected a number above 0 and at most 1, a list of them (one per routed block) or {\"first\": a, \"last\": b}";

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
      {R"({"routed_blocks": "none", "version": 2})", "c.json: fathom.version: found the number 2, expected a whole number from 1 to 1"},
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
  EXPECT_EQ(read(R"({"routed_blocks": [0], "capacity": 1e-9, "gate_scale": 0})").blocks[0].capacity, 1e-9);
}

}  // namespace
}  // namespace fathom::routing
