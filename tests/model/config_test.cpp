#include "model/config.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "model/random_model.h"

namespace fathom::model {
namespace {

// A config.json with every key that a file must have, edited by a JSON merge patch (null removes a key).
Json edited(const std::string& patch) {
  Json json = parse_json(R"({"model_type": "llama", "vocab_size": 100, "hidden_size": 24, "intermediate_size": 40,
    "num_hidden_layers": 4, "num_attention_heads": 4, "rms_norm_eps": 1e-5})", "base");
  json.merge_patch(parse_json(patch, "patch"));
  return json;
}

ModelConfig read(const std::string& patch) { return ModelConfig::from_json(edited(patch), "config.json"); }

std::string error(const Json& json) {
  try {
    ModelConfig::from_json(json, "config.json");
  } catch (const UserError& e) {
    return e.what();
  }
  return "no error";
}

TEST(ModelConfig, AbsentKeysAreWhatLlamaAssumes) {
  const ModelConfig c = ModelConfig::from_json(edited(R"({"rms_norm_eps": null})"), "config.json");
  EXPECT_EQ(c.num_key_value_heads, 4);
  EXPECT_EQ(c.head_dim, 6);
  EXPECT_EQ(c.max_position_embeddings, 2048);
  EXPECT_EQ(c.rms_norm_eps, 1e-6);
  EXPECT_EQ(c.rope_theta, 10000);
  EXPECT_EQ(c.initializer_range, 0.02);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_FALSE(c.bos_token_id.has_value());
  EXPECT_TRUE(c.eos_token_ids.empty());
  EXPECT_TRUE(c.routing.dense());
}

TEST(ModelConfig, BothRopeForms) {
  EXPECT_EQ(read(R"({"rope_theta": 500000.0})").rope_theta, 500000);
  EXPECT_EQ(read(R"({"rope_theta": 500000.0, "rope_scaling": null})").rope_theta, 500000);
  EXPECT_EQ(read(R"({"rope_theta": 5e5, "rope_scaling": {"rope_type": "default"}})").rope_theta, 500000);
  EXPECT_EQ(read(R"({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}})").rope_theta, 1e6);
  EXPECT_EQ(read(R"({"rope_parameters": {"rope_type": "default"}, "rope_theta": 77})").rope_theta, 77);
  EXPECT_EQ(read(R"({"rope_parameters": {"rope_theta": 77, "type": "default"}, "rope_theta": 77})").rope_theta, 77);
}

TEST(ModelConfig, IdsOfSpecialTokens) {
  EXPECT_EQ(read(R"({"eos_token_id": 2})").eos_token_ids, (std::vector<int64_t>{2}));
  EXPECT_EQ(read(R"({"eos_token_id": [2, 99]})").eos_token_ids, (std::vector<int64_t>{2, 99}));
  EXPECT_EQ(read(R"({"bos_token_id": 0})").bos_token_id, 0);
  EXPECT_EQ(read(R"({"pad_token_id": 5})").pad_token_id, 5);
  EXPECT_FALSE(read(R"({"pad_token_id": -1})").pad_token_id.has_value());  // as in the first Llama conversions
}

TEST(ModelConfig, WhatTheNetworkDoesNotReadIsIgnored) {
  read(R"({"attention_dropout": 0.1, "torch_dtype": "bfloat16", "dtype": "float32", "transformers_version": "5.23.0",
    "use_cache": true, "pretraining_tp": 1, "architectures": ["LlamaForCausalLM"], "attention_bias": false, "mlp_bias": null})");
}

TEST(ModelConfig, WritesTheKeysThatTransformersReads) {
  ModelConfig c = read(R"({"eos_token_id": [1, 2], "bos_token_id": 3})");
  Json j = c.to_json();
  EXPECT_EQ(j["model_type"], "llama");
  EXPECT_EQ(j["architectures"], Json::array({"LlamaForCausalLM"}));
  EXPECT_EQ(j["rope_theta"], 10000.0);
  EXPECT_EQ(j["rope_parameters"], (Json{{"rope_theta", 10000.0}, {"rope_type", "default"}}));
  EXPECT_EQ(j["eos_token_id"], (Json{1, 2}));
  EXPECT_EQ(j["bos_token_id"], 3);
  EXPECT_TRUE(j["pad_token_id"].is_null());
  EXPECT_FALSE(j.contains("fathom"));
  c.eos_token_ids = {7};
  c.routing.units = {{1, 0.125}};
  j = c.to_json();
  EXPECT_EQ(j["model_type"], "fathom");
  EXPECT_EQ(j["architectures"], Json::array({"FathomForCausalLM"}));
  EXPECT_EQ(j["eos_token_id"], 7);
  EXPECT_EQ(j["fathom"]["routed_blocks"], (Json::array({1})));
}

