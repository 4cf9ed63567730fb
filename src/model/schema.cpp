#include "model/schema.h"

namespace fathom::model {

int64_t TensorSpec::elements() const {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

bool is_adapter(const std::string& name) { return name.ends_with("_proj.lora_A.weight") || name.ends_with("_proj.lora_B.weight"); }

bool is_reducible(const TensorSpec& spec) {
  return spec.name.ends_with("_proj.weight") || spec.name.ends_with("light.down.weight") || spec.name.ends_with("light.up.weight") || is_adapter(spec.name) || spec.name == "model.embed_tokens.weight" || spec.name == "lm_head.weight";
}

std::string layer_prefix(int64_t block) { return "model.layers." + std::to_string(block) + "."; }

std::string unit_prefix(const routing::RoutedUnit& unit) {
  const char* const part = unit.part == routing::Part::block ? "" : unit.part == routing::Part::attention ? "self_attn." : "mlp.";
  return layer_prefix(unit.block) + part;
}

std::vector<TensorSpec> schema(const ModelConfig& c) {
  const int64_t C = c.hidden_size, F = c.intermediate_size, V = c.vocab_size, P = c.predictor_width();
  const int64_t HD = c.num_attention_heads * c.head_dim, GD = c.num_key_value_heads * c.head_dim;
  std::vector<TensorSpec> out;
  const auto adapters = [&](const std::string& layer, std::initializer_list<const char*> projections) {
    for (const std::string name : projections) {
      if (!c.adapters.on(name)) continue;
      const int64_t r = c.adapters.rank, outputs = name == "q" ? HD : name == "k" || name == "v" ? GD : name == "gate" || name == "up" ? F : C;
      out.push_back({layer + name + "_proj.lora_A.weight", {r, name == "o" ? HD : name == "down" ? F : C}});
      out.push_back({layer + name + "_proj.lora_B.weight", {outputs, r}});
    }
  };
  out.push_back({"model.embed_tokens.weight", {V, C}});
  for (int64_t block = 0; block < c.num_hidden_layers; ++block) {
    const std::string p = layer_prefix(block);
    if (c.has_part(block, routing::Part::attention)) {
      out.push_back({p + "input_layernorm.weight", {C}});
      out.push_back({p + "self_attn.q_proj.weight", {HD, C}});
      out.push_back({p + "self_attn.k_proj.weight", {GD, C}});
      out.push_back({p + "self_attn.v_proj.weight", {GD, C}});
      out.push_back({p + "self_attn.o_proj.weight", {C, HD}});
      adapters(p + "self_attn.", {"q", "k", "v", "o"});
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
    }
    if (c.has_part(block, routing::Part::mlp)) {
      out.push_back({p + "post_attention_layernorm.weight", {C}});
      out.push_back({p + "mlp.gate_proj.weight", {F, C}});
      out.push_back({p + "mlp.up_proj.weight", {F, C}});
      out.push_back({p + "mlp.down_proj.weight", {C, F}});
      adapters(p + "mlp.", {"gate", "up", "down"});
      if (c.mlp_bias) {
        out.push_back({p + "mlp.gate_proj.bias", {F}});
        out.push_back({p + "mlp.up_proj.bias", {F}});
        out.push_back({p + "mlp.down_proj.bias", {C}});
      }
    }
    const auto [first, last] = c.routing.units_of(block);
    for (size_t u = first; u < last; ++u) {
      const routing::RoutedUnit& unit = c.routing.units[u];
      const std::string at = unit_prefix(unit);
      if (!unit.is_static()) {
        out.push_back({at + "router.weight", {1, C}});
        if (c.routing.router_bias) out.push_back({at + "router.bias", {1}});
        if (c.routing.rule == routing::CausalRule::predictor) {
          out.push_back({at + "predictor.fc1.weight", {P, C}});
          out.push_back({at + "predictor.fc1.bias", {P}});
          out.push_back({at + "predictor.fc2.weight", {1, P}});
          out.push_back({at + "predictor.fc2.bias", {1}});
        }
      }
      if (!unit.paths.light) continue;
      out.push_back({at + "light.down.weight", {unit.light_rank, C}});
      out.push_back({at + "light.up.weight", {C, unit.light_rank}});
    }
  }
  out.push_back({"model.norm.weight", {C}});
  if (!c.tie_word_embeddings) out.push_back({"lm_head.weight", {V, C}});
  return out;
}

}  // namespace fathom::model
