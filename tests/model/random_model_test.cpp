#include "model/random_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "model/schema.h"

namespace fathom::model {
namespace {

TEST(RandomModel, ConfigurationsCoverTheChoices) {
  Random random(1);
  std::set<int> gates, rules, kvs, inputs, biases, tied, forced, routed_all, full_groups;
  int odd_width = 0;
  for (int i = 0; i < 400; ++i) {
    const ModelConfig c = random_config(random);
    EXPECT_GE(c.routing.units.size(), 1u);
    gates.insert(static_cast<int>(c.routing.gate));
    rules.insert(static_cast<int>(c.routing.rule));
    kvs.insert(static_cast<int>(c.routing.kv));
    inputs.insert(static_cast<int>(c.routing.router_input));
    biases.insert(c.routing.router_bias);
    tied.insert(c.tie_word_embeddings);
    forced.insert(c.routing.forced_positions > 0);
    routed_all.insert(static_cast<int64_t>(c.routing.units.size()) == c.num_hidden_layers);
    full_groups.insert(c.num_key_value_heads == 1 ? 1 : c.num_key_value_heads == c.num_attention_heads ? 2 : 3);
    odd_width += c.hidden_size % 16 != 0;
  }
  EXPECT_EQ(gates.size(), 4u);
  EXPECT_EQ(rules.size(), 3u);
  EXPECT_EQ(kvs.size(), 2u);
  EXPECT_EQ(inputs.size(), 2u);
  EXPECT_EQ(biases.size(), 2u);
  EXPECT_EQ(tied.size(), 2u);
  EXPECT_EQ(forced.size(), 2u);
  EXPECT_EQ(routed_all.size(), 2u);
  EXPECT_EQ(full_groups.size(), 3u);
  EXPECT_GT(odd_width, 300);
}

TEST(RandomModel, LimitsAreKept) {
  Random random(2);
  RandomLimits limits{2, 40, 3, 8, 30, 20, true, true};
  for (int i = 0; i < 200; ++i) {
    const ModelConfig c = random_config(random, limits);
    EXPECT_LE(c.num_hidden_layers, 2);
    EXPECT_LE(c.hidden_size, 40);
    EXPECT_EQ(c.hidden_size % c.num_attention_heads, 0);
    EXPECT_LE(c.num_attention_heads, 3);
    EXPECT_LE(c.head_dim, 8);
    EXPECT_LE(c.intermediate_size, 30);
    EXPECT_LE(c.vocab_size, 20);
    EXPECT_TRUE(c.routing.dense());
  }
}

TEST(RandomModel, TheSameSeedGivesTheSameModel) {
  Random a(3), b(3);
  const ModelConfig c = random_config(a);
  EXPECT_EQ(c, random_config(b));
  EXPECT_EQ(random_weights(c, 5), random_weights(c, 5));
  EXPECT_NE(random_weights(c, 5), random_weights(c, 6));
  EXPECT_EQ(random_thresholds(c, a), random_thresholds(c, b));
  EXPECT_EQ(random_decisions(c, 30, a), random_decisions(c, 30, b));
  EXPECT_EQ(random_tokens(c, 30, a), random_tokens(c, 30, b));
}

TEST(RandomModel, WeightsHaveTheirDeviation) {
  ModelConfig c;
  c.vocab_size = 300;
  c.hidden_size = 100;
  c.intermediate_size = 144;
  c.num_hidden_layers = 2;
  c.num_attention_heads = c.num_key_value_heads = 4;
  c.head_dim = 16;
  c.routing.units = {{0, 0.5}, {1, 0.5}};
  c.routing.rule = routing::CausalRule::predictor;
  const Weights w = random_weights(c, 1);
  EXPECT_EQ(w.size(), schema(c).size());
  const auto deviation = [&](const std::string& name) {
    const std::vector<float>& v = w.at(name);
    double sum = 0, squares = 0;
    for (float x : v) sum += x, squares += static_cast<double>(x) * x;
    const double mean = sum / static_cast<double>(v.size());
    return std::sqrt(squares / static_cast<double>(v.size()) - mean * mean);
  };
  EXPECT_NEAR(deviation("model.embed_tokens.weight"), 1, 0.05);
  EXPECT_NEAR(deviation("model.layers.0.self_attn.q_proj.weight"), 0.1, 0.01);
  EXPECT_NEAR(deviation("model.layers.1.mlp.down_proj.weight"), 0.5 / 12, 0.005);
  EXPECT_NEAR(deviation("model.layers.1.router.weight"), 0.1, 0.03);
  EXPECT_NEAR(deviation("model.norm.weight"), 0.1, 0.03);
  EXPECT_GT(w.at("model.norm.weight")[0], 0.4f);
}

TEST(RandomModel, PathsCoverTheChoices) {
  Random random(1);
  std::set<std::string> paths;
  std::set<int> parts;
  int plain = 0, split = 0, statics = 0;
  for (int i = 0; i < 1000; ++i) {
    const ModelConfig c = random_config(random, {.paths = true});
    bool all_plain = true;
    for (size_t u = 0; u < c.routing.units.size(); ++u) {
      const routing::RoutedUnit& unit = c.routing.units[u];
      paths.insert(unit.paths.text()), parts.insert(static_cast<int>(unit.part));
      all_plain = all_plain && unit.is_plain();
      split += u > 0 && c.routing.units[u - 1].block == unit.block;
      statics += unit.is_static();
    }
    plain += all_plain;
    EXPECT_EQ(ModelConfig::from_json(c.to_json(), "c"), c);
  }
  EXPECT_EQ(paths.size(), 9u);  // seven with full, two alone
  EXPECT_EQ(parts.size(), 3u);
  EXPECT_GT(plain, 400);
  EXPECT_GT(split, 100);
  EXPECT_GT(statics, 30);
}

TEST(RandomModel, DecisionsKeepForcedPositions) {
  Random random(4);
  for (int i = 0; i < 100; ++i) {
    ModelConfig c = random_config(random);
    c.routing.forced_positions = 3;
    const routing::Decisions d = random_decisions(c, 9, random);
    ASSERT_EQ(d.run.size(), c.routing.units.size());
    for (const auto& run : d.run) {
      ASSERT_EQ(run.size(), 9u);
      EXPECT_TRUE(run[0] && run[1] && run[2]);
    }
  }
}

TEST(RandomModel, DialTablesAreValid) {
  Random random(6);
  for (int i = 0; i < 100; ++i) {
    const ModelConfig c = random_config(random, {.paths = true});
    const routing::DialTable t = random_dial(c, random);
    const size_t cuts = c.routing.cuts();
    EXPECT_EQ(routing::DialTable::from_json(t.to_json(), "t", cuts).points.size(), t.points.size());
    EXPECT_EQ(t.thresholds(t.default_dial).size(), cuts);
    t.require_order(c.routing, "t");
    const std::vector<float> drawn = random_thresholds(c, random);
    for (size_t u = 0; u < c.routing.units.size(); ++u)
      for (size_t i = 1; i < c.routing.units[u].cuts(); ++i) EXPECT_LE(drawn[c.routing.first_cut(u) + i - 1], drawn[c.routing.first_cut(u) + i]);
  }
}

}  // namespace
}  // namespace fathom::model
