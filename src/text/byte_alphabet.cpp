#include "text/byte_alphabet.h"

#include <array>

#include "core/utf8.h"

namespace fathom::text {
namespace {

constexpr bool stands_for_itself(int b) { return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae; }

// The other bytes, in order, are the characters from U+0100 on.
struct Alphabet {
  std::array<std::string, 256> letters;
  std::array<int, 0x144> bytes;
  Alphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const char32_t c = stands_for_itself(b) ? static_cast<char32_t>(b) : next++;
      utf8_append(letters[static_cast<size_t>(b)], c);
      bytes[c] = b;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet a;
  return a;
}

}  // namespace

const std::string& byte_to_letter(uint8_t byte) { return alphabet().letters[byte]; }

int letter_to_byte(char32_t c) { return c < alphabet().bytes.size() ? alphabet().bytes[c] : -1; }

std::string bytes_to_letters(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char b : bytes) out += byte_to_letter(static_cast<uint8_t>(b));
  return out;
}

bool letters_to_bytes(std::string_view letters, std::string& bytes) {
  const size_t before = bytes.size();
  while (!letters.empty()) {
    char32_t c = 0;
    const size_t length = utf8_decode(letters, c);
    const int b = length > 0 ? letter_to_byte(c) : -1;
    if (b < 0) {
      bytes.resize(before);
      return false;
    }
    bytes += static_cast<char>(b);
    letters.remove_prefix(length);
  }
  return true;
}

}  // namespace fathom::text
