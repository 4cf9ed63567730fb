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
  GgufBuilder builder;
  std::function<void(GgufBuilder&)> more;               // metadata added at the end
  std::function<bool(const std::string&)> skip = [](const std::string&) { return false; };  // keys and tensors left out

  explicit File(const ModelConfig& c) : config(c), tensors(random_weights(c, 5)) {}

  std::string bytes() {
    GgufBuilder b;
    const auto number = [&](const char* key, int64_t value) {
      if (!skip(key)) b.number(key, GgufType::u32, static_cast<uint32_t>(value));
    };
    if (!skip("general.architecture")) b.string("general.architecture", "llama");
    number("llama.embedding_length", config.hidden_size);
    number("llama.block_count", config.num_hidden_layers);
    number("llama.feed_forward_length", config.intermediate_size);
    number("llama.attention.head_count", config.num_attention_heads);
    number("llama.attention.head_count_kv", config.num_key_value_heads);
    number("llama.context_length", config.max_position_embeddings);
    number("tokenizer.ggml.bos_token_id", 1);
    number("tokenizer.ggml.eos_token_id", 2);
    b.number("llama.attention.layer_norm_rms_epsilon", GgufType::f32, static_cast<float>(config.rms_norm_eps));
    b.number("llama.rope.freq_base", GgufType::f32, static_cast<float>(config.rope_theta));
    if (more) more(b);
    const auto tensor = [&](const std::string& theirs, const std::string& ours, std::initializer_list<uint64_t> dims, int64_t heads = 0) {
      if (skip(theirs)) return;
      const std::vector<float>& values = tensors.at(ours);
      b.tensor(theirs, dims, GgmlType::F32, floats(heads ? interleaved(values, heads, config.hidden_size) : values));
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
            "general.architecture: found \"gemma2\", expected \"llama\"; other architectures cannot be computed here");
  EXPECT_EQ(with([](GgufBuilder& b) { b.string("llama.rope.scaling.type", "yarn"); }),
            "llama.rope.scaling.type: found \"yarn\", expected \"none\"; scaled rotary positions cannot be computed here");
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("llama.expert_count", GgufType::u32, uint32_t{8}); }),
            "llama.expert_count: found 8, expected 0; mixtures of experts cannot be computed here");
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("llama.rope.dimension_count", GgufType::u32, uint32_t{4}); }),
            "llama.rope.dimension_count: found 4, expected the head's width 8");
  EXPECT_EQ(with([](GgufBuilder& b) { b.number("llama.vocab_size", GgufType::u32, uint32_t{8}); }),
            "llama.vocab_size: found 8, expected 7, the rows of token_embd.weight");
  EXPECT_EQ(with({}, without("blk.1.ffn_up.weight")), "blk.1.ffn_up.weight: found no such tensor, expected a tensor of shape [64, 32]; the metadata describes another model");
  EXPECT_EQ(with([](GgufBuilder& b) { b.tensor("rope_freqs.weight", {4}, GgmlType::F32, floats({1, 1, 1, 1})); }),
            "rope_freqs.weight: found a tensor that this architecture does not compute; scaled rotary positions cannot be computed here");
  EXPECT_EQ(with([](GgufBuilder& b) { b.tensor("blk.0.attn_q.bias", {32}, GgmlType::F32, floats(std::vector<float>(32))); }),
            "blk.0.attn_q.bias: found a tensor that this architecture does not compute, expected blk.0.attn_q.weight perhaps");
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
