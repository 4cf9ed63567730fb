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
  bool add_bos = false;        // where the metadata does not say
};

// "" is "default". UserError names the known ones.
GgufPreTokenizer gguf_pre_tokenizer(std::string_view pre, const std::string& where);

// The way back: a name for what a tokenizer.json has as "pre_tokenizer", or nothing. `trim_offsets` plays no part.
std::optional<std::string> gguf_pre_tokenizer_name(const Json& pre_tokenizer, bool nfc, bool ignore_merges);

}  // namespace fathom::text
