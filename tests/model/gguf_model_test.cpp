// Models in GGUF files: what the metadata means, where tensors go, and what is refused by name.
#include "model/gguf_model.h"

#include <gtest/gtest.h>

#include <functional>

#include "../formats/gguf_builder.h"
#include "core/error.h"
#include "core/file.h"
#include "core/random.h"
#include "model/folder.h"
#include "model/random_model.h"

namespace fathom::model {
namespace {

using formats::GgmlType;
using formats::GgufBuilder;
using formats::GgufType;

ModelConfig small(bool tied = true) {
  ModelConfig c;
  c.vocab_size = 7, c.hidden_size = 32, c.intermediate_size = 64, c.num_hidden_layers = 2, c.num_attention_heads = 4, c.num_key_value_heads = 2;
  c.head_dim = 8, c.max_position_embeddings = 100, c.rms_norm_eps = 0.0009765625, c.rope_theta = 50000, c.tie_word_embeddings = tied;
  c.bos_token_id = 1, c.eos_token_ids = {2};
  return c;
}

std::string floats(const std::vector<float>& values) { return {reinterpret_cast<const char*>(values.data()), values.size() * 4}; }

// Row n of a head's rotary pairs as the file lays it: (i, half) instead of (half, i).
std::vector<float> interleaved(const std::vector<float>& rows, int64_t heads, int64_t columns) {
  const int64_t D = static_cast<int64_t>(rows.size()) / columns / heads;
  std::vector<float> out(rows.size());
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t half = 0; half < 2; ++half)
      for (int64_t i = 0; i < D / 2; ++i)
        std::copy_n(rows.begin() + (h * D + half * D / 2 + i) * columns, columns, out.begin() + (h * D + 2 * i + half) * columns);
  return out;
}

struct File {
  ModelConfig config;
  Weights tensors;
  std::string architecture = "llama";
  std::function<void(GgufBuilder&)> more;               // metadata added at the end
  std::function<bool(const std::string&)> skip = [](const std::string&) { return false; };  // keys and tensors left out

  explicit File(const ModelConfig& c, std::string a = "llama") : config(c), tensors(random_weights(c, 5)), architecture(std::move(a)) {}

