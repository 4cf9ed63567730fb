#include "model/config.h"

#include <gmock/gmock.h>

#include <cmath>
#include <tuple>

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

using Type = RopeScaling::Type;

TEST(ModelConfig, EveryScalingInBothForms) {
  const auto both = [](const std::string& inner) {
    const ModelConfig old = read(str(R"({"max_position_embeddings": 4096, "rope_theta": 5000, "rope_scaling": {)", inner, "}}"));
    EXPECT_EQ(read(str(R"({"max_position_embeddings": 4096, "rope_parameters": {"rope_theta": 5000, )", inner, "}}")), old) << inner;
    EXPECT_EQ(old.rope_theta, 5000);
    return old.rope_scaling;
  };
  EXPECT_EQ(both(R"("type": "linear", "factor": 2.5)"), (RopeScaling{.type = Type::linear, .factor = 2.5}));
  RopeScaling llama3{.type = Type::llama3, .factor = 32, .original_context = 1000};
  llama3.low_freq_factor = 1, llama3.high_freq_factor = 4;
  EXPECT_EQ(both(R"("rope_type": "llama3", "factor": 32, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 1000)"), llama3);
  llama3.original_context = 4096;  // what transformers assumes
  EXPECT_EQ(both(R"("rope_type": "llama3", "type": "llama3", "factor": 32, "low_freq_factor": 1, "high_freq_factor": 4)"), llama3);

  RopeScaling yarn{.type = Type::yarn, .factor = 4, .original_context = 1024};
  yarn.beta_fast = 32, yarn.beta_slow = 1, yarn.attention_factor = 0.1 * std::log(4.0) + 1;
  EXPECT_EQ(both(R"("type": "yarn", "factor": 4, "original_max_position_embeddings": 1024)"), yarn);
  EXPECT_EQ(both(R"("type": "yarn", "original_max_position_embeddings": 1024, "truncate": true)"), yarn);  // 4096 / 1024
  yarn.attention_factor = (0.05 * std::log(4.0) + 1) / (0.1 * std::log(4.0) + 1);
  EXPECT_EQ(both(R"("type": "yarn", "factor": 4, "original_max_position_embeddings": 1024, "mscale": 0.5, "mscale_all_dim": 1)"), yarn);
  yarn.beta_fast = 20, yarn.beta_slow = 2, yarn.attention_factor = 1.5;
  EXPECT_EQ(both(R"("type": "yarn", "factor": 4, "original_max_position_embeddings": 1024, "beta_fast": 20, "beta_slow": 2, "attention_factor": 1.5)"), yarn);

  RopeScaling divided{.type = Type::divided};
  divided.divisors = {1, 2.5f, 8};
  EXPECT_EQ(both(R"("type": "longrope", "short_factor": [1, 2.5, 8], "long_factor": [1, 2.5, 8], "attention_factor": 1.0)"), divided);

  // Beside the other keys of the model, and in both places if they agree.
  EXPECT_EQ(read(R"({"original_max_position_embeddings": 77, "rope_scaling": {"type": "yarn", "factor": 2}})").rope_scaling.original_context, 77);
  EXPECT_EQ(read(R"({"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "linear", "factor": 2.0}})").rope_scaling.factor, 2);
}

// Keys and what a family makes of them: biases on q, k, v; on o; on the MLP; norms of queries and keys.
std::string properties(const std::string& patch) {
  const ModelConfig c = read(patch);
  return str(c.qkv_bias, c.output_bias, c.mlp_bias, c.qk_norm);
}

TEST(ModelConfig, FamiliesAreProperties) {
  EXPECT_EQ(properties("{}"), "0000");
  EXPECT_EQ(properties(R"({"attention_bias": true})"), "1100");
  EXPECT_EQ(properties(R"({"attention_bias": true, "mlp_bias": true, "qk_norm": true})"), "1110");  // Llama has no such key
  EXPECT_EQ(properties(R"({"model_type": "mistral", "num_key_value_heads": 2, "attention_bias": true, "mlp_bias": true})"), "0000");
  EXPECT_EQ(properties(R"({"model_type": "qwen2", "num_key_value_heads": 2, "attention_bias": false, "mlp_bias": true})"), "1000");
  EXPECT_EQ(properties(R"({"model_type": "qwen3", "num_key_value_heads": 2, "mlp_bias": true})"), "0001");
  EXPECT_EQ(properties(R"({"model_type": "qwen3", "num_key_value_heads": 2, "attention_bias": true})"), "1101");
  const auto fathom = [](const std::string& keys) {
    return properties(str(R"({"model_type": "fathom", "fathom": {"routed_blocks": [1], "capacity": 0.5})", keys, "}"));
  };
  EXPECT_EQ(fathom(""), "0000");
  EXPECT_EQ(fathom(R"(, "attention_bias": true, "mlp_bias": true, "qk_norm": true)"), "1111");
  EXPECT_EQ(fathom(R"(, "attention_bias": true, "attention_output_bias": false)"), "1000");
  EXPECT_EQ(fathom(R"(, "attention_output_bias": true)"), "0100");
}

