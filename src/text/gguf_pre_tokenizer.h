// What tokenizer.ggml.pre means: how a byte-level tokenizer cuts words.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "core/json.h"

namespace fathom::text {

struct GgufPreTokenizer {
  std::string json;            // the "pre_tokenizer" of a tokenizer.json
  bool nfc = false;            // the model's text was brought to NFC first
  bool ignore_merges = false;  // a word that is a token stays whole
};

// "" is "default". UserError names the known ones.
GgufPreTokenizer gguf_pre_tokenizer(std::string_view pre, const std::string& where);

// Whether a text begins with the begin token where the metadata has no add_bos_token: always for "llama", by the pre-tokenizer for
// "gpt2".
bool gguf_adds_bos(std::string_view model, std::string_view pre);

// The way back: a name for what a tokenizer.json has as "pre_tokenizer", or nothing. `trim_offsets` plays no part.
std::optional<std::string> gguf_pre_tokenizer_name(const Json& pre_tokenizer, bool nfc, bool ignore_merges);

}  // namespace fathom::text
