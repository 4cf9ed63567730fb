// Engines over quantised weights: the law, bit for bit, for every type that a file may hold; and how far int8 activations
// are from plain numbers.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "quantized_model.h"

namespace fathom::infer::test {
namespace {

// Rows of whole blocks, of 256 too; every routing choice.
model::ModelConfig blocky(uint64_t seed, int64_t width = 256) {
  Random random(seed);
  model::ModelConfig c = model::random_config(random);
  c.hidden_size = width, c.intermediate_size = 512, c.vocab_size = 203, c.num_hidden_layers = 3, c.max_position_embeddings = 256;
  c.num_attention_heads = 8, c.num_key_value_heads = 1 + static_cast<int64_t>(random.below(2)), c.head_dim = 32;
  c.eos_token_ids.clear(), c.bos_token_id.reset(), c.pad_token_id.reset();
  c.routing.units = {{1, 0.5}, {2, 0.25}};
  if (!c.rope_scaling.divisors.empty()) c.rope_scaling.divisors.assign(16, 1.5f);
  if (seed % 2 == 1)
    c.routing.units = {{.block = 1, .capacity = 0.3, .part = routing::Part::attention, .paths = {.light = true}, .light_rank = 32, .light_capacity = 0.3},
                       {.block = 1, .capacity = 0.5, .part = routing::Part::mlp},
                       {.block = 2, .capacity = 0.5, .paths = {.skip = false, .light = true}, .light_rank = 256}};
  return c;
}

TEST(Quantized, TheLawHoldsForEveryType) {
  uint64_t seed = 9001;
  for (const GgmlType type : std::span(kTypes).first(cases(std::size(kTypes)))) {
    const model::ModelConfig config = blocky(++seed);
    const QuantizedModel model(config, seed, [type](const std::string&) { return type; });
    SCOPED_TRACE(str(formats::ggml_type_name(type), " ", config.to_json().dump()));
    Random random(seed);
    const std::vector<int32_t> tokens = model::random_tokens(config, 40, random), other = model::random_tokens(config, 23, random);
    const RoutingPolicy policy = drawn_policy(config, 40, random), other_policy = drawn_policy(config, 40, random);
    expect_law(model.weights, tokens, policy, other, other_policy);
    if (HasFailure()) return;
  }
}

TEST(Quantized, TypesMayDifferFromMatrixToMatrix) {
  for (uint64_t seed = 9100; seed < 9100 + cases(10); ++seed) {
    const model::ModelConfig config = blocky(seed, 96);  // a width that is no multiple of 256: no K types, but in down_proj
    Random types(seed);
    const QuantizedModel model(config, seed, [&](const std::string&) { return kTypes[types.below(std::size(kTypes))]; });
    Random random(seed);
    const std::vector<int32_t> tokens = model::random_tokens(config, 30, random);
    const RoutingPolicy policy = drawn_policy(config, 30, random);
    Engine engine(model.weights, {.threads = 2}), reference(model.weights, {.threads = 1, .kernels = &kernels::kernels_for(kernels::Isa::reference)});
    expect_same(read(engine, tokens, policy, 11), read(reference, tokens, policy), "mixed types");
    if (HasFailure()) return;
  }
}

// Only activations are rounded (to 127 steps of a block's greatest, or to bf16): logits stay within a few hundredths of their size.
TEST(Quantized, LogitsAreNearThoseOfTheDequantisedWeights) {
  uint64_t seed = 9200;
  for (const GgmlType type : kTypes) {
    model::ModelConfig config = blocky(++seed);
    config.routing = {};
    const QuantizedModel model(config, seed, [type](const std::string&) { return type; });
    Random random(seed);
    const std::vector<int32_t> tokens = model::random_tokens(config, 40, random);
    Engine quantized(model.weights, {.threads = 1}), plain(Weights::from(config, model.plain), {.threads = 1});
    const std::vector<float> a = read(quantized, tokens, RoutingPolicy::full(config)).logits, b = read(plain, tokens, RoutingPolicy::full(config)).logits;
    double error = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) error += std::pow(a[i] - b[i], 2), size += std::pow(b[i], 2);
    const double relative = std::sqrt(error / size);
    const bool whole = type == GgmlType::F32 || type == GgmlType::F16;
    EXPECT_LE(relative, whole ? 0 : type == GgmlType::BF16 ? 0.004 : 0.03) << formats::ggml_type_name(type);
    EXPECT_TRUE(whole || relative > 1e-4) << formats::ggml_type_name(type) << ": activations were not rounded";
  }
}

// A tied embedding gives its rows back: what the file's blocks stand for, to the bit.
TEST(Quantized, WeightsStayWhatTheFileHolds) {
  uint64_t seed = 9250;
  for (const GgmlType type : kTypes) {
    model::ModelConfig config = blocky(++seed);
    config.tie_word_embeddings = seed % 2 == 0;
    const QuantizedModel model(config, seed, [type](const std::string&) { return type; });
    const int64_t C = config.hidden_size;
    std::vector<float> row(static_cast<size_t>(C));
    for (int64_t id = 0; id < config.vocab_size; ++id) {
      model.weights->embed(static_cast<int32_t>(id), row.data());
      ASSERT_TRUE(same_bits(row, std::span(model.plain.at("model.embed_tokens.weight")).subspan(static_cast<size_t>(id * C), static_cast<size_t>(C)))) << formats::ggml_type_name(type) << " " << id;
    }
    // In memory a weight takes what it takes in the file; sub-scales of Q4_K and Q5_K a byte instead of six bits.
    const double file = static_cast<double>(formats::ggml_block_bytes(type) + (type == GgmlType::Q4_K || type == GgmlType::Q5_K ? 4 : 0)) / static_cast<double>(formats::ggml_block_elements(type));
    const kernels::PackedMatrix& down = model.weights->blocks()[0].down;
    EXPECT_EQ(static_cast<double>(down.bytes()), file * static_cast<double>(down.outputs() * down.inner())) << formats::ggml_type_name(type);
  }
}

TEST(Quantized, FourBitWeightsTakeAnEighthOfTheMemory) {
  const model::ModelConfig config = blocky(9300);
  const QuantizedModel q4(config, 9300, [](const std::string&) { return GgmlType::Q4_0; }), q8(config, 9300, [](const std::string&) { return GgmlType::Q8_0; });
  const Model f32(config, 9300);
  EXPECT_LT(static_cast<double>(q4.weights->bytes()), 0.16 * static_cast<double>(f32.weights->bytes()));  // 4.5 bits of 32, vectors and fc1 aside
  EXPECT_LT(static_cast<double>(q8.weights->bytes()), 0.29 * static_cast<double>(f32.weights->bytes()));
}

TEST(Quantized, WhatMakesAWeightInfiniteIsRefusedByName) {
  const struct {
    GgmlType type;
    size_t offset;            // of an f16 in a block: the number, the scale, or the scale of the minima
    uint16_t infinity = 0x7c00;
  } cases[] = {{GgmlType::F16, 0}, {GgmlType::BF16, 0, 0x7f80}, {GgmlType::Q5_0, 0}, {GgmlType::Q4_1, 0}, {GgmlType::Q5_1, 2}, {GgmlType::Q4_K, 2}, {GgmlType::Q6_K, 208}};
  const model::ModelConfig config = blocky(9400);
  for (const auto& c : cases) {
    QuantizedModel model(config, 9400, [&](const std::string&) { return c.type; });
    model::StoredTensor& tensor = model.stored.at("model.layers.1.mlp.up_proj.weight");
    std::vector<std::byte> bytes(tensor.bytes.begin(), tensor.bytes.end());
    const size_t block = 5;
    std::memcpy(bytes.data() + block * static_cast<size_t>(formats::ggml_block_bytes(c.type)) + c.offset, &c.infinity, 2);
    tensor.bytes = bytes;
    try {
      Weights::from(config, [&](const std::string& name) -> const model::StoredTensor& { return model.stored.at(name); }, 2, true);
      FAIL() << "no error for " << formats::ggml_type_name(c.type);
    } catch (const UserError& e) {
      const std::string at = str("model.layers.1.mlp.up_proj.weight[", static_cast<int64_t>(block) * formats::ggml_block_elements(c.type), "]");
      EXPECT_NE(std::string(e.what()).find(at), std::string::npos) << formats::ggml_type_name(c.type) << ": " << e.what();
    }
  }
}

}  // namespace
}  // namespace fathom::infer::test
