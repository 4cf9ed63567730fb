#include "text/word_patterns.h"

#include <array>

#include "core/utf8.h"
#include "text/unicode.h"

namespace fathom::text {
namespace {

// Class of each ASCII byte; kWide for the first byte of a longer character.
constexpr uint8_t kOther = 0, kLetter = 1, kNumber = 2, kSpace = 3, kWide = 4;
static_assert(kLetter == static_cast<uint8_t>(CharClass::letter) && kNumber == static_cast<uint8_t>(CharClass::number) &&
              kSpace == static_cast<uint8_t>(CharClass::space) && kOther == static_cast<uint8_t>(CharClass::other));

constexpr std::array<uint8_t, 256> byte_classes() {
  std::array<uint8_t, 256> t{};
  for (int b = 0; b < 256; ++b) {
    if (b >= 128) t[static_cast<size_t>(b)] = kWide;
    else if ((b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z')) t[static_cast<size_t>(b)] = kLetter;
    else if (b >= '0' && b <= '9') t[static_cast<size_t>(b)] = kNumber;
    else if (b == ' ' || (b >= 9 && b <= 13)) t[static_cast<size_t>(b)] = kSpace;
  }
  return t;
}
constexpr std::array<uint8_t, 256> kByteClass = byte_classes();

struct Char {
  uint8_t kind;
  uint8_t length;
};

Char wide_char(const char* p, const char* end) {
  char32_t c = 0;
  const size_t length = utf8_decode({p, static_cast<size_t>(end - p)}, c);
  if (length == 0) return {kOther, 1};  // not UTF-8: callers repair text first
  // Ideographs and syllables are most of the wide text there is.
  if ((c >= 0x4e00 && c <= 0x9fff) || (c >= 0xac00 && c <= 0xd7a3)) return {kLetter, 3};
  return {static_cast<uint8_t>(char_class(c)), static_cast<uint8_t>(length)};
}

inline Char char_at(const char* p, const char* end) {
  const uint8_t kind = kByteClass[static_cast<unsigned char>(*p)];
  if (kind != kWide) [[likely]] return {kind, 1};
  return wide_char(p, end);
}

inline const char* skip(const char* p, const char* end, uint8_t kind) {
  while (p < end) {
    const uint8_t k = kByteClass[static_cast<unsigned char>(*p)];
    if (k == kind) {
      ++p;
    } else if (k == kWide) {
      const Char c = wide_char(p, end);
      if (c.kind != kind) break;
      p += c.length;
    } else {
      break;
    }
  }
  return p;
}

// \s+(?!\S)|\s+ from `p`, which is a space: all spaces at the end of the text, else all but the last, at least one.
const char* spaces(const char* p, const char* end) {
  const char* last = p;
  const char* q = p;
  while (q < end) {
    const Char c = char_at(q, end);
    if (c.kind != kSpace) return last > p ? last : q;
    last = q;
    q += c.length;
  }
  return end;
}

// Length of 's 't 're 've 'm 'll 'd at `p` (an apostrophe), 0 when there is none.
size_t contraction(const char* p, const char* end, bool any_case) {
  const auto at = [&](ptrdiff_t i) -> char {
    if (end - p <= i) return 0;
    const char c = p[i];
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  };
  const char a = at(1), b = at(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  if (any_case && a == '\xc5' && b == '\xbf') return 3;  // U+017F, the long s, is an s in any case
  return 0;
}

}  // namespace

size_t gpt2_word_end(std::string_view text, size_t at) {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const char* p = begin + at;
  if (*p == '\'')
    if (const size_t n = contraction(p, end, false)) return at + n;
  Char c = char_at(p, end);
  if (*p == ' ' && p + 1 < end) {
    const Char next = char_at(p + 1, end);
    if (next.kind == kSpace) return static_cast<size_t>(spaces(p, end) - begin);
    ++p, c = next;
  }
  if (c.kind == kSpace) return static_cast<size_t>(spaces(p, end) - begin);
  return static_cast<size_t>(skip(p + c.length, end, c.kind) - begin);
}

size_t llama3_word_end(std::string_view text, size_t at, int max_digits) {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const char* p = begin + at;
  const Char c = char_at(p, end);
  if (c.kind == kLetter) return static_cast<size_t>(skip(p + c.length, end, kLetter) - begin);
  if (*p == '\'')
    if (const size_t n = contraction(p, end, true)) return at + n;
  if (c.kind == kNumber) {
    p += c.length;
    for (int i = 1; i < max_digits && p < end; ++i) {
      const Char d = char_at(p, end);
      if (d.kind != kNumber) break;
      p += d.length;
    }
    return static_cast<size_t>(p - begin);
  }
  const bool newline = *p == '\n' || *p == '\r';
  const Char next = p + c.length < end ? char_at(p + c.length, end) : Char{kSpace, 0};
  if (!newline && next.length > 0 && next.kind == kLetter) return static_cast<size_t>(skip(p + c.length, end, kLetter) - begin);
  if (c.kind == kOther || (*p == ' ' && next.length > 0 && next.kind == kOther)) {
    p = skip(c.kind == kOther ? p + c.length : p + 1, end, kOther);
    while (p < end && (*p == '\n' || *p == '\r')) ++p;
    return static_cast<size_t>(p - begin);
  }
  // Only spaces from here: up to the last line end among them, if there is one.
  const char* const stop = skip(p, end, kSpace);
  for (const char* q = stop; q > p; --q)
    if (q[-1] == '\n' || q[-1] == '\r') return static_cast<size_t>(q - begin);
  return static_cast<size_t>(spaces(p, end) - begin);
}

const std::string& word_rule_pattern(WordRule rule) {
  static const std::string gpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
  static const std::string llama3 =
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  static const std::string qwen2 =
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  return rule == WordRule::gpt2 ? gpt2 : rule == WordRule::llama3 ? llama3 : qwen2;
}

std::optional<WordRule> word_rule_of(const std::string& pattern) {
  for (const WordRule rule : {WordRule::gpt2, WordRule::llama3, WordRule::qwen2})
    if (pattern == word_rule_pattern(rule)) return rule;
  return {};
}

}  // namespace fathom::text
