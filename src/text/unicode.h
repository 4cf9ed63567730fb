// What code points are, in Unicode 16.0 (the version of the `tokenizers` package's regular expressions). utf8proc knows
// 15.0 and PCRE2 14.0; a short table of the code points assigned since then closes the gap.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace fathom::text {

enum class CharClass : uint8_t { other, letter, number, space };

// \p{L}, \p{N}, \s (White_Space), the rest. Unassigned code points are `other`.
CharClass char_class(char32_t c);

bool is_space(char32_t c);        // White_Space
bool is_mark(char32_t c);         // \p{M}
bool is_punctuation(char32_t c);  // \p{P} and ASCII punctuation
bool is_word_char(char32_t c);    // \w as UTS #18 has it: letters, marks, digits, letter numbers, connectors, joiners

void append_lowercase(std::string& out, char32_t c);  // full mapping of one character, without context

// Code points assigned after Unicode 14.0, for PCRE2 classes.
struct AssignedRange {
  char32_t first, last;
  char category[3];  // "Lu"
};
std::span<const AssignedRange> assigned_after_unicode_14();

enum class NormalForm : uint8_t { nfc, nfd, nfkc, nfkd };

// `text` in a normal form. Returns `text` itself where it is known to be in it already, else `storage`.
std::string_view normalize(std::string_view text, NormalForm form, std::string& storage);

// How many bytes at the start of its normal form belong to the first `lead` bytes of `text`, as the `tokenizers` package
// aligns them (text/normalizer.h).
size_t normalized_lead(std::string_view text, NormalForm form, size_t lead);

// Bytes at the start of `text` that are ASCII.
size_t ascii_prefix(std::string_view text);

}  // namespace fathom::text
