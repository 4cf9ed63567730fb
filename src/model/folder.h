// A model on disk: the folder that the Hugging Face ecosystem recognises, or one GGUF file.
//   config.json  model.safetensors (or a sharded index, or model.gguf)  tokenizer.json  generation_config.json  fathom_dial.json
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/chat_format.h"
#include "model/config.h"
#include "model/schema.h"
#include "model/stored_tensor.h"
#include "routing/dial.h"
#include "text/tokenizer.h"

namespace fathom::formats {
class GgufFile;
}

namespace fathom::model {

// Whether the folder holds weights that a ModelFolder reads.
bool has_weights(const std::string& folder);

// generation_config.json: the keys that we use; the others are kept as they are. An id list that the file leaves out
// is that of config.json.
struct GenerationConfig {
  double temperature = 1.0;         // 0 = greedy
  int64_t top_k = 0;                // 0 = off
  double top_p = 1.0;
  double repetition_penalty = 1.0;
  std::vector<int64_t> eos_token_ids;
  Json other = Json::object();
  bool operator==(const GenerationConfig&) const = default;

  static GenerationConfig from_json(const Json& json, const std::string& where, const ModelConfig& config);
  Json to_json(const ModelConfig& config) const;  // with the ids of `config`; sampling keys only where not the default
};

// An open model. Tensors are checked against the schema when it is opened: every one present with its shape,
// none unknown (a missing lm_head with tied embeddings is right; an extra one equal to the embedding is ignored, and so
// are the rotary_emb.inv_freq buffers of old Llama files, which follow from rope_theta).
class ModelFolder {
 public:
  // A folder with routed blocks must hold a fathom_dial.json, except for who is about to calibrate it (`need_dial` false).
  static std::shared_ptr<ModelFolder> open(const std::string& path, bool need_dial = true);
  ~ModelFolder();

  const std::string& path() const;
  const ModelConfig& config() const;
  const GenerationConfig& generation() const;
  void set_dial(routing::DialTable table);                // here, not in the folder: write_dial does that
  const std::optional<routing::DialTable>& dial() const;  // always there when a block is routed and need_dial was true
  // tokenizer.json, or what a GGUF file's metadata says. UserError when there is none.
  text::Tokenizer tokenizer() const;
  // How it wants a conversation; nothing when it does not say.
  std::optional<ChatFormat> chat_format() const;
  const formats::GgufFile* gguf() const;  // of a model that is one GGUF file; nullptr for a folder

  // A tensor of the schema as it lies in the file; its bytes live as long as the folder.
  const StoredTensor& stored(const std::string& name) const;
  // The same as f32, row-major; refuses NaN and infinity by tensor name and index. From several threads, as you like.
  std::vector<float> read_f32(const std::string& name) const;
  std::string dtype(const std::string& name) const;  // "F32", "BF16", "Q8_0", …
  // Lets go of the memory that the files' tensors took when they were read; they stay as they are.
  void release() const;
  // Keeps the files open and so the tensors' bytes alive, also when the folder is gone.
  std::shared_ptr<const void> files() const { return state_; }
  // Hash of the configuration and of every tensor's name, type, shape and bytes: models of one fingerprint compute the same. Reads
  // them all, at some GB a second where the files are in memory.
  std::string fingerprint() const;

 private:
  ModelFolder();
  static std::shared_ptr<ModelFolder> open_gguf(const std::string& path);
  struct State;
  std::shared_ptr<State> state_;
};

struct ModelToWrite {
  ModelConfig config;
  // Returns a tensor's elements as f32; called once per tensor of the schema, in its order. What `dtype` cannot hold as
  // a finite number is refused, as the reader would.
  std::function<std::vector<float>(const TensorSpec&)> tensor;
  std::string tokenizer_json;                     // bytes; empty = none
  std::optional<ChatFormat> chat_format;
  Json config_more = Json::object();              // keys of config.json beside those of `config`
  std::optional<routing::DialTable> dial;
  GenerationConfig generation;
  std::map<std::string, std::string> metadata;    // into the safetensors header: who made it, from what
  std::string dtype = "F32";                      // or "BF16", "F16"
  bool only_matrices = false;                     // `dtype` is that of is_reducible() tensors, the others stay F32
  std::map<std::string, std::string> dtypes;      // of single tensors, instead
  // Instead of `tensor`, `dtype` and `metadata`: writes the weights as model.gguf at the path that it is given.
  std::function<void(const std::string& path)> gguf;
};

// Writes the folder atomically, also against a crash; `path` must not exist (see core/file.h atomic_folder).
void write_model_folder(const std::string& path, const ModelToWrite& model);
// fathom_dial.json of a folder, atomically.
void write_dial(const std::string& folder, const routing::DialTable& dial);
// The same files into a folder that exists already (a checkpoint being filled).
void write_model_files(const std::string& folder, const ModelToWrite& model);

}  // namespace fathom::model
