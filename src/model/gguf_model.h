// A model in a GGUF file: shape from the metadata, tensors under the names of model/schema.h; and the weights of a model folder
// in such a file, under the schema's own names.
#pragma once
#include <string>
#include <unordered_map>

#include "formats/gguf.h"
#include "model/config.h"
#include "model/stored_tensor.h"
#include "text/tokenizer.h"

namespace fathom::model {

// Of the architectures llama, mistral, qwen2 and qwen3. UserError names the key or tensor: another architecture, positions scaled
// in a way that is not computed, experts, a tensor that is missing, unknown or of another shape.
ModelConfig gguf_config(const formats::GgufFile& file);

// Every tensor of the schema; views into the file, which must outlive them.
std::unordered_map<std::string, StoredTensor> gguf_tensors(const formats::GgufFile& file, const ModelConfig& config);

// The file's name of a tensor of the schema: "blk.0.attn_q.weight". A routed block's own tensors have none (an assertion).
std::string gguf_name(const std::string& name);
// Whether a file of the architecture holds this tensor with the halves of rotary pairs interleaved (StoredTensor::interleaved_head):
// q and k of llama and mistral.
bool gguf_interleaves(const std::string& architecture, const std::string& name);
// What the frequencies of RoPE are divided by, [D/2]: no tensor of the schema but part of the configuration.
inline constexpr const char* kGgufRopeTensor = "rope_freqs.weight";

// The weights of a folder's model.gguf (general.architecture "fathom"): every tensor of the schema under its own name, and no other.
std::unordered_map<std::string, StoredTensor> folder_gguf_tensors(const formats::GgufFile& file, const ModelConfig& config);

// The tokenizer of the file's metadata.
text::Tokenizer gguf_tokenizer(const formats::GgufFile& file);

}  // namespace fathom::model
