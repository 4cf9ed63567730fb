// The three patterns that cut words in most byte-level tokenizers, matched by hand: several times as fast as PCRE2,
// which stays the reference (tests compare them on random strings). They cover every character, so a text is the
// concatenation of its words.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fathom::text {

enum class WordRule : uint8_t { gpt2, llama3, qwen2 };

// As written in tokenizer.json files.
const std::string& word_rule_pattern(WordRule rule);
std::optional<WordRule> word_rule_of(const std::string& pattern);

// End of the word that starts at `at`; `at` < text.size(), and `text` is UTF-8.
size_t gpt2_word_end(std::string_view text, size_t at);
// `max_digits`: 3 for llama3, 1 for qwen2.
size_t llama3_word_end(std::string_view text, size_t at, int max_digits);

// Calls word(begin, end) for every word of `text`.
template <class F>
void for_each_word(WordRule rule, std::string_view text, F&& word) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = rule == WordRule::gpt2     ? gpt2_word_end(text, at)
                       : rule == WordRule::llama3 ? llama3_word_end(text, at, 3)
                                                  : llama3_word_end(text, at, 1);
    word(at, end);
    at = end;
  }
}

}  // namespace fathom::text
