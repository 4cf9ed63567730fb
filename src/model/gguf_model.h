// A model in a GGUF file: shape from the metadata, tensors under the names of model/schema.h.
#pragma once
#include <string>
#include <unordered_map>

#include "formats/gguf.h"
#include "model/config.h"
#include "model/stored_tensor.h"

namespace fathom::model {

// UserError names the key or tensor: another architecture than "llama", scaled rotary positions, experts, biases, a tensor
// that is missing, unknown or of another shape.
ModelConfig gguf_config(const formats::GgufFile& file);

// Every tensor of the schema; views into the file, which must outlive them.
std::unordered_map<std::string, StoredTensor> gguf_tensors(const formats::GgufFile& file, const ModelConfig& config);

// The tokenizer of the file's metadata as a tokenizer.json.
std::string gguf_tokenizer_json(const formats::GgufFile& file);

}  // namespace fathom::model
