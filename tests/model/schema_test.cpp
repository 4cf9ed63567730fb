#include "model/schema.h"

#include <gtest/gtest.h>

#include <map>

#include "core/random.h"
#include "model/cost.h"
#include "model/random_model.h"

namespace fathom::model {
namespace {

ModelConfig small() {
  ModelConfig c;
  c.vocab_size = 11;
  c.hidden_size = 9;
  c.intermediate_size = 5;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 6;
  c.num_key_value_heads = 3;
  c.head_dim = 4;
  c.routing.units = {{1, 0.5}};
  return c;
}

std::string text(const ModelConfig& config) {
  std::string out;
  for (const TensorSpec& t : schema(config)) {
    out += t.name;
    for (int64_t d : t.shape) out += " " + std::to_string(d);
    out += "\n";
  }
  return out;
}

constexpr const char* kBlock0 = R"(model.layers.0.input_layernorm.weight 9
model.layers.0.self_attn.q_proj.weight 24 9
model.layers.0.self_attn.k_proj.weight 12 9
model.layers.0.self_attn.v_proj.weight 12 9
model.layers.0.self_attn.o_proj.weight 9 24
model.layers.0.post_attention_layernorm.weight 9
model.layers.0.mlp.gate_proj.weight 5 9
model.layers.0.mlp.up_proj.weight 5 9
model.layers.0.mlp.down_proj.weight 9 5
)";

TEST(Schema, IsTheTableOfTheHeader) {
  std::string block1 = kBlock0;
  for (size_t at; (at = block1.find("layers.0")) != std::string::npos;) block1[at + 7] = '1';
  const std::string head = "model.embed_tokens.weight 11 9\n", norm = "model.norm.weight 9\n", lm_head = "lm_head.weight 11 9\n";
  const std::string router = "model.layers.1.router.weight 1 9\n", bias = "model.layers.1.router.bias 1\n";
  const std::string predictor =
      "model.layers.1.predictor.fc1.weight 4 9\nmodel.layers.1.predictor.fc1.bias 4\n"
      "model.layers.1.predictor.fc2.weight 1 4\nmodel.layers.1.predictor.fc2.bias 1\n";
  ModelConfig c = small();
  EXPECT_EQ(text(c), head + kBlock0 + block1 + router + norm + lm_head);
  c.routing.router_bias = true;
  c.routing.rule = routing::CausalRule::predictor;
  EXPECT_EQ(text(c), head + kBlock0 + block1 + router + bias + predictor + norm + lm_head);
  c.tie_word_embeddings = true;
  c.routing = {};
  EXPECT_EQ(text(c), head + kBlock0 + block1 + norm);
}

TEST(Schema, BiasesAndNormsFollowTheirMatrices) {
  ModelConfig c = small();
  c.num_hidden_layers = 1, c.routing = {};
  const auto besides = [&](auto change) {  // what a property adds to the plain model
    ModelConfig with = c;
    change(with);
    std::string plain = text(c), all = text(with), out;
    for (size_t at = 0, end; at < all.size(); at = end + 1) {
      end = all.find('\n', at);
      const std::string line = all.substr(at, end + 1 - at);
      if (plain.starts_with(line)) plain.erase(0, line.size());
      else out += line.substr(std::string("model.layers.0.").size());
    }
    EXPECT_EQ(plain, "");
    return out;
  };
  EXPECT_EQ(besides([](ModelConfig& m) { m.qkv_bias = true; }), "self_attn.q_proj.bias 24\nself_attn.k_proj.bias 12\nself_attn.v_proj.bias 12\n");
  EXPECT_EQ(besides([](ModelConfig& m) { m.output_bias = true; }), "self_attn.o_proj.bias 9\n");
  EXPECT_EQ(besides([](ModelConfig& m) { m.mlp_bias = true; }), "mlp.gate_proj.bias 5\nmlp.up_proj.bias 5\nmlp.down_proj.bias 9\n");
  EXPECT_EQ(besides([](ModelConfig& m) { m.qk_norm = true; }), "self_attn.q_norm.weight 4\nself_attn.k_norm.weight 4\n");
  for (const TensorSpec& t : schema(c)) EXPECT_EQ(is_reducible(t), t.shape.size() == 2) << t.name;
}

TEST(Schema, PartsHaveRoutersOfTheirOwnAndStaticOnesNoWeights) {
  ModelConfig c = small();
  c.num_hidden_layers = 3;
  c.routing.units = {{.block = 0, .capacity = 0.5, .part = routing::Part::mlp, .paths = {.light = true}, .light_rank = 2, .light_capacity = 0.25},
                     {.block = 1, .capacity = 0, .part = routing::Part::attention, .paths = {.skip = false, .light = true, .full = false}, .light_rank = 3},
                     {.block = 1, .capacity = 0.5, .part = routing::Part::mlp, .paths = {.exit = true, .skip = false}},
                     {.block = 2, .capacity = 0, .paths = {.full = false}}};
  EXPECT_EQ(text(c), std::string("model.embed_tokens.weight 11 9\n") + kBlock0 + R"(model.layers.0.mlp.router.weight 1 9
model.layers.0.mlp.light.down.weight 2 9
model.layers.0.mlp.light.up.weight 9 2
model.layers.1.post_attention_layernorm.weight 9
model.layers.1.mlp.gate_proj.weight 5 9
model.layers.1.mlp.up_proj.weight 5 9
model.layers.1.mlp.down_proj.weight 9 5
model.layers.1.self_attn.light.down.weight 3 9
model.layers.1.self_attn.light.up.weight 9 3
model.layers.1.mlp.router.weight 1 9
model.norm.weight 9
lm_head.weight 11 9
)");
  EXPECT_TRUE(is_reducible({"model.layers.1.self_attn.light.up.weight", {9, 3}}));
  EXPECT_TRUE(is_reducible({"model.layers.1.light.down.weight", {3, 9}}));
  EXPECT_FALSE(is_reducible({"model.layers.0.mlp.router.weight", {1, 9}}));
}

TEST(Schema, AdaptersStandBehindTheProjectionsOfTheirPart) {
  ModelConfig c = small();
  c.adapters = {.rank = 2, .projections = {"k", "down"}};
  const int64_t C = c.hidden_size, GD = c.num_key_value_heads * c.head_dim, F = c.intermediate_size;
  std::map<std::string, std::vector<int64_t>> found;
  for (const TensorSpec& t : schema(c))
    if (is_adapter(t.name)) found.emplace(t.name, t.shape);
  EXPECT_EQ(std::ssize(found), 4 * c.num_hidden_layers);
  const std::string at = "model.layers.0.";
  EXPECT_EQ(found.at(at + "self_attn.k_proj.lora_A.weight"), (std::vector<int64_t>{2, C}));
  EXPECT_EQ(found.at(at + "self_attn.k_proj.lora_B.weight"), (std::vector<int64_t>{GD, 2}));
  EXPECT_EQ(found.at(at + "mlp.down_proj.lora_A.weight"), (std::vector<int64_t>{2, F}));
  EXPECT_EQ(found.at(at + "mlp.down_proj.lora_B.weight"), (std::vector<int64_t>{C, 2}));
  EXPECT_TRUE(is_reducible({at + "mlp.down_proj.lora_A.weight", {2, F}}));
}

TEST(Schema, ElementsAreTheProductOfTheShape) {
  EXPECT_EQ((TensorSpec{"a", {3, 4, 5}}.elements()), 60);
  EXPECT_EQ((TensorSpec{"a", {}}.elements()), 1);
}

TEST(Schema, ItsElementsAreTheModelsParameters) {
  Random random(9);
  for (int trial = 0; trial < 300; ++trial) {
    RandomLimits limits;
    limits.dense = trial % 5 == 0;
    limits.paths = trial % 2 == 0;
    limits.adapters = trial % 3 == 0;
    const ModelConfig c = random_config(random, limits);
    int64_t elements = 0;
    for (const TensorSpec& t : schema(c)) elements += t.elements();
    EXPECT_EQ(parameters(c).total(), elements) << c.to_json().dump(2);
  }
}

TEST(Schema, ThePredictorOfANarrowModelHasAUnit) {
  ModelConfig c = small();
  c.hidden_size = 1;
  EXPECT_EQ(c.predictor_width(), 1);
}

}  // namespace
}  // namespace fathom::model
