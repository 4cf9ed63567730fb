#include "core/utf8.h"

#include <cstdint>
#include <cstring>

namespace fathom {
namespace {

struct Scan {
  size_t length;      // bytes that form a character, or a maximal ill-formed part
  bool whole;         // a well-formed character
  bool cut;           // well-formed so far, and the text ended
  char32_t code_point;
};

Scan scan(std::string_view t) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(t[i]); };
  const unsigned char b0 = byte(0);
  if (b0 < 0x80) return {1, true, false, b0};
  size_t need = 0;
  unsigned char low = 0x80, high = 0xbf;  // bounds of the second byte
  char32_t cp = 0;
  if (b0 >= 0xc2 && b0 <= 0xdf) {
    need = 2, cp = b0 & 0x1f;
  } else if (b0 >= 0xe0 && b0 <= 0xef) {
    need = 3, cp = b0 & 0x0f;
    if (b0 == 0xe0) low = 0xa0;
    if (b0 == 0xed) high = 0x9f;
  } else if (b0 >= 0xf0 && b0 <= 0xf4) {
    need = 4, cp = b0 & 0x07;
    if (b0 == 0xf0) low = 0x90;
    if (b0 == 0xf4) high = 0x8f;
  } else {
    return {1, false, false, 0};
  }
  for (size_t i = 1; i < need; ++i) {
    if (i == t.size()) return {i, false, true, 0};
    if (byte(i) < low || byte(i) > high) return {i, false, false, 0};
    cp = (cp << 6) | (byte(i) & 0x3f);
    low = 0x80, high = 0xbf;
  }
  return {need, true, false, cp};
}

}  // namespace

size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const Scan s = scan(text);
  return s.whole ? s.length : 0;
}

size_t utf8_decode(std::string_view text, char32_t& code_point) {
  if (text.empty()) return 0;
  const Scan s = scan(text);
  if (!s.whole) return 0;
  code_point = s.code_point;
  return s.length;
}

bool has_control_character(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    // No other character has the byte C2 before one below A0.
    if (c < 0x20 || c == 0x7f || (c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0)) return true;
  }
  return false;
}

void utf8_append(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3f));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  }
}

size_t utf8_valid_length(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t word;
    while (i + 8 <= text.size() && (std::memcpy(&word, text.data() + i, 8), (word & 0x8080808080808080ULL) == 0)) i += 8;
    if (i == text.size()) break;
    const Scan s = scan(text.substr(i));
    if (!s.whole) return i;
    i += s.length;
  }
  return i;
}

bool is_utf8(std::string_view text) { return utf8_valid_length(text) == text.size(); }

size_t utf8_incomplete_tail(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const std::string_view tail = text.substr(text.size() - back);
    if ((static_cast<unsigned char>(tail[0]) & 0xc0) == 0x80) continue;  // inside a character
    const Scan s = scan(tail);
    return s.cut && s.length == back ? back : 0;
  }
  return 0;
}

std::string utf8_repair(std::string_view text, int64_t* replaced) {
  std::string out;
  out.reserve(text.size());
  while (true) {
    const size_t good = utf8_valid_length(text);
    out.append(text.substr(0, good));
    text.remove_prefix(good);
    if (text.empty()) return out;
    out += "\xef\xbf\xbd";
    if (replaced) ++*replaced;
    text.remove_prefix(scan(text).length);
  }
}

}  // namespace fathom