TEST(ModelConfig, ComesBackExactly) {
  Random random(1);
  for (int trial = 0; trial < 500; ++trial) {
    RandomLimits limits;
    limits.dense = trial % 4 == 0;
    ModelConfig c = random_config(random, limits);
    c.rope_theta = 1 + random.uniform() * 1e6;
    c.initializer_range = random.uniform();
    EXPECT_EQ(ModelConfig::from_json(parse_json(c.to_json().dump(), "c"), "c"), c) << c.to_json().dump(2);
  }
}

TEST(ModelConfig, AFathomModelWhoseBlocksAreAllDenseIsALlama) {
  const ModelConfig c = read(R"({"model_type": "fathom", "fathom": {"routed_blocks": "none"}})");
  EXPECT_TRUE(c.routing.dense());
  EXPECT_EQ(c.to_json()["model_type"], "llama");
}

TEST(ModelConfig, BadFiles) {
  const std::string range_v = "a whole number from 1 to 16777216";
  const std::pair<std::string, std::string> cases[] = {
      {R"({"model_type": null})", "model_type: found no such key, expected a string"},
      {R"({"model_type": "qwen2"})",
       "model_type: found \"qwen2\", expected \"llama\" or \"fathom\"; other architectures cannot be computed here"},
      {R"({"model_type": 5})", "model_type: found the number 5, expected a string"},
      {R"({"vocab_size": null})", "vocab_size: found no such key, expected " + range_v},
      {R"({"vocab_size": 0})", "vocab_size: found the number 0, expected " + range_v},
      {R"({"vocab_size": 16777217})", "vocab_size: found the number 16777217, expected " + range_v},
      {R"({"vocab_size": "many"})", "vocab_size: found the string \"many\", expected " + range_v},
      {R"({"vocab_size": [100]})", "vocab_size: found an array of 1, expected " + range_v},
      {R"({"hidden_size": 131073})", "hidden_size: found the number 131073, expected a whole number from 1 to 131072"},
      {R"({"hidden_size": -8})", "hidden_size: found the number -8, expected a whole number from 1 to 131072"},
      {R"({"hidden_size": 24.5})", "hidden_size: found the number 24.5, expected a whole number from 1 to 131072"},
      {R"({"intermediate_size": 1048577})", "intermediate_size: found the number 1048577, expected a whole number from 1 to 1048576"},
      {R"({"num_hidden_layers": 1025})", "num_hidden_layers: found the number 1025, expected a whole number from 1 to 1024"},
      {R"({"num_hidden_layers": 1e30})", "num_hidden_layers: found the number 1e+30, expected a whole number from 1 to 1024"},
      {R"({"num_attention_heads": 4097})", "num_attention_heads: found the number 4097, expected a whole number from 1 to 4096"},
      {R"({"num_attention_heads": 5})",
       "head_dim: found no such key, expected a head width, since hidden_size 24 is no multiple of num_attention_heads 5"},
      {R"({"num_key_value_heads": 3})", "num_key_value_heads: found 3, expected a divisor of num_attention_heads 4"},
      {R"({"num_key_value_heads": 8})", "num_key_value_heads: found 8, expected a divisor of num_attention_heads 4"},
      {R"({"head_dim": 7})", "head_dim: found 7, expected an even number (rotary positions turn pairs)"},
      {R"({"num_attention_heads": 8})", "head_dim: found 3, expected an even number (rotary positions turn pairs)"},
      {R"({"head_dim": 1026})", "head_dim: found the number 1026, expected a whole number from 1 to 1024"},
      {R"({"max_position_embeddings": 16777217})",
       "max_position_embeddings: found the number 16777217, expected a whole number from 1 to 16777216"},
      {R"({"rms_norm_eps": 0})", "rms_norm_eps: found the number 0, expected a number from 1e-12 to 0.1"},
      {R"({"rms_norm_eps": 0.2})", "rms_norm_eps: found the number 0.2, expected a number from 1e-12 to 0.1"},
      {R"({"initializer_range": -0.1})", "initializer_range: found the number -0.1, expected a number from 0 to 1"},
      {R"({"rope_theta": 0.5})", "rope_theta: found the number 0.5, expected a number from 1 to 1e+12"},
      {R"({"rope_theta": 1e13})", "rope_theta: found the number 10000000000000.0, expected a number from 1 to 1e+12"},
      {R"({"rope_scaling": {"type": "linear", "factor": 2}})",
       "rope_scaling.type: found \"linear\", expected \"default\"; scaled rotary positions cannot be computed here"},
      {R"({"rope_scaling": {"rope_type": "llama3"}})",
       "rope_scaling.rope_type: found \"llama3\", expected \"default\"; scaled rotary positions cannot be computed here"},
      {R"({"rope_scaling": 2})", "rope_scaling: found the number 2, expected an object { … }"},
      {R"({"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn"}})",
       "rope_parameters.rope_type: found \"yarn\", expected \"default\"; scaled rotary positions cannot be computed here"},
      {R"({"rope_parameters": {"rope_theta": 20000}, "rope_theta": 10000})",
       "rope_parameters.rope_theta: found 20000, expected 10000, as the key rope_theta beside it says; remove one of them"},
      {R"({"rope_parameters": {"partial_rotary_factor": 0.5}})", "rope_parameters.partial_rotary_factor: found the number 0.5, expected 1"},
      {R"({"partial_rotary_factor": 0.25})", "partial_rotary_factor: found the number 0.25, expected 1"},
      {R"({"hidden_act": "gelu"})", "hidden_act: found \"gelu\", expected \"silu\""},
      {R"({"attention_bias": true})", "attention_bias: found true, expected false; models with biases in attention cannot be computed here"},
      {R"({"mlp_bias": true})",
       "mlp_bias: found true, expected false; models with biases in the feed-forward part cannot be computed here"},
      {R"({"attention_bias": "no"})", "attention_bias: found the string \"no\", expected true or false"},
      {R"({"quantization_config": {"bits": 4}})",
       "quantization_config: found an object of 1 key, expected no such key; quantised checkpoints cannot be read here"},
      {R"({"tie_word_embeddings": 1})", "tie_word_embeddings: found the number 1, expected true or false"},
      {R"({"bos_token_id": 100})", "bos_token_id: found the number 100, expected a whole number from 0 to 99"},
      {R"({"eos_token_id": -1})", "eos_token_id: found the number -1, expected a whole number from 0 to 99"},
      {R"({"eos_token_id": [1, 100]})", "eos_token_id[1]: found the number 100, expected a whole number from 0 to 99"},
      {R"({"eos_token_id": "end"})", "eos_token_id: found the string \"end\", expected a whole number from 0 to 99"},
      {R"({"pad_token_id": -2})", "pad_token_id: found the number -2, expected a whole number from -1 to 99"},
      {R"({"model_type": "fathom"})", "fathom: found no such key, expected an object { … }"},
      {R"({"model_type": "fathom", "fathom": []})", "fathom: found an array of 0, expected an object { … }"},
      {R"({"model_type": "fathom", "fathom": {"routed_blocks": [4], "capacity": 0.5}})",
       "fathom.routed_blocks[0]: found the number 4, expected a whole number from 0 to 3"},
      {R"({"fathom": {"routed_blocks": [1], "capacity": 0.5}})",
       "fathom: found an object of 2 keys, expected no such key where model_type is \"llama\"; other programs would run every token "
       "through every block; write \"fathom\" as model_type"},
      {R"({"hidden_size": 131072, "intermediate_size": 1048576, "num_hidden_layers": 1024, "head_dim": 2})",
       "found a model of about 4.31012879e+14 parameters, expected at most 4398046511104"},
  };
  for (const auto& [patch, message] : cases) EXPECT_EQ(error(edited(patch)), "config.json: " + message) << patch;
  EXPECT_EQ(error(Json::array()), "config.json: found an array of 0, expected an object { … }");
  EXPECT_EQ(error(Json(3)), "config.json: found the number 3, expected an object { … }");
}