TEST(ModelConfig, WhatAFamilyAssumesWhereAKeyIsLeftOut) {
  Json windowless = edited(R"({"model_type": "mistral", "num_attention_heads": 8, "hidden_size": 32})");
  windowless["sliding_window"] = nullptr;
  const ModelConfig mistral = ModelConfig::from_json(windowless, "c");
  EXPECT_EQ(mistral.num_key_value_heads, 8);
  EXPECT_EQ(mistral.head_dim, 4);
  EXPECT_EQ(mistral.max_position_embeddings, 131072);
  EXPECT_EQ(read(R"({"model_type": "mistral", "num_attention_heads": 8, "hidden_size": 32})").max_position_embeddings, 4096);  // its window
  const ModelConfig qwen2 = read(R"({"model_type": "qwen2", "num_attention_heads": 32, "hidden_size": 64})");
  EXPECT_EQ(qwen2.num_key_value_heads, 32);
  EXPECT_EQ(qwen2.head_dim, 2);
  EXPECT_EQ(qwen2.max_position_embeddings, 32768);
  const ModelConfig qwen3 = read(R"({"model_type": "qwen3", "num_attention_heads": 32, "hidden_size": 65})");
  EXPECT_EQ(qwen3.num_key_value_heads, 32);
  EXPECT_EQ(qwen3.head_dim, 128);
  Json nulls = edited(R"({"model_type": "qwen3"})");
  nulls["num_key_value_heads"] = nulls["head_dim"] = nullptr;
  EXPECT_EQ(ModelConfig::from_json(nulls, "c").num_key_value_heads, 4);
  EXPECT_EQ(ModelConfig::from_json(nulls, "c").head_dim, 6);
}

// A window hides nothing from texts that are no longer.
TEST(ModelConfig, AWindowOfAttentionBoundsTheText) {
  const auto context = [](const std::string& keys) {
    return read(str(R"({"num_key_value_heads": 2, "max_position_embeddings": 1000, )", keys, "}")).max_position_embeddings;
  };
  EXPECT_EQ(context(R"("model_type": "mistral", "sliding_window": 100)"), 100);
  EXPECT_EQ(context(R"("model_type": "mistral", "sliding_window": 1000)"), 1000);
  EXPECT_EQ(context(R"("model_type": "mistral", "sliding_window": 5000)"), 1000);
  EXPECT_EQ(context(R"("model_type": "llama", "sliding_window": 100)"), 1000);
  for (const char* qwen : {"qwen2", "qwen3"}) {
    const auto with = [&](const std::string& keys) { return context(str("\"model_type\": \"", qwen, "\", \"sliding_window\": 100, ", keys)); };
    EXPECT_EQ(with(R"("use_sliding_window": false)"), 1000);
    EXPECT_EQ(with(R"("use_sliding_window": true)"), 1000);  // from block 28 on
    EXPECT_EQ(with(R"("use_sliding_window": true, "max_window_layers": 4)"), 1000);
    EXPECT_EQ(with(R"("use_sliding_window": true, "max_window_layers": 3)"), 100);
    EXPECT_EQ(with(R"("use_sliding_window": true, "layer_types": ["full_attention", "sliding_attention"])"), 100);
    EXPECT_EQ(with(R"("use_sliding_window": true, "max_window_layers": 0, "layer_types": ["full_attention"])"), 1000);
  }
  Json null = edited(R"({"model_type": "qwen2", "num_key_value_heads": 2, "use_sliding_window": true, "max_window_layers": 0})");
  null["sliding_window"] = nullptr;
  EXPECT_EQ(ModelConfig::from_json(null, "c").max_position_embeddings, 32768);
}

