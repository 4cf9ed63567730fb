// What stands around a model's texts, and how one begins that it is to go on with.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "model/folder.h"
#include "text/tokenizer.h"

namespace fathom::model {

// What stood around the documents that a model was trained on. config.json says whether: bos_token_id and eos_token_id are
// there or not. Which token is the tokenizer's word, in whose absence there is none: config.json of a Llama may name ids that
// nothing puts before a text, such as its defaults.
struct DocumentEnds {
  std::optional<int32_t> begin, end;
  std::optional<int32_t> first() const { return begin ? begin : end; }  // what a text of nothing begins with
  bool operator==(const DocumentEnds&) const = default;
};
DocumentEnds document_ends(const ModelConfig& config, const text::Tokenizer& tokenizer);

// The ids that end a text of the model.
std::vector<int32_t> end_ids(const ModelFolder& folder, const DocumentEnds& ends);

struct PromptOptions {
  bool begin = true;           // with the model's begin token, where it was trained with one
  bool allow_special = false;  // special tokens in the text are such, not plain text
};
// A text as the beginning of one of the model's. An empty one is what stands between two documents, which also begins one; no id
// at all where the model has nothing that begins a text.
std::vector<int32_t> prompt_ids(const text::Tokenizer& tokenizer, const DocumentEnds& ends, std::string_view text, const PromptOptions& options = {});

}  // namespace fathom::model
