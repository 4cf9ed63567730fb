#include "core/utf8.h"
#include "study/depth.h"

namespace fathom::study {
namespace {

bool is_space(char32_t c) { return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xa0 || c == 0x3000 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029; }
bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }

// Blocks of punctuation and symbols; everything else past ASCII counts as a letter, which is right for scripts and
// good enough for a statistic.
bool is_letter(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return c >= 0xc0 && c != 0xd7 && c != 0xf7 && !(c >= 0x2000 && c <= 0x2bff) && !(c >= 0x3000 && c <= 0x303f) && !(c >= 0xfe00 && c <= 0xfe6f) && c < 0x1f000;
}

// A piece of a character (a token may hold one) counts as a letter: it is part of some script's text.
template <class Visit>
void each_character(std::string_view bytes, const Visit& visit) {
  for (size_t i = 0; i < bytes.size();) {
    char32_t c = 0;
    const size_t n = utf8_decode(bytes.substr(i), c);
    visit(n ? c : U'\u4e00');
    i += n ? n : 1;
  }
}

}  // namespace

const char* token_class_name(TokenClass c) {
  switch (c) {
    case TokenClass::special: return "special";
    case TokenClass::space: return "white space";
    case TokenClass::punctuation: return "punctuation";
    case TokenClass::digits: return "digits";
    case TokenClass::word_start: return "word start";
    case TokenClass::word_inside: return "word inside";
  }
  return "";
}

TokenClass token_class(std::string_view bytes, bool special, bool after_word) {
  if (special) return TokenClass::special;
  bool letters = false, digits = false, others = false, first_space = false, first = true;
  each_character(bytes, [&](char32_t c) {
    if (first) first_space = is_space(c);
    first = false;
    if (is_letter(c)) letters = true;
    else if (is_digit(c)) digits = true;
    else if (!is_space(c)) others = true;
  });
  if (letters) return !first_space && after_word ? TokenClass::word_inside : TokenClass::word_start;
  if (digits) return TokenClass::digits;
  return others ? TokenClass::punctuation : TokenClass::space;
}

bool ends_in_word(std::string_view bytes) {
  bool word = false;
  each_character(bytes, [&](char32_t c) { word = is_letter(c) || is_digit(c) || c == '_'; });
  return word;
}

}  // namespace fathom::study
