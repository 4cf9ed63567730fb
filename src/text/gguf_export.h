// The way back of gguf_vocabulary.h: a tokenizer.json as the metadata of a GGUF file. Byte-level BPE only ("gpt2"): what GGUF has
// no key for is refused by name, so that whoever reads the file gets the same ids or nothing.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace fathom::text {

// As the keys tokenizer.ggml.* have it; `model` is "gpt2".
struct GgufTokenizer {
  std::string pre;                   // the pre-tokenizer's name
  std::vector<std::string> tokens;   // [V]; ids without a token are "[PADn]", unused
  std::vector<int32_t> token_type;   // [V] GgufTokenType
  std::vector<std::string> merges;   // "a b"
  std::optional<int32_t> bos_id, eos_id;  // the tokenizer's own
  bool add_bos = false, add_eos = false;  // around every text that asks for special tokens
};

// `vocabulary` (V) is the model's, at least the tokenizer's. UserError names the part of the tokenizer that GGUF cannot say.
GgufTokenizer gguf_tokenizer_of(const Tokenizer& tokenizer, int64_t vocabulary, const std::string& where);

}  // namespace fathom::text
