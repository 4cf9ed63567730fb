// A model's shape: the Hugging Face keys of config.json plus the "fathom" object for routing. One type and one place for
// defaults, used by training, the engine, conversion and reports. A family of models is no more than the properties that tell
// it from Llama: Mistral none, Qwen2 `qkv_bias`, Qwen3 `qk_norm`.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/rope.h"
#include "routing/config.h"

namespace fathom::model {

// Low-rank adapters beside projections, as tuning makes them: a projection is W x + B (A x). Kept apart where the file of W is to stay as
// it is, in 4 bits above all; merged into W they are no property of a model.
struct Adapters {
  int64_t rank = 0;                      // r; 0: none
  std::vector<std::string> projections;  // of q, k, v, o, gate, up, down, in this order
  bool on(const std::string& projection) const;
  bool operator==(const Adapters&) const = default;
};
inline constexpr const char* kProjections[] = {"q", "k", "v", "o", "gate", "up", "down"};

struct ModelConfig {
  int64_t vocab_size = 0;               // V
  int64_t hidden_size = 0;              // C
  int64_t intermediate_size = 0;        // F
  int64_t num_hidden_layers = 0;        // L
  int64_t num_attention_heads = 0;      // H
  int64_t num_key_value_heads = 0;      // G, divides H
  int64_t head_dim = 0;                 // D, even; C / H when the file has none
  int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  bool qkv_bias = false;                // vectors added to the products with q, k and v; with o; with gate, up and down
  bool output_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;                 // RMSNorm of every head's query and key, after the bias and before RoPE
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;   // written as a number when there is one
  std::optional<int64_t> pad_token_id;
  Adapters adapters;
  routing::RoutingConfig routing;
  bool operator==(const ModelConfig&) const = default;

  // From a parsed config.json. model_type "llama", "mistral", "qwen2", "qwen3" (no routing) or "fathom" (the "fathom" object is
  // required). What the engine does not compute is refused by name: other model types, activations other than silu, other ways
  // to scale positions. Of a model whose attention sees a window of positions only, max_position_embeddings is at most the
  // window: up to there the window hides nothing. Other keys of the HF world are ignored.
  static ModelConfig from_json(const Json& json, const std::string& where);
  // model_type follows from the properties: "fathom" where a block is routed or no other family has them all.
  Json to_json() const;
  // Shape rules that no single field shows (H divisible by G, D even, …); throws UserError.
  void validate(const std::string& where) const;

  // Whether a block has the weights of its attention or MLP; a static unit needs none.
  bool has_part(int64_t block, routing::Part half) const {
    const int unit = routing.unit_of(block, half);
    return unit < 0 || !routing.units[static_cast<size_t>(unit)].is_static();
  }
  int64_t silent_blocks() const;  // whose attention is static: no token has keys and values there
  // Blocks that every token runs in full, and that a token may run in full.
  int64_t least_depth() const { return num_hidden_layers - routing.routed_blocks(); }
  int64_t most_depth() const { return num_hidden_layers - routing.static_blocks(); }
  int64_t predictor_width() const { return hidden_size / 2 > 0 ? hidden_size / 2 : 1; }  // P
};

}  // namespace fathom::model
