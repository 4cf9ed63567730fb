// A tokenizer and small models with drawn weights for the tests of study.
#pragma once
#include <memory>
#include <string>

#include "infer/weights.h"
#include "sample_model.h"
#include "study/evaluate.h"

namespace fathom::study {

inline const std::string kText =
    "The sea is calm tonight. The tide is full, the moon lies fair upon the straits; on the French coast the light gleams and is gone. "
    "In 1867 the cliffs of England stand, glimmering and vast, out in the tranquil bay. Come to the window, sweet is the night-air!\n\n"
    "Only, from the long line of spray where the sea meets the moon-blanched land, listen! You hear the grating roar of pebbles.\n";

inline std::string sample_tokenizer(int64_t vocab = 320) { return test::trained_tokenizer(kText, vocab); }

inline model::ModelConfig sample_config(int64_t vocab, bool routed) { return test::sample_shape(vocab, routed, 64); }

// `folder` must outlive nothing: the subject keeps what it needs open.
inline Subject sample_subject(const TemporaryFolder& folder, const std::string& name, bool routed, uint64_t seed,
                              void (*change)(model::ModelConfig&) = nullptr) {
  const std::string json = sample_tokenizer();
  model::ModelConfig c = sample_config(text::Tokenizer::from_json(json, "sample").vocab_size(), routed);
  if (change) change(c);
  return Subject::open(test::write_sample(folder, name, c, json, routed, seed), {.threads = 1});
}

inline HeldOut sample_text(const Subject& s, int64_t context, int64_t limit = 0) {
  std::vector<std::vector<int32_t>> documents;
  for (int d = 0; d < 10; ++d) documents.push_back(s.tokenizer->encode(kText.substr(static_cast<size_t>(d) * 17)));
  return cut_windows(std::move(documents), context, limit);
}

}  // namespace fathom::study
