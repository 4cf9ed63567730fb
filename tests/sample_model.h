// A tokenizer, and a small model of four blocks with drawn weights as a folder on disk: two of them routed, with thresholds for three dials.
#pragma once
#include <functional>
#include <string>

#include "core/file.h"
#include "model/folder.h"
#include "model/random_model.h"
#include "text/bpe_train.h"

namespace fathom::test {

inline std::string trained_tokenizer(const std::string& text, int64_t vocab = 320) {
  text::BpeTrainOptions options;
  options.vocab_size = vocab;
  int left = 20;
  return text::train_bpe([&](std::string& next) { return next = text, left-- > 0; }, options).tokenizer_json;
}

inline model::ModelConfig sample_shape(int64_t vocab, bool routed, int64_t context) {
  model::ModelConfig c;
  c.vocab_size = vocab;
  c.hidden_size = 24, c.intermediate_size = 40, c.num_hidden_layers = 4;
  c.num_attention_heads = 3, c.num_key_value_heads = 1, c.head_dim = 8;
  c.max_position_embeddings = context;
  if (routed) c.routing.units = {{1, 0.25}, {3, 0.5}};
  return c;
}

// The folder's path. `damage` may alter the weights.
inline std::string write_sample(const TemporaryFolder& folder, const std::string& name, const model::ModelConfig& c, const std::string& tokenizer_json, bool dial, uint64_t seed,
                                const std::function<void(model::Weights&)>& damage = {}) {
  model::Weights weights = model::random_weights(c, seed);
  if (damage) damage(weights);
  model::ModelToWrite out = model::model_to_write(c, std::move(weights), seed);
  out.tokenizer_json = tokenizer_json;
  if (dial) {
    routing::DialTable table;
    table.default_dial = 0.7;
    table.points = {{0.6, 0.6, {1.5F, 1.0F}, {0.1, 0.2}, 7.0}, {0.7, 0.7, {0.6F, 0.1F}, {0.25, 0.5}, 6.9}, {1.0, 1.0, {-4.0F, -4.0F}, {1, 1}, 6.8}};
    out.dial = table;
  }
  const std::string path = join_path(folder.path(), name);
  model::write_model_folder(path, out);
  return path;
}

}  // namespace fathom::test