// transformers must compute from what we write what we compute: the family whose class has these properties, or none.
TEST(ModelConfig, WritesTheFamilyThatHasTheProperties) {
  const auto type = [](bool qkv, bool output, bool mlp, bool norm) {
    ModelConfig c = read("{}");
    c.qkv_bias = qkv, c.output_bias = output, c.mlp_bias = mlp, c.qk_norm = norm;
    const Json j = c.to_json();
    EXPECT_EQ(ModelConfig::from_json(j, "c"), c) << j.dump();
    EXPECT_EQ(j.contains("fathom"), j["model_type"] == "fathom");
    c.routing.units = {{1, 0.5}};
    EXPECT_EQ(ModelConfig::from_json(c.to_json(), "c"), c);
    EXPECT_EQ(c.to_json()["model_type"], "fathom");
    return j["model_type"].get<std::string>() + " " + j["architectures"][0].get<std::string>();
  };
  EXPECT_EQ(type(false, false, false, false), "llama LlamaForCausalLM");
  EXPECT_EQ(type(false, false, true, false), "llama LlamaForCausalLM");
  EXPECT_EQ(type(true, true, false, false), "llama LlamaForCausalLM");
  EXPECT_EQ(type(true, true, true, false), "llama LlamaForCausalLM");
  EXPECT_EQ(type(true, false, false, false), "qwen2 Qwen2ForCausalLM");
  EXPECT_EQ(type(false, false, false, true), "qwen3 Qwen3ForCausalLM");
  EXPECT_EQ(type(true, true, false, true), "qwen3 Qwen3ForCausalLM");
  for (const bool norm : {false, true})
    for (const auto& [qkv, output, mlp] : {std::tuple{true, false, true}, {false, true, false}, {false, true, true}})
      EXPECT_EQ(type(qkv, output, mlp, norm), "fathom FathomForCausalLM");
  EXPECT_EQ(type(true, true, true, true), "fathom FathomForCausalLM");
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
    limits.adapters = true;
    ModelConfig c = random_config(random, limits);
    c.rope_theta = 1 + random.uniform() * 1e6;
    c.initializer_range = random.uniform();
    EXPECT_EQ(ModelConfig::from_json(parse_json(c.to_json().dump(), "c"), "c"), c) << c.to_json().dump(2);
  }
}

TEST(ModelConfig, AdaptersAreReadWhereAFathomModelHasThem) {
  const auto adapters = [](const std::string& value) { return R"({"model_type": "fathom", "fathom": {"routed_blocks": "none"}, "adapters": )" + value + "}"; };
  EXPECT_EQ(read(adapters(R"({"rank": 3, "projections": ["q", "down"]})").c_str()).adapters, (Adapters{.rank = 3, .projections = {"q", "down"}}));
  const std::pair<const char*, const char*> cases[] = {
      {R"({"rank": 3, "projections": ["down", "q"]})", "adapters.projections: found \"q\", expected some of q, k, v, o, gate, up, down, in this order and each once"},
      {R"({"rank": 3, "projections": ["q", "q"]})", "adapters.projections: found \"q\""},
      {R"({"rank": 3, "projections": ["head"]})", "adapters.projections: found \"head\""},
      {R"({"rank": 3, "projections": []})", "adapters.projections: found none, expected at least one"},
      {R"({"rank": 0, "projections": ["q"]})", "adapters.rank: found the number 0"},
      {R"({"rank": 25, "projections": ["q"]})", "adapters.rank: found 25, expected a whole number from 1 to 24"},
      {R"({"rank": 3, "projections": ["q"], "alpha": 2})", "adapters.alpha"}};
  for (const auto& [value, expected] : cases) {
    SCOPED_TRACE(value);
    try {
      read(adapters(value).c_str());
      FAIL() << "no error";
    } catch (const UserError& e) {
      EXPECT_THAT(e.what(), ::testing::HasSubstr(expected));
    }
  }
}

TEST(ModelConfig, AFathomModelWhoseBlocksAreAllDenseIsALlama) {
  const ModelConfig c = read(R"({"model_type": "fathom", "fathom": {"routed_blocks": "none"}})");
  EXPECT_TRUE(c.routing.dense());
  EXPECT_EQ(c.to_json()["model_type"], "llama");
}

