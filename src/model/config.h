// A model's shape: the Hugging Face Llama keys of config.json plus the "fathom" object for routing. One type and one
// place for defaults, used by training, the engine, conversion and reports.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "routing/config.h"

namespace fathom::model {

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
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;   // written as a number when there is one
  std::optional<int64_t> pad_token_id;
  routing::RoutingConfig routing;
  bool operator==(const ModelConfig&) const = default;

  // From a parsed config.json. model_type "llama" (no routing) or "fathom" (the "fathom" object is required). What
  // the network does not compute is refused by name: other model types, biases, activations other than silu, rope
  // scaling types other than default. Other keys of the HF world are ignored.
  static ModelConfig from_json(const Json& json, const std::string& where);
  Json to_json() const;  // model_type and architectures follow from whether a block is routed
  // Shape rules that no single field shows (H divisible by G, D even, …); throws UserError.
  void validate(const std::string& where) const;

  // Whether a block has the weights of its attention or MLP; a static unit needs none.
  bool has_part(int64_t block, routing::Part half) const {
    const int unit = routing.unit_of(block, half);
    return unit < 0 || !routing.units[static_cast<size_t>(unit)].is_static();
  }
  // Blocks that every token runs in full, and that a token may run in full.
  int64_t least_depth() const { return num_hidden_layers - routing.routed_blocks(); }
  int64_t most_depth() const { return num_hidden_layers - routing.static_blocks(); }
  int64_t predictor_width() const { return hidden_size / 2 > 0 ? hidden_size / 2 : 1; }  // P
};

}  // namespace fathom::model
