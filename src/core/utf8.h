// UTF-8 as the Unicode standard defines it (table 3-7): no surrogates, no overlong forms, nothing past U+10FFFF.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fathom {

// Bytes of the well-formed character that `text` starts with, or 0 when it starts with none.
size_t utf8_length(std::string_view text);

// The same, and its code point.
size_t utf8_decode(std::string_view text, char32_t& code_point);

// Whether a terminal may obey a character of the text: C0, DEL or C1 (U+0080 to U+009F).
bool has_control_character(std::string_view text);

void utf8_append(std::string& out, char32_t code_point);

bool is_utf8(std::string_view text);

// Bytes of the longest beginning of `text` that is well-formed; text.size() when all of it is. Fast on ASCII.
size_t utf8_valid_length(std::string_view text);

// How many bytes at the end of `text` are the beginning of a character that more bytes could complete (0 to 3).
size_t utf8_incomplete_tail(std::string_view text);

// Every maximal ill-formed part becomes one U+FFFD (the standard's practice, and Python's errors="replace").
// `replaced`, when given, is increased by their number.
std::string utf8_repair(std::string_view text, int64_t* replaced = nullptr);

}  // namespace fathom