TEST(ModelConfig, BadFiles) {
  const std::string range_v = "a whole number from 1 to 16777216";
  const std::string scalings = "expected \"default\", \"linear\", \"llama3\", \"yarn\" or \"longrope\"; positions that are scaled so cannot be computed here";
  const std::pair<std::string, std::string> cases[] = {
      {R"({"model_type": null})", "model_type: found no such key, expected a string"},
      {R"({"model_type": "gemma"})",
       "model_type: found \"gemma\", expected one of llama, mistral, qwen2, qwen3, fathom; other architectures cannot be computed here"},
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
      {R"({"rope_scaling": 2})", "rope_scaling: found the number 2, expected an object { … }"},
      {R"({"rope_parameters": {"rope_theta": 1e4, "rope_type": "dynamic"}})", "rope_parameters.rope_type: found \"dynamic\", " + scalings},
      {R"({"rope_scaling": {"type": "su"}})", "rope_scaling.type: found \"su\", " + scalings},
      {R"({"rope_scaling": {"type": "su", "rope_type": "linear"}})", "rope_scaling.type: found \"su\", expected \"linear\", as rope_type says"},
      {R"({"rope_scaling": {"type": "linear"}})", "rope_scaling.factor: found no such key, expected a number from 1 to 1000000"},
      {R"({"rope_scaling": {"type": "linear", "factor": 0.5}})", "rope_scaling.factor: found the number 0.5, expected a number from 1 to 1000000"},
      {R"({"rope_scaling": {"type": "llama3", "factor": 8, "high_freq_factor": 4}})",
       "rope_scaling.low_freq_factor: found no such key, expected a number from 0.0009765625 to 1000000"},
      {R"({"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}})",
       "rope_parameters.high_freq_factor: found 4, expected more than low_freq_factor 4"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 8, "beta_fast": 1}})", "rope_parameters.beta_fast: found 1, expected more than beta_slow 1"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 8, "truncate": false}})",
       "rope_scaling.truncate: found false, expected true; positions that are scaled so cannot be computed here"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 8}, "rope_theta": 1})",
       "rope_parameters.rope_theta: found 1, expected more than 1 with positions scaled by yarn"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 8, "original_max_position_embeddings": 0}})",
       "rope_scaling.original_max_position_embeddings: found the number 0, expected a whole number from 1 to 16777216"},
      {R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 2, 3], "long_factor": [1, 2, 4], "attention_factor": 1}})",
       "rope_scaling.long_factor: found other numbers than short_factor has, expected the same; frequencies that change with the text's "
       "length cannot be computed here"},
      {R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 2], "long_factor": [1, 2], "attention_factor": 1}})",
       "rope_scaling.short_factor: found an array of 2, expected half of head_dim 6 numbers"},
      {R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 2, 3], "long_factor": [1, 2, 3]}})",
       "rope_scaling.attention_factor: found no such key, expected a number from 0.0009765625 to 1000000"},
      {R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 2, 3], "long_factor": [1, 2, 3], "attention_factor": 1.2}})",
       "rope_scaling.attention_factor: found the number 1.2, expected 1; positions that are scaled so cannot be computed here"},
      {R"({"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "default"}})",
       "rope_parameters: found another scaling, expected what rope_scaling beside it says; remove one of them"},
      {R"({"model_type": "qwen2", "num_key_value_heads": 2, "use_sliding_window": true, "layer_types": ["full_attention", "chunked_attention"]})",
       "layer_types[1]: found \"chunked_attention\", expected \"full_attention\" or \"sliding_attention\""},
      {R"({"model_type": "mistral", "sliding_window": 0, "num_key_value_heads": 2})",
       "sliding_window: found the number 0, expected a whole number from 1 to 16777216"},
      {R"({"model_type": "qwen2"})", "num_key_value_heads: found 32, expected a divisor of num_attention_heads 4"},
      {R"({"rope_parameters": {"rope_theta": 20000}, "rope_theta": 10000})",
       "rope_parameters.rope_theta: found 20000, expected 10000, as the key rope_theta beside it says; remove one of them"},
      {R"({"rope_parameters": {"partial_rotary_factor": 0.5}})", "rope_parameters.partial_rotary_factor: found the number 0.5, expected 1"},
      {R"({"partial_rotary_factor": 0.25})", "partial_rotary_factor: found the number 0.25, expected 1"},
      {R"({"hidden_act": "gelu"})", "hidden_act: found \"gelu\", expected \"silu\""},
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
