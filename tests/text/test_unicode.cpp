#include "text/unicode.h"

#include "fixtures.h"

namespace fathom::text {
namespace {

std::string normal(const std::string& text, NormalForm form) {
  std::string storage;
  return std::string(normalize(text, form, storage));
}

TEST(Unicode, Classes) {
  for (const char32_t c : U"aZéßЖ中あ한אª") {
    if (c == 0) continue;  // the end of the literal
    EXPECT_EQ(char_class(c), CharClass::letter) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : U"07²½Ⅷ٣〇") {
    if (c == 0) continue;  // the end of the literal
    EXPECT_EQ(char_class(c), CharClass::number) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : U" \t\n\r\v\f\u0085\u00a0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000") {
    if (c == 0) continue;  // the end of the literal
    EXPECT_EQ(char_class(c), CharClass::space);
  }
  for (const char32_t c : U"!-_\u0301\u200b\u180e\ufeff\u001c€😀") {
    if (c == 0) continue;  // the end of the literal
    EXPECT_EQ(char_class(c), CharClass::other) << static_cast<uint32_t>(c);
  }
}

TEST(Unicode, CodePointsNewerThanTheLibraries) {
  EXPECT_EQ(char_class(0x31350), CharClass::letter);  // 15.0
  EXPECT_EQ(char_class(0x2ebf0), CharClass::letter);  // 15.1
  EXPECT_EQ(char_class(0x1c89), CharClass::letter);   // 16.0
  EXPECT_EQ(char_class(0x16130), CharClass::number);  // 16.0
  EXPECT_EQ(char_class(0x323b0), CharClass::other);   // not in 16.0
  EXPECT_TRUE(is_mark(0x897));
  EXPECT_FALSE(is_mark(0x898 - 0x7));
}

TEST(Unicode, WordCharactersAndPunctuation) {
  for (const char32_t c : U"a_9é\u0301\u200dⓐⅧ‿") {
    if (c == 0) continue;  // the end of the literal
    EXPECT_TRUE(is_word_char(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : U" -²½€.") {
    if (c == 0) continue;  // the end of the literal
    EXPECT_FALSE(is_word_char(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : U".,$+<^`|~«—。") {
    if (c == 0) continue;  // the end of the literal
    EXPECT_TRUE(is_punctuation(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : U"a €") {
    if (c == 0) continue;  // the end of the literal
    EXPECT_FALSE(is_punctuation(c)) << static_cast<uint32_t>(c);
  }
}

TEST(Unicode, Lowercase) {
  std::string out;
  for (const char32_t c : U"AÉİΣẞǅ\u1c89") {
    if (c == 0) continue;  // the end of the literal
    append_lowercase(out, c);
  }
  EXPECT_EQ(out, "aéi\u0307σßǆ\u1c8a");
}

TEST(Unicode, NormalForms) {
  EXPECT_EQ(normal("e\u0301", NormalForm::nfc), "é");
  EXPECT_EQ(normal("é", NormalForm::nfd), "e\u0301");
  EXPECT_EQ(normal("ﬁ²", NormalForm::nfkc), "fi2");
  EXPECT_EQ(normal("ﬁé", NormalForm::nfkd), "fie\u0301");
  EXPECT_EQ(normal("ﬁ", NormalForm::nfc), "ﬁ");
  EXPECT_EQ(normal("\u2126", NormalForm::nfc), "Ω");
  EXPECT_EQ(normal("a\u0301\u0327", NormalForm::nfc), "á\u0327");           // marks change places
  EXPECT_EQ(normal("\u1100\u1161\u11a8", NormalForm::nfc), "각");            // Hangul by rule
  EXPECT_EQ(normal("가\u11a8가", NormalForm::nfc), "각가");
  EXPECT_EQ(normal("\u0915\u093c", NormalForm::nfc), "\u0915\u093c");        // an exclusion stays apart
  EXPECT_EQ(normal("x\u0301", NormalForm::nfc), "x\u0301");
  EXPECT_EQ(normal("\u0301e\u0301", NormalForm::nfc), "\u0301é");
  EXPECT_EQ(normal("", NormalForm::nfc), "");
}

TEST(Unicode, TextThatIsNormalIsNotCopied) {
  const std::string text = "Plain, Ünï, 中文, 한글, 😀";
  std::string storage;
  EXPECT_EQ(normalize(text, NormalForm::nfc, storage).data(), text.data());
  EXPECT_TRUE(storage.empty());
}

// Normalising by segments must not depend on where they are cut.
TEST(Unicode, SegmentsAreThoseOfTheWhole) {
  Random random(1);
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (int n = 0; n < 12; ++n) utf8_append(text, static_cast<char32_t>(random.below(4) ? 0x2f0 + random.below(0x90) : 0x1100 + random.below(0x100)));
    for (const NormalForm form : {NormalForm::nfc, NormalForm::nfkc}) {
      // Composing what was decomposed reaches the same form by another way, with no stable characters to cut at.
      EXPECT_EQ(normal(text, form), normal(normal(text, form == NormalForm::nfc ? NormalForm::nfd : NormalForm::nfkd), form));
      EXPECT_EQ(normal(normal(text, form), form), normal(text, form));
    }
  }
}

TEST(Unicode, AMillionMarksAreSortedInTime) {
  std::string text = "a";
  for (int i = 0; i < 500'000; ++i) text += i % 2 ? "\u0301" : "\u0327";
  const std::string out = normal(text, NormalForm::nfd);
  EXPECT_EQ(out.size(), text.size());
  EXPECT_EQ(out.substr(1, 4), "\u0327\u0327");
  EXPECT_EQ(out.substr(out.size() - 4), "\u0301\u0301");
}

TEST(Unicode, AsciiPrefix) {
  EXPECT_EQ(ascii_prefix(""), 0u);
  for (size_t n = 0; n < 30; ++n) {
    EXPECT_EQ(ascii_prefix(std::string(n, 'a')), n);
    EXPECT_EQ(ascii_prefix(std::string(n, 'a') + "é" + std::string(20, 'b')), n);
  }
}

}  // namespace
}  // namespace fathom::text