TEST(ModelConfig, TheListOfEndsHasABound) {
  Json json = edited("{}");
  json["eos_token_id"] = std::vector<int64_t>(256, 3);
  EXPECT_EQ(error(json), "no error");
  json["eos_token_id"].push_back(3);
  EXPECT_EQ(error(json), "config.json: eos_token_id: found an array of 257, expected at most 256 ids");
}

TEST(ModelConfig, BoundsAreInclusive) {
  EXPECT_EQ(read(R"({"vocab_size": 16777216})").vocab_size, 16777216);
  EXPECT_EQ(read(R"({"hidden_size": 131072, "head_dim": 64})").hidden_size, 131072);
  EXPECT_EQ(read(R"({"intermediate_size": 1048576})").intermediate_size, 1048576);
  EXPECT_EQ(read(R"({"num_hidden_layers": 1024})").num_hidden_layers, 1024);
  EXPECT_EQ(read(R"({"num_attention_heads": 4096, "head_dim": 1024})").num_attention_heads, 4096);
  EXPECT_EQ(read(R"({"max_position_embeddings": 16777216})").max_position_embeddings, 16777216);
  EXPECT_EQ(read(R"({"rms_norm_eps": 1e-12})").rms_norm_eps, 1e-12);
  EXPECT_EQ(read(R"({"rope_theta": 1e12})").rope_theta, 1e12);
}

