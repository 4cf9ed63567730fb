// A tokenizer and small models with drawn weights for the tests of study.
#pragma once
#include <memory>
#include <string>

#include "core/file.h"
#include "infer/weights.h"
#include "model/folder.h"
#include "model/random_model.h"
#include "study/evaluate.h"
#include "text/bpe_train.h"

namespace fathom::study {

inline const std::string kText =
    "The sea is calm tonight. The tide is full, the moon lies fair upon the straits; on the French coast the light gleams and is gone. "
    "In 1867 the cliffs of England stand, glimmering and vast, out in the tranquil bay. Come to the window, sweet is the night-air!\n\n"
    "Only, from the long line of spray where the sea meets the moon-blanched land, listen! You hear the grating roar of pebbles.\n";

inline std::string sample_tokenizer(int64_t vocab = 320) {
  text::BpeTrainOptions options;
  options.vocab_size = vocab;
  int left = 20;
  return text::train_bpe([&](std::string& text) { return text = kText, left-- > 0; }, options).tokenizer_json;
}

inline model::ModelConfig sample_config(int64_t vocab, bool routed) {
  model::ModelConfig c;
  c.vocab_size = vocab;
  c.hidden_size = 24, c.intermediate_size = 40, c.num_hidden_layers = 4;
  c.num_attention_heads = 3, c.num_key_value_heads = 1, c.head_dim = 8;
  c.max_position_embeddings = 64;
  if (routed) c.routing.units = {{1, 0.25}, {3, 0.5}};
  return c;
}

// `folder` must outlive nothing: the subject keeps what it needs open.
inline Subject sample_subject(const TemporaryFolder& folder, const std::string& name, bool routed, uint64_t seed,
                              void (*change)(model::ModelConfig&) = nullptr) {
  const std::string json = sample_tokenizer();
  model::ModelConfig c = sample_config(text::Tokenizer::from_json(json, "sample").vocab_size(), routed);
  if (change) change(c);
  model::ModelToWrite out = model::model_to_write(c, model::random_weights(c, seed), seed);
  out.tokenizer_json = json;
  if (routed) {
    routing::DialTable dial;
    dial.default_dial = 0.7;
    dial.points = {{0.6, 0.6, {1.5F, 1.0F}, {0.1, 0.2}, 7.0}, {0.7, 0.7, {0.6F, 0.1F}, {0.25, 0.5}, 6.9}, {1.0, 1.0, {-4.0F, -4.0F}, {1, 1}, 6.8}};
    out.dial = dial;
  }
  const std::string path = join_path(folder.path(), name);
  model::write_model_folder(path, out);
  return Subject::open(path, {.threads = 1});
}

inline HeldOut sample_text(const Subject& s, int64_t context, int64_t limit = 0) {
  std::vector<std::vector<int32_t>> documents;
  for (int d = 0; d < 10; ++d) documents.push_back(s.tokenizer->encode(kText.substr(static_cast<size_t>(d) * 17)));
  return cut_windows(std::move(documents), context, limit);
}

}  // namespace fathom::study