  std::string bytes() {
    GgufBuilder b;
    const auto number = [&](const std::string& name, int64_t value) {
      const std::string key = name.starts_with("llama.") ? architecture + name.substr(5) : name;
      if (!skip(key)) b.number(key, GgufType::u32, static_cast<uint32_t>(value));
    };
    if (!skip("general.architecture")) b.string("general.architecture", architecture);
    number("llama.embedding_length", config.hidden_size);
    number("llama.block_count", config.num_hidden_layers);
    number("llama.feed_forward_length", config.intermediate_size);
    number("llama.attention.head_count", config.num_attention_heads);
    number("llama.attention.head_count_kv", config.num_key_value_heads);
    number("llama.context_length", config.max_position_embeddings);
    number("tokenizer.ggml.bos_token_id", 1);
    number("tokenizer.ggml.eos_token_id", 2);
    b.number(architecture + ".attention.layer_norm_rms_epsilon", GgufType::f32, static_cast<float>(config.rms_norm_eps));
    b.number(architecture + ".rope.freq_base", GgufType::f32, static_cast<float>(config.rope_theta));
    if (more) more(b);
    const auto tensor = [&](const std::string& theirs, const std::string& ours, std::initializer_list<uint64_t> dims, int64_t heads = 0) {
      if (skip(theirs) || !tensors.contains(ours)) return;
      const std::vector<float>& values = tensors.at(ours);
      const bool llama = architecture == "llama" || architecture == "mistral";
      const int64_t columns = dims.size() > 1 ? config.hidden_size : 1;
      b.tensor(theirs, dims, GgmlType::F32, floats(heads && llama ? interleaved(values, heads, columns) : values));
    };
    const uint64_t C = config.hidden_size, F = config.intermediate_size, V = config.vocab_size;
    const uint64_t HD = config.num_attention_heads * config.head_dim, GD = config.num_key_value_heads * config.head_dim;
    tensor("token_embd.weight", "model.embed_tokens.weight", {C, V});
    for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
      const std::string t = str("blk.", block, "."), o = layer_prefix(block);
      tensor(t + "attn_norm.weight", o + "input_layernorm.weight", {C});
      tensor(t + "attn_q.weight", o + "self_attn.q_proj.weight", {C, HD}, config.num_attention_heads);
      tensor(t + "attn_k.weight", o + "self_attn.k_proj.weight", {C, GD}, config.num_key_value_heads);
      tensor(t + "attn_v.weight", o + "self_attn.v_proj.weight", {C, GD});
      tensor(t + "attn_output.weight", o + "self_attn.o_proj.weight", {HD, C});
      tensor(t + "attn_q.bias", o + "self_attn.q_proj.bias", {HD}, config.num_attention_heads);
      tensor(t + "attn_k.bias", o + "self_attn.k_proj.bias", {GD}, config.num_key_value_heads);
      tensor(t + "attn_v.bias", o + "self_attn.v_proj.bias", {GD});
      tensor(t + "attn_output.bias", o + "self_attn.o_proj.bias", {C});
      tensor(t + "attn_q_norm.weight", o + "self_attn.q_norm.weight", {static_cast<uint64_t>(config.head_dim)});
      tensor(t + "attn_k_norm.weight", o + "self_attn.k_norm.weight", {static_cast<uint64_t>(config.head_dim)});
      tensor(t + "ffn_gate.bias", o + "mlp.gate_proj.bias", {F});
      tensor(t + "ffn_up.bias", o + "mlp.up_proj.bias", {F});
      tensor(t + "ffn_down.bias", o + "mlp.down_proj.bias", {C});
      tensor(t + "ffn_norm.weight", o + "post_attention_layernorm.weight", {C});
      tensor(t + "ffn_gate.weight", o + "mlp.gate_proj.weight", {C, F});
      tensor(t + "ffn_up.weight", o + "mlp.up_proj.weight", {C, F});
      tensor(t + "ffn_down.weight", o + "mlp.down_proj.weight", {F, C});
    }
    tensor("output_norm.weight", "model.norm.weight", {C});
    if (!config.tie_word_embeddings) tensor("output.weight", "lm_head.weight", {C, V});
    return b.bytes();
  }
};

class GgufModel : public ::testing::Test {
 protected:
  std::string write(File file) {
    const std::string path = join_path(folder_.path(), "m.gguf");
    atomic_write(path, file.bytes());
    return path;
  }
  std::string error(File file) {
    try {
      ModelFolder::open(write(std::move(file)));
    } catch (const UserError& e) {
      return e.what();
    }
    return "no error";
  }
  TemporaryFolder folder_;
};

TEST_F(GgufModel, TextsBeginWithTheBeginTokenWhereTheFileSaysSo) {
  const auto begins = [&](const char* kind, const char* pre, std::optional<bool> add) {
    File file(small(true));
    file.more = [&](GgufBuilder& b) {
      b.string("tokenizer.ggml.model", kind);
      if (pre) b.string("tokenizer.ggml.pre", pre);
      if (add) b.number("tokenizer.ggml.add_bos_token", GgufType::boolean, static_cast<uint8_t>(*add));
    };
    return ModelFolder::open(write(file))->config().bos_token_id;
  };
  EXPECT_EQ(begins("gpt2", "smollm", true), 1);
  EXPECT_EQ(begins("gpt2", "smollm", false), std::nullopt);
  EXPECT_EQ(begins("llama", nullptr, false), std::nullopt);
  // Without the key as in llama.cpp.
  EXPECT_EQ(begins("llama", nullptr, {}), 1);
  EXPECT_EQ(begins("gpt2", "smollm", {}), std::nullopt);
  EXPECT_EQ(begins("gpt2", "llama-bpe", {}), 1);
}

