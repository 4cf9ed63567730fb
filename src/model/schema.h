// Names and shapes of a model's tensors: the Hugging Face names, and routers beside their block.
//
//   model.embed_tokens.weight                          [V, C]
//   model.layers.N.input_layernorm.weight              [C]
//   model.layers.N.self_attn.{q,k,v,o}_proj.weight     [H·D, C] [G·D, C] [G·D, C] [C, H·D]
//   model.layers.N.self_attn.{q,k,v,o}_proj.bias       [H·D] [G·D] [G·D] [C]      qkv_bias, output_bias
//   model.layers.N.….{q,…,down}_proj.lora_A.weight     [r, in]                    adapters
//   model.layers.N.….{q,…,down}_proj.lora_B.weight     [out, r]                   adapters: W x + B (A x)
//   model.layers.N.self_attn.{q,k}_norm.weight         [D]                        qk_norm
//   model.layers.N.post_attention_layernorm.weight     [C]
//   model.layers.N.mlp.{gate,up,down}_proj.weight      [F, C] [F, C] [C, F]
//   model.layers.N.mlp.{gate,up,down}_proj.bias        [F] [F] [C]                mlp_bias
//   PREFIX router.weight / .bias                       [1, C] [1]          units that decide (bias if router_bias)
//   PREFIX predictor.fc1.weight / .bias                [P, C] [P]          the same, rule "predictor"
//   PREFIX predictor.fc2.weight / .bias                [1, P] [1]
//   PREFIX light.down.weight, light.up.weight          [r, C] [C, r]       units with a light path
//   model.norm.weight                                  [C]
//   lm_head.weight                                     [V, C]              untied only
//
// PREFIX is "model.layers.N." of a whole block, with "self_attn." or "mlp." behind it for a part. A part whose unit is static has neither
// projections nor its norm (input_layernorm, post_attention_layernorm).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"

namespace fathom::model {

struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  int64_t elements() const;
};

// Every tensor of the model, in the order of the table above, block by block.
std::vector<TensorSpec> schema(const ModelConfig& config);

bool is_adapter(const std::string& name);  // a factor of an adapter

// Whether it is a matrix that may be stored in fewer bits: a projection, an adapter, a light path, the embedding or the head. Norms, biases, routers and predictors
// stay f32: they are below 1 % of the bytes, and a router's score is held against a threshold.
bool is_reducible(const TensorSpec& spec);

std::string layer_prefix(int64_t block);  // "model.layers.N."
std::string unit_prefix(const routing::RoutedUnit& unit);  // PREFIX

}  // namespace fathom::model
