// Small tokenizer.json files, made in the test.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "core/random.h"
#include "core/utf8.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer.h"

namespace fathom::text {

// A byte-level file: 256 bytes, then the results of `merges` ("h e"), and "<|end|>" as a special token.
inline Json byte_level_json(const std::vector<std::string>& merges) {
  Json vocab = Json::object();
  for (int b = 0; b < 256; ++b) vocab[byte_to_letter(static_cast<uint8_t>(b))] = b;
  int id = 256;
  for (const std::string& m : merges) {
    const size_t space = m.find(' ');
    vocab[m.substr(0, space) + m.substr(space + 1)] = id++;
  }
  return Json{{"version", "1.0"},
              {"added_tokens", Json::array({{{"id", id}, {"content", "<|end|>"}, {"special", true}, {"normalized", false}}})},
              {"normalizer", nullptr},
              {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
              {"post_processor", nullptr},
              {"decoder", {{"type", "ByteLevel"}}},
              {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

inline Json hello_json() { return byte_level_json({"h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld"}); }

// As Llama-2's: <unk>, <s>, </s>, byte tokens, then characters and the results of `merges`.
inline Json fallback_json(const std::string& chars, const std::vector<std::string>& merges) {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    vocab[name] = 3 + b;
  }
  int id = 259;
  for (std::string_view rest = chars; !rest.empty();) {
    const size_t n = utf8_length(rest);
    vocab[std::string(rest.substr(0, n))] = id++;
    rest.remove_prefix(n);
  }
  for (const std::string& m : merges) {
    const size_t space = m.find(' ');
    vocab[m.substr(0, space) + m.substr(space + 1)] = id++;
  }
  const auto special = [](int i, const char* content) { return Json{{"id", i}, {"content", content}, {"special", true}, {"normalized", false}}; };
  return Json{{"version", "1.0"},
              {"added_tokens", Json::array({special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")})},
              {"normalizer",
               {{"type", "Sequence"},
                {"normalizers", Json::array({{{"type", "Prepend"}, {"prepend", "▁"}}, {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}})}}},
              {"post_processor",
               {{"type", "TemplateProcessing"},
                {"single", Json::array({{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}})},
                {"pair", Json::array()},
                {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
              {"decoder",
               {{"type", "Sequence"},
                {"decoders", Json::array({{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
                                          {{"type", "ByteFallback"}},
                                          {{"type", "Fuse"}},
                                          {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}})}}},
              {"model", {{"type", "BPE"}, {"unk_token", "<unk>"}, {"fuse_unk", true}, {"byte_fallback", true}, {"vocab", vocab}, {"merges", merges}}}};
}

inline Json spm_json() { return fallback_json("▁helowrdé", {"h e", "l l", "he ll", "hell o", "▁ hello", "▁ w", "▁ ▁"}); }

inline Tokenizer make(const Json& json) { return Tokenizer::from_json(json.dump(), "test.json"); }

// The message of the UserError that `f` must throw.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const UserError& e) {
    return e.what();
  }
  ADD_FAILURE() << "no UserError";
  return "";
}

// Text of characters from every corner, of at most `length` characters.
inline std::string random_text(Random& random, size_t length) {
  static const char* const kPieces[] = {" ", " ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "'ſ", "the", " the", "1", "22", "333", ".", "!?", "é", "e\xcc\x81",
                                        "中", "한", "\u00a0", "\u180e", "\u3000", "👩‍👧", "🇩🇪", "<|end|>", "▁", "Ġ", "ß", "\u0085", "٣", "Ⅷ", "²"};
  std::string out;
  for (size_t n = random.below(length + 1); n > 0; --n) {
    const uint64_t kind = random.below(10);
    if (kind < 6) {
      out += kPieces[random.below(std::size(kPieces))];
    } else if (kind < 8) {
      out += static_cast<char>(random.below(0x80));
    } else {
      char32_t c;
      do c = static_cast<char32_t>(random.below(kind == 8 ? 0x3000 : 0x110000)); while (c >= 0xd800 && c <= 0xdfff);
      utf8_append(out, c);
    }
  }
  return out;
}

}  // namespace fathom::text
