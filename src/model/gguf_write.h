// What a GGUF file says beside its tensors: the metadata of a dense model for llama.cpp and whoever reads its files, and that
// of a model folder's own model.gguf.
#pragma once
#include "formats/ggml_types.h"
#include "formats/gguf_writer.h"
#include "model/folder.h"

namespace fathom::model {

inline constexpr const char* kFolderArchitecture = "fathom";  // of model.gguf in a folder: llama.cpp must not take it for a llama
inline constexpr int kFolderVersion = 1;                      // "fathom.version" in it; another one is refused

// Of a whole dense model whose matrices are mostly of `type`. From a GGUF file its entries are carried over as they are, but for
// alignment and type; from a folder they are made of configuration and tokenizer. UserError names what GGUF cannot say; a model
// with routed blocks is refused, since no other program would skip them.
formats::GgufEntries gguf_entries(const ModelFolder& folder, formats::GgmlType type);

// The architecture of the same file: that of a GGUF source, else the one whose programs compute all that the configuration has.
// UserError where none does.
std::string gguf_architecture(const ModelFolder& folder);

// Of model.gguf in a folder, where config.json and tokenizer.json say the rest.
formats::GgufEntries folder_gguf_entries(formats::GgmlType type);

}  // namespace fathom::model
