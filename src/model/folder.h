// A model on disk: the folder that the Hugging Face ecosystem recognises.
//   config.json  model.safetensors (or a sharded index)  tokenizer.json  generation_config.json  fathom_dial.json
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/schema.h"
#include "routing/dial.h"

namespace fathom::model {

struct GenerationConfig {  // generation_config.json; the keys that we use, others are kept as they are
  double temperature = 1.0;
  int64_t top_k = 0;       // 0 = off
  double top_p = 1.0;
  double repetition_penalty = 1.0;
  std::vector<int64_t> eos_token_ids;
};

// An open model folder. Tensors are checked against the schema when it is opened: every one present with its shape,
// none unknown (a missing lm_head with tied embeddings is right; an extra one equal to the embedding is ignored).
class ModelFolder {
 public:
  static std::shared_ptr<ModelFolder> open(const std::string& path);
  ~ModelFolder();

  const std::string& path() const;
  const ModelConfig& config() const;
  const GenerationConfig& generation() const;
  const std::optional<routing::DialTable>& dial() const;  // required when a block is routed
  std::string tokenizer_path() const;                      // throws when the folder has no tokenizer.json
  bool has_tokenizer() const;

  // A tensor as f32 (converted from f16 and bf16), row-major; refuses NaN and infinity by tensor name and index.
  std::vector<float> read_f32(const std::string& name) const;
  // The stored bytes without a copy when the file holds f32 and they are aligned; else empty.
  std::span<const float> view_f32(const std::string& name) const;
  std::string dtype(const std::string& name) const;  // "F32", "BF16", …

 private:
  ModelFolder();
  struct State;
  std::unique_ptr<State> state_;
};

struct ModelToWrite {
  ModelConfig config;
  // Returns a tensor's elements as f32; called once per tensor of the schema, in its order.
  std::function<std::vector<float>(const TensorSpec&)> tensor;
  std::string tokenizer_json;                     // bytes; empty = none
  std::optional<routing::DialTable> dial;
  GenerationConfig generation;
  std::map<std::string, std::string> metadata;    // into the safetensors header: who made it, from what
  std::string dtype = "F32";                      // or "BF16", "F16"
};

// Writes the folder atomically; `path` must not exist (see core/file.h atomic_folder).
void write_model_folder(const std::string& path, const ModelToWrite& model);
// The same files into a folder that exists already (a checkpoint being filled).
void write_model_files(const std::string& folder, const ModelToWrite& model);

}  // namespace fathom::model