TEST(ModelConfig, ValidateHoldsWhatWasBuiltInTheProgram) {
  const ModelConfig good = read(R"({"model_type": "fathom", "fathom": {"routed_blocks": [1, 3], "capacity": 0.5}})");
  const auto message = [&](auto change) {
    ModelConfig c = good;
    change(c);
    try {
      c.validate("here");
    } catch (const UserError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message([](ModelConfig&) {}), "no error");
  EXPECT_EQ(message([](ModelConfig& c) { c.routing.units[1].block = 4; }),
            "here: fathom.units[1].block: found block 4, expected ascending indices below num_hidden_layers 4, a block's attention before its MLP");
  EXPECT_EQ(message([](ModelConfig& c) { c.routing.units[1].block = 1; }),
            "here: fathom.units[1].block: found block 1, expected ascending indices below num_hidden_layers 4, a block's attention before its MLP");
  EXPECT_EQ(message([](ModelConfig& c) { c.routing.units[0].capacity = 0; }),
            "here: fathom.units[0].capacity: found 0, expected a number above 0 and at most 1");
  // A light path must cost less than the part that it stands for.
  const auto light = [](routing::Part part, int64_t rank) {
    return [=](ModelConfig& c) { c.routing.units[0] = {.block = 1, .capacity = 0.5, .part = part, .paths = {.skip = false, .light = true}, .light_rank = rank}; };
  };
  const auto most = [&](routing::Part part) {
    int64_t rank = 1;
    while (message(light(part, rank)) == "no error") ++rank;
    EXPECT_EQ(message(light(part, rank)), str("here: fathom.units[0].light_rank: found ", rank, ", expected below ", rank, ", from which on light costs as much as what it stands for"));
    return rank - 1;
  };
  const int64_t HD = good.num_attention_heads * good.head_dim, GD = good.num_key_value_heads * good.head_dim, F = good.intermediate_size;
  EXPECT_EQ(most(routing::Part::attention), HD + GD - 1);
  EXPECT_EQ(most(routing::Part::mlp), (3 * F - 1) / 2);
  EXPECT_EQ(message(light(routing::Part::mlp, 0)), str("here: fathom.units[0].light_rank: found 0, expected a whole number from 1 to ", limits::kWidth));
  EXPECT_EQ(message([](ModelConfig& c) { c.routing.units[0].paths = {.skip = false, .full = true}; }),
            "here: fathom.units[0].paths: found full, expected full with one or more of exit, skip and light; or skip or light alone, which every token takes");
  EXPECT_EQ(message([](ModelConfig& c) { c.num_key_value_heads = 0; }),
            "here: num_key_value_heads: found 0, expected a whole number from 1 to 4096");
  EXPECT_EQ(message([](ModelConfig& c) { c.rms_norm_eps = 1; }), "here: rms_norm_eps: found 1, expected a number from 1e-12 to 0.1");
  EXPECT_EQ(message([](ModelConfig& c) { c.rope_theta = 0; }), "here: rope_theta: found 0, expected a number from 1 to 1e+12");
}

}  // namespace
}  // namespace fathom::model
