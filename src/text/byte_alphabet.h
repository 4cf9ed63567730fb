// GPT-2's alphabet: every byte as one printable character, so that a byte-level vocabulary is a JSON of strings.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace fathom::text {

const std::string& byte_to_letter(uint8_t byte);  // UTF-8 of its character, one or two bytes
int letter_to_byte(char32_t c);                   // -1 when no byte has it

std::string bytes_to_letters(std::string_view bytes);
// The bytes spelled by `letters`; false (and nothing appended) when one character is not of the alphabet.
bool letters_to_bytes(std::string_view letters, std::string& bytes);

}  // namespace fathom::text
