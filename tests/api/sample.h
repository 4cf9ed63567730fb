// Small models with drawn weights as folders on disk, for who knows the public interface alone, and the engine behind it to compare with.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "error_of.h"
#include "fathom/fathom.h"
#include "in_memory.h"
#include "infer/generate.h"
#include "model/document_ends.h"
#include "sample_model.h"

namespace fathom::test {

inline const std::string kText =
    "The sea is calm tonight. The tide is full, the moon lies fair upon the straits; on the French coast the light gleams and is gone. "
    "In 1867 the cliffs of England stand, glimmering and vast, out in the tranquil bay. Come to the window, sweet is the night-air!\n\n";

inline std::string sample_tokenizer() { return trained_tokenizer(kText); }

// Writes the folder; `change` may alter the shape, `damage` the weights.
inline std::string sample_folder(const TemporaryFolder& folder, const std::string& name, bool routed = true, uint64_t seed = 5,
                                 const std::function<void(model::ModelConfig&)>& change = {}, const std::function<void(model::Weights&)>& damage = {}) {
  static const std::string json = sample_tokenizer();
  model::ModelConfig c = sample_shape(text::Tokenizer::from_json(json, "sample").vocab_size(), routed, 240);
  c.eos_token_ids = {0};
  if (change) change(c);
  return write_sample(folder, name, c, json, routed, seed, damage);
}

// The engine behind the interface, for what a request is to become.
struct Plain {
  std::shared_ptr<model::ModelFolder> folder;
  text::Tokenizer tokenizer;
  model::DocumentEnds ends;
  infer::Engine engine;
  explicit Plain(const std::string& path)
      : folder(model::ModelFolder::open(path)), tokenizer(folder->tokenizer()), ends(model::document_ends(folder->config(), tokenizer)),
        engine(infer::Weights::load(*folder), {.threads = 1}) {}

  // As `fathom generate` would, at most 24 tokens; events too.
  infer::GenerateResult generate(const std::string& prompt, std::optional<double> dial, const infer::SamplerOptions& sampling, const infer::TokenCallback& on_token = {},
                                 int64_t tokens = 24) {
    infer::GenerateOptions o;
    o.sampling = sampling;
    o.policy = infer::RoutingPolicy::at_dial(folder->config(), folder->dial(), dial);
    o.max_new_tokens = tokens;
    o.stop_ids = model::end_ids(*folder, ends);
    const std::vector<std::vector<int32_t>> prompts = {model::prompt_ids(tokenizer, ends, prompt)};
    return infer::generate(engine, &tokenizer, prompts, o, on_token);
  }
};

// What an error of the public interface says.
template <class F>
std::string api_error_of(const F& body) {
  return error_of<Error>(body);
}

}  // namespace fathom::test
