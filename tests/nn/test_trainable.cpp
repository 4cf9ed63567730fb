// What is trained: which tensors, what the others cost, adapters and their merged weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include "core/random.h"
#include "model/random_model.h"
#include "nn/transformer.h"

namespace fathom::nn {
namespace {

using at::Tensor;

model::ModelConfig config_of() {
  model::ModelConfig c;
  c.vocab_size = 30;
  c.hidden_size = 16;
  c.intermediate_size = 20;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 4;
  c.routing.units = {{.block = 1, .capacity = 0.5, .paths = {.skip = false, .light = true}, .light_rank = 2}};
  c.routing.kv = routing::KvPolicy::keep;
  c.routing.router_input = routing::RouterInput::normed;
  c.routing.router_bias = true;
  return c;
}

std::unique_ptr<Transformer> loaded(const Trainable& trainable) {
  const auto config = config_of();
  auto model = std::make_unique<Transformer>(config, at::kFloat, trainable);
  for (const auto& [name, values] : model::random_weights(config, 1)) model->load(name, values);
  return model;
}

Batch batch_of() {
  at::manual_seed(3);
  return {at::randint(30, {2, 12}, at::kLong), at::randint(30, {2, 12}, at::kLong)};
}

ForwardOptions tuning() {
  ForwardOptions options;
  options.pick = Pick::straight_through;
  options.thresholds = {0.1f};
  return options;
}

std::vector<std::string> names(const std::vector<Parameter>& parameters) {
  std::vector<std::string> out;
  for (const Parameter& p : parameters) out.push_back(p.name);
  return out;
}

const Trainable kRoutersAndLight{.everything = false, .routers = true, .light = true};

TEST(Trainable, ListsWhatIsTrained) {
  const std::string p = "model.layers.1.";
  EXPECT_EQ(names(loaded(kRoutersAndLight)->parameters()), (std::vector<std::string>{p + "router.weight", p + "router.bias", p + "light.down.weight", p + "light.up.weight"}));
  EXPECT_EQ(names(loaded({.everything = false, .light = true})->parameters()), (std::vector<std::string>{p + "light.down.weight", p + "light.up.weight"}));
  const auto everything = loaded({});
  EXPECT_EQ(names(everything->parameters()), names(everything->tensors()));
  const auto model = loaded({.everything = false, .lora = {.rank = 2, .targets = {"q", "down"}}});
  EXPECT_EQ(names(model->tensors()), names(everything->tensors()));
  std::vector<std::string> expected;
  for (int block = 0; block < 3; ++block)
    for (const char* end : {"self_attn.q_proj.lora_A.weight", "self_attn.q_proj.lora_B.weight", "mlp.down_proj.lora_A.weight", "mlp.down_proj.lora_B.weight"})
      expected.push_back("model.layers." + std::to_string(block) + "." + end);
  EXPECT_EQ(names(model->parameters()), expected);
  for (const Parameter& q : model->parameters()) EXPECT_TRUE(q.adapter && q.tensor.requires_grad());
  EXPECT_EQ(model->parameter("model.layers.0.mlp.down_proj.lora_A.weight").sizes(), (at::IntArrayRef{2, 20}));
  EXPECT_EQ(model->parameter("model.layers.0.mlp.down_proj.lora_B.weight").sizes(), (at::IntArrayRef{16, 2}));
}

TEST(Trainable, WhatIsFrozenHasNoGradient) {
  const auto model = loaded(kRoutersAndLight);
  model->forward(batch_of(), tuning()).total.backward();
  for (const Parameter& p : model->tensors()) EXPECT_EQ(p.tensor.grad().defined(), p.router || p.light) << p.name;
}

// Calls of an operator while `body` runs, on any thread.
int64_t calls_of(const char* name, const auto& body) {
  static std::atomic<int64_t> count;
  static const char* counted;
  count = 0;
  counted = name;
  const auto handle = at::addGlobalCallback(at::RecordFunctionCallback([](const at::RecordFunction& f) -> std::unique_ptr<at::ObserverContext> {
    if (std::string_view(f.name()) == counted) ++count;
    return nullptr;
  }));
  body();
  at::removeCallback(handle);
  return count;
}

TEST(Trainable, WhatIsFrozenCostsNoProduct) {
  const auto products = [](const Trainable& trainable) {
    const auto model = loaded(trainable);
    const auto result = model->forward(batch_of(), tuning());
    return calls_of("aten::mm", [&] { result.total.backward(); });
  };
  // Backwards, block 2 has four products (qkv, o, gate and up, down), block 1 five (keys of everybody by themselves) and those of the light path two, each
  // for its rows; and the two of the light path for its weights. Block 0, before everything that is trained, has none.
  EXPECT_EQ(products(kRoutersAndLight), 4 + 5 + 2 + 2);
  EXPECT_EQ(products({}), 2 * (4 + 4 + 5 + 2));
  EXPECT_EQ(products({.everything = false, .routers = true}), 4 + 5 + 2);
}

TEST(Trainable, Bf16CopiesOfWhatIsFrozenStay) {
  const auto model = loaded(kRoutersAndLight);
  const Batch batch = batch_of();
  ForwardOptions options = tuning();
  options.compute = Compute::bf16;
  at::NoGradGuard no_grad;
  const auto copies = [&] { return calls_of("aten::copy_", [&] { model->forward(batch, options); }); };
  const int64_t first = copies(), second = copies();
  EXPECT_EQ(first - second, 3 * 4 + 1 + 2);  // matrices of blocks, head, light path
  model->parameter("model.layers.1.router.weight").mul_(1.01);
  model->parameter("model.layers.1.light.up.weight").mul_(1.01);
  EXPECT_EQ(copies() - second, 1);
}

TEST(Trainable, AdaptersAddNothingAtFirstAndThenWhatMergedWeightsDo) {
  const auto base = loaded({});
  const Trainable trainable{.everything = false, .routers = true, .lora = {.rank = 3, .alpha = 2}};
  const auto model = loaded(trainable), twin = loaded(trainable);
  model->init_adapters(7);
  twin->init_adapters(7);
  const Batch batch = batch_of();
  EXPECT_TRUE(at::equal(model->forward(batch, tuning()).loss, base->forward(batch, tuning()).loss));
  for (const Parameter& p : model->parameters()) {
    if (!p.adapter) continue;
    EXPECT_TRUE(at::equal(p.tensor, twin->parameter(p.name))) << p.name;
    const bool a = p.name.ends_with("lora_A.weight");
    if (a) {
      EXPECT_NEAR(p.tensor.square().mean().item<double>() * static_cast<double>(p.tensor.size(1)), 1, 0.7) << p.name;
      continue;
    }
    at::NoGradGuard no_grad;
    Tensor tensor = p.tensor;
    EXPECT_TRUE(tensor.eq(0).all().item<bool>()) << p.name;
    tensor.normal_(0, 0.5);
  }
  Transformer merged(config_of());
  for (const Parameter& p : model->tensors()) merged.load(p.name, model->merged(p.name));
  EXPECT_NE(model->merged("model.layers.0.mlp.up_proj.weight"), model->read("model.layers.0.mlp.up_proj.weight"));
  EXPECT_EQ(model->merged("model.norm.weight"), model->read("model.norm.weight"));
  const double found = merged.forward(batch, tuning()).loss.item<double>();
  EXPECT_NEAR(found, model->forward(batch, tuning()).loss.item<double>(), 1e-5);
  EXPECT_GT(std::abs(found - base->forward(batch, tuning()).loss.item<double>()), 1e-3);
}

TEST(Trainable, RefusesAdaptersThatThereCannotBe) {
  const auto refusal = [](const Trainable& trainable) {
    try {
      loaded(trainable);
    } catch (const UserError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(refusal({.lora = {.rank = 2}}), "the network: lora.rank: found 2, expected 0 where everything is trained");
  EXPECT_EQ(refusal({.everything = false, .lora = {.rank = -1}}), "the network: lora.rank: found -1, expected 1 to 16");
  EXPECT_EQ(refusal({.everything = false, .lora = {.rank = 17}}), "the network: lora.rank: found 17, expected 1 to 16");
  EXPECT_EQ(refusal({.everything = false, .lora = {.rank = 2, .targets = {"q", "head"}}}),
            "the network: lora.targets: found \"head\", expected some of q, k, v, o, gate, up, down");
}

}  // namespace
}  // namespace fathom::nn