TEST_F(GgufModel, GivesTheModelThatWentIn) {
  for (const bool tied : {true, false}) {
    const File file(small(tied));
    const auto model = ModelFolder::open(write(file));
    EXPECT_EQ(model->config(), file.config);
    EXPECT_FALSE(model->dial());
    EXPECT_EQ(model->generation().eos_token_ids, std::vector<int64_t>{2});
    for (const auto& [name, values] : file.tensors) {
      EXPECT_EQ(model->read_f32(name), values) << name;
      EXPECT_EQ(model->dtype(name), "F32");
    }
  }
}

// What llama.cpp's converter makes of each family: names of the architecture, interleaved rows in llama and mistral alone.
TEST_F(GgufModel, EveryArchitectureGivesTheModelThatWentIn) {
  for (const char* architecture : {"llama", "mistral", "qwen2", "qwen3"})
    for (int biases = 0; biases < 8; ++biases) {
      ModelConfig c = small(biases % 2 == 0);
      c.qkv_bias = architecture == std::string("qwen2") || (biases & 1);
      c.output_bias = biases & 2, c.mlp_bias = biases & 4, c.qk_norm = architecture == std::string("qwen3");
      const File file(c, architecture);
      const auto model = ModelFolder::open(write(file));
      EXPECT_EQ(model->config(), c) << architecture << " " << biases;
      for (const auto& [name, values] : file.tensors) EXPECT_EQ(model->read_f32(name), values) << architecture << " " << name;
    }
}

TEST_F(GgufModel, PositionsAreScaledAsTheFileSays) {
  using Type = RopeScaling::Type;
  const auto scaling = [&](const std::function<void(GgufBuilder&)>& more, const char* architecture = "llama") {
    ModelConfig c = small();
    c.qk_norm = architecture == std::string("qwen3");
    File file(c, architecture);
    file.more = more;
    return ModelFolder::open(write(file))->config().rope_scaling;
  };
  EXPECT_EQ(scaling([](GgufBuilder& b) { b.string("llama.rope.scaling.type", "none").number("llama.rope.scaling.factor", GgufType::f32, 8.0f); }), RopeScaling{});
  EXPECT_EQ(scaling([](GgufBuilder& b) { b.number("llama.rope.scale_linear", GgufType::f32, 1.0f); }), RopeScaling{});
  const RopeScaling linear{.type = Type::linear, .factor = 8};
  EXPECT_EQ(scaling([](GgufBuilder& b) { b.string("llama.rope.scaling.type", "linear").number("llama.rope.scaling.factor", GgufType::f32, 8.0f); }), linear);
  EXPECT_EQ(scaling([](GgufBuilder& b) { b.number("llama.rope.scaling.factor", GgufType::f32, 8.0f); }), linear);
  EXPECT_EQ(scaling([](GgufBuilder& b) { b.number("llama.rope.scale_linear", GgufType::f32, 8.0f); }), linear);
  RopeScaling yarn{.type = Type::yarn, .factor = 4, .original_context = 100};
  yarn.beta_fast = 32, yarn.beta_slow = 1, yarn.attention_factor = yarn_attention_factor(4);
  EXPECT_EQ(scaling([](GgufBuilder& b) { b.string("qwen3.rope.scaling.type", "yarn").number("qwen3.rope.scaling.factor", GgufType::f32, 4.0f); }, "qwen3"), yarn);
  yarn.original_context = 25, yarn.beta_fast = 16, yarn.beta_slow = 2, yarn.attention_factor *= 0.5;
  EXPECT_EQ(scaling([](GgufBuilder& b) {
              b.string("llama.rope.scaling.type", "yarn").number("llama.rope.scaling.factor", GgufType::f32, 4.0f);
              b.number("llama.rope.scaling.original_context_length", GgufType::u32, uint32_t{25}).number("llama.rope.scaling.attn_factor", GgufType::f32, 0.5f);
              b.number("llama.rope.scaling.yarn_beta_fast", GgufType::f32, 16.0f).number("llama.rope.scaling.yarn_beta_slow", GgufType::f32, 2.0f);
            }),
            yarn);
  EXPECT_EQ(scaling([](GgufBuilder& b) { b.tensor("rope_freqs.weight", {4}, GgmlType::F32, floats({1, 1, 2.5f, 8})); }),
            (RopeScaling{.type = Type::divided, .divisors = {1, 1, 2.5f, 8}}));
}

