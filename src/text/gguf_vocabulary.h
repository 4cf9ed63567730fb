// The tokenizer in a GGUF file's metadata, for Tokenizer::from_gguf: the one of a tokenizer.json that says the same, which is what
// is kept beside a model made of such a file. The ids are those of llama.cpp, and of `transformers` where it reads the pre-tokenizer that the file names.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace fathom::text {

// Plain data, as the keys tokenizer.ggml.* have it. An absent key is an empty string, span or optional.
struct GgufVocabulary {
  std::string_view model;  // "gpt2": byte-level BPE; "llama": SentencePiece BPE
  std::string_view pre;    // the pre-tokenizer of a "gpt2" model
  std::span<const std::string_view> tokens;
  std::span<const int32_t> token_type;       // GgufTokenType of each token
  std::span<const std::string_view> merges;  // "a b"
  std::span<const float> scores;
  std::optional<int64_t> bos_id, eos_id, unknown_id, padding_id;
  std::optional<bool> add_bos_token, add_eos_token;
  std::optional<bool> add_space_prefix, remove_extra_whitespaces;
};

enum class GgufTokenType : int32_t { undefined = 0, normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

}  // namespace fathom::text
