#include "model/schema.h"

namespace fathom::model {

int64_t TensorSpec::elements() const {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

bool is_reducible(const TensorSpec& spec) {
  return spec.name.ends_with("_proj.weight") || spec.name == "model.embed_tokens.weight" || spec.name == "lm_head.weight";
}

std::string layer_prefix(int64_t block) { return "model.layers." + std::to_string(block) + "."; }

std::vector<TensorSpec> schema(const ModelConfig& c) {
  const int64_t C = c.hidden_size, F = c.intermediate_size, V = c.vocab_size, P = c.predictor_width();
  const int64_t HD = c.num_attention_heads * c.head_dim, GD = c.num_key_value_heads * c.head_dim;
  std::vector<TensorSpec> out;
  out.push_back({"model.embed_tokens.weight", {V, C}});
  for (int64_t block = 0; block < c.num_hidden_layers; ++block) {
    const std::string p = layer_prefix(block);
    out.push_back({p + "input_layernorm.weight", {C}});
    out.push_back({p + "self_attn.q_proj.weight", {HD, C}});
    out.push_back({p + "self_attn.k_proj.weight", {GD, C}});
    out.push_back({p + "self_attn.v_proj.weight", {GD, C}});
    out.push_back({p + "self_attn.o_proj.weight", {C, HD}});
    if (c.qkv_bias) {
      out.push_back({p + "self_attn.q_proj.bias", {HD}});
      out.push_back({p + "self_attn.k_proj.bias", {GD}});
      out.push_back({p + "self_attn.v_proj.bias", {GD}});
    }
    if (c.output_bias) out.push_back({p + "self_attn.o_proj.bias", {C}});
    if (c.qk_norm) {
      out.push_back({p + "self_attn.q_norm.weight", {c.head_dim}});
      out.push_back({p + "self_attn.k_norm.weight", {c.head_dim}});
    }
    out.push_back({p + "post_attention_layernorm.weight", {C}});
    out.push_back({p + "mlp.gate_proj.weight", {F, C}});
    out.push_back({p + "mlp.up_proj.weight", {F, C}});
    out.push_back({p + "mlp.down_proj.weight", {C, F}});
    if (c.mlp_bias) {
      out.push_back({p + "mlp.gate_proj.bias", {F}});
      out.push_back({p + "mlp.up_proj.bias", {F}});
      out.push_back({p + "mlp.down_proj.bias", {C}});
    }
    if (c.routing.routed_index(static_cast<int>(block)) < 0) continue;
    out.push_back({p + "router.weight", {1, C}});
    if (c.routing.router_bias) out.push_back({p + "router.bias", {1}});
    if (c.routing.rule != routing::CausalRule::predictor) continue;
    out.push_back({p + "predictor.fc1.weight", {P, C}});
    out.push_back({p + "predictor.fc1.bias", {P}});
    out.push_back({p + "predictor.fc2.weight", {1, P}});
    out.push_back({p + "predictor.fc2.bias", {1}});
  }
  out.push_back({"model.norm.weight", {C}});
  if (!c.tie_word_embeddings) out.push_back({"lm_head.weight", {V, C}});
  return out;
}

}  // namespace fathom::model
