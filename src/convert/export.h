// A model for programs that are not this one: a folder that `transformers` loads (of a routed model with the code that computes it,
// hf/modeling_fathom.py), or one GGUF file of a dense model.
#pragma once
#include <string>

#include "convert/artifact.h"

namespace fathom::convert {

// The code for `transformers`, as it is written beside a model.
extern const char* const kModelingFathom;

struct ExportOptions : WriteOptions {
  std::optional<formats::GgmlType> type;  // F32, F16 or BF16, of the matrices of a folder; absent: the source's where it is one of them, else F32
  bool overwrite = false;
  bool separate_adapters = false;         // of an artifact: in a folder of their own, `adapter`, in the form of PEFT, and not merged into the weights
};

// A folder of the Hugging Face form. UserError: a model of random selection, whose control draws by a hash that only the engine has; a block whose attention nobody
// runs before one that somebody runs, which the cache of `transformers` cannot count; and as check_out().
void export_hf(const model::ModelFolder& model, const std::string& out, const ExportOptions& options = {});
// What tuning made of `source`. UserError also where `source` is not the model that the artifact belongs to, and where adapters are to be separate and it has none.
void export_hf(const model::ModelFolder& source, const Artifact& artifact, const std::string& out, const ExportOptions& options = {});
// A GGUF file with the tensors as they are. UserError where GGUF cannot say the model: routed blocks, the tokenizer.
void export_gguf(const model::ModelFolder& model, const std::string& out, const ExportOptions& options = {});

}  // namespace fathom::convert