TEST_F(GgufModel, AWindowOfAttentionBoundsTheText) {
  for (const auto& [window, context] : {std::pair{0u, 100}, {60u, 60}, {100u, 100}, {500u, 100}}) {
    File file(small());
    file.more = [window](GgufBuilder& b) { b.number("llama.attention.sliding_window", GgufType::u32, window); };
    EXPECT_EQ(ModelFolder::open(write(file))->config().max_position_embeddings, context);
  }
}

TEST_F(GgufModel, AHeadWiderThanItsShareOfTheWidthIsRead) {
  ModelConfig c = small();
  c.head_dim = 16;
  File file(c);
  file.more = [](GgufBuilder& b) {
    b.number("llama.attention.key_length", GgufType::u32, uint32_t{16}).number("llama.attention.value_length", GgufType::u32, uint32_t{16});
    b.number("llama.rope.dimension_count", GgufType::u32, uint32_t{16});
  };
  EXPECT_EQ(ModelFolder::open(write(file))->config(), c);
}

TEST_F(GgufModel, WhatCannotBeComputedIsRefusedByName) {
  const auto with = [&](const std::function<void(GgufBuilder&)>& more, const std::function<bool(const std::string&)>& skip = {}) {
    File file(small());
    file.more = more;
    if (skip) file.skip = skip;
    const std::string message = error(file);
    return message.substr(message.find("m.gguf") + 8);
  };
  const auto without = [](const std::string& name) { return [name](const std::string& found) { return found == name; }; };
  EXPECT_EQ(with([](GgufBuilder& b) { b.string("general.architecture", "gemma2"); }, without("general.architecture")),
            "general.architecture: found \"gemma2\", expected llama, mistral, qwen2 or qwen3; other architectures cannot be computed here");
  const std::string not_so = "; positions that are scaled so cannot be computed here";
  EXPECT_EQ(with([](GgufBuilder& b) { b.string("llama.rope.scaling.type", "longrope"); }),
            "llama.rope.scaling.type: found \"longrope\", expected \"none\", \"linear\" or \"yarn\"" + not_so);
  EXPECT_EQ(with([](GgufBuilder& b) { b.string("llama.rope.scaling.type", "yarn"); }),
            "llama.rope.scaling.factor: found no such key, expected a number from 1 to 1000000; the nearest is llama.rope.scaling.type");
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("llama.rope.scaling.yarn_attn_factor", GgufType::f32, 0.5f); }),
            "llama.rope.scaling.yarn_attn_factor: found 0.5, expected 1" + not_so);
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("llama.rope.scaling.factor", GgufType::f32, 2.0f).number("llama.rope.scaling.attn_factor", GgufType::f32, 0.5f); }),
            "llama.rope.scaling.attn_factor: found 0.5, expected 1" + not_so);
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("llama.expert_count", GgufType::u32, uint32_t{8}); }),
            "llama.expert_count: found 8, expected 0; mixtures of experts cannot be computed here");
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("llama.attention.causal", GgufType::boolean, uint8_t{0}); }),
            "llama.attention.causal: found false, expected true or no such key; a model whose tokens see what follows them cannot be computed here");
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("llama.attention.causal", GgufType::boolean, uint8_t{1}).number("llama.pooling_type", GgufType::u32, uint32_t{1}); }),
            "llama.pooling_type: found 1, expected 0 or no such key; a model that makes one vector of a text cannot be computed here");
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("split.count", GgufType::u16, uint16_t{2}); }),
            "split.count: found 2, expected 1 or no such key; it is one of 2 files that hold a model together: merge them first (llama-gguf-split --merge)");
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("llama.rope.dimension_count", GgufType::u32, uint32_t{4}); }),
            "llama.rope.dimension_count: found 4, expected the head's width 8");
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("llama.vocab_size", GgufType::u32, uint32_t{8}); }),
            "llama.vocab_size: found 8, expected 7, the rows of token_embd.weight");
  EXPECT_EQ(with({}, without("blk.1.ffn_up.weight")), "blk.1.ffn_up.weight: found no such tensor, expected a tensor of shape [64, 32]; the metadata describes another model");
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("llama.rope.scaling.attn_factor", GgufType::f32, 0.5f); }), "llama.rope.scaling.attn_factor: found 0.5, expected 1" + not_so);
  const auto divided = [](std::vector<float> by) {
    return [by](GgufBuilder& b) { b.tensor("rope_freqs.weight", {by.size()}, GgmlType::F32, floats(by)); };
  };
  EXPECT_EQ(with(divided({1, 1, 1})), "rope_freqs.weight: found shape [3], expected [4]");
  EXPECT_EQ(with(divided({1, 0, 1, 1})), "rope_freqs.weight[1]: found 0, expected a number from 0.0009765625 to 1000000");
  EXPECT_EQ(with([&](GgufBuilder& b) { divided({1, 1, 1, 1})(b.number("llama.rope.scaling.factor", GgufType::f32, 2.0f)); }),
            "llama.rope.scaling.type: found \"linear\", expected \"none\"; rope_freqs.weight scales the positions already");
  EXPECT_EQ(with([](GgufBuilder& b) { b.tensor("blk.1.attn_q.bias", {32}, GgmlType::F32, floats(std::vector<float>(32))); }),
            "blk.1.attn_q.bias: found a tensor that this architecture does not compute, expected blk.1.attn_q.weight perhaps");
  EXPECT_EQ(with([](GgufBuilder& b) { b.tensor("blk.0.attn_q.bias", {32}, GgmlType::F32, floats(std::vector<float>(32))); }),
            "blk.0.attn_k.bias: found no such tensor, expected a tensor of shape [16]; the metadata describes another model");
  ModelConfig qwen = small();
  qwen.qk_norm = true;
  File foreign(qwen, "qwen3");
  foreign.more = divided({1, 1, 1, 1});
  EXPECT_NE(error(foreign).find("rope_freqs.weight: found a tensor that this architecture does not compute"), std::string::npos) << error(foreign);
  EXPECT_NE(error(File(small(), "qwen3")).find("blk.0.attn_q_norm.weight: found no such tensor"), std::string::npos);
  EXPECT_NE(error(File(small(), "qwen2")).find("blk.0.attn_q.bias: found no such tensor"), std::string::npos);
  EXPECT_EQ(with({}, without("llama.block_count")).substr(0, 18), "llama.block_count:");
  File shape(small());
  shape.tensors["model.norm.weight"] = std::vector<float>(32, 1.0f);
  shape.skip = [](const std::string& name) { return name == "output_norm.weight"; };
  shape.more = [](GgufBuilder& b) { b.tensor("output_norm.weight", {16}, GgmlType::F32, floats(std::vector<float>(16, 1.0f))); };
  EXPECT_NE(error(shape).find("output_norm.weight: found shape [16], expected [32]"), std::string::npos) << error(shape);
}

TEST_F(GgufModel, ABadNumberIsFoundWhereItLies) {
  File file(small());
  file.tensors.at("model.layers.1.mlp.down_proj.weight")[70] = std::numeric_limits<float>::infinity();
  const auto model = ModelFolder::open(write(file));
  try {
    model->read_f32("model.layers.1.mlp.down_proj.weight");
    FAIL() << "no error";
  } catch (const UserError& e) {
    EXPECT_NE(std::string(e.what()).find("blk.1.ffn_down.weight[70]: found infinity"), std::string::npos) << e.what();
  }
}

TEST_F(GgufModel, AFileWithoutATokenizerSaysSo) {
  const auto model = ModelFolder::open(write(File(small())));
  try {
    model->tokenizer();
    FAIL() << "no error";
  } catch (const UserError& e) {
    EXPECT_NE(std::string(e.what()).find("tokenizer.ggml.model"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace fathom::model
