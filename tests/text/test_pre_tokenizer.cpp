#include "text/pre_tokenizer.h"

#include "fixtures.h"

namespace fathom::text {
namespace {

using Strings = std::vector<std::string>;

class Collect final : public WordSink {
 public:
  void word(std::string_view word, const char* readable_end) override {
    EXPECT_GE(readable_end, word.data() + word.size());
    words.emplace_back(word);
  }
  Strings words;
};

Strings words(const Json& json, const std::string& text, bool first = true) {
  const PreTokenizer p(json, "f", "pre_tokenizer");
  PatternScratch patterns;
  PreTokenizer::Scratch scratch;
  scratch.patterns = &patterns;
  Collect out;
  p.run(text, first ? utf8_length(text) : 0, scratch, out);
  return out.words;
}

Json split(const char* behavior, bool invert = false, const char* kind = "String", const char* pattern = "-") {
  return {{"type", "Split"}, {"pattern", {{kind, pattern}}}, {"behavior", behavior}, {"invert", invert}};
}

TEST(PreTokenizer, SplitBehaviours) {
  const std::string text = "the-final--countdown";
  EXPECT_EQ(words(split("Removed"), text), (Strings{"the", "final", "countdown"}));
  EXPECT_EQ(words(split("Isolated"), text), (Strings{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(words(split("MergedWithPrevious"), text), (Strings{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(words(split("MergedWithNext"), text), (Strings{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(words(split("Contiguous"), text), (Strings{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(words(split("Removed", true), text), (Strings{"-", "-", "-"}));
  EXPECT_EQ(words(split("MergedWithPrevious", true), "a-b"), (Strings{"a", "-b"}));
  EXPECT_EQ(words(split("Isolated", false, "Regex", "(?=-)"), "a-b--"), (Strings{"a", "-b", "-", "-"}));
}

TEST(PreTokenizer, ByteLevel) {
  const Json plain = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  const Json prefix = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  EXPECT_TRUE(PreTokenizer(plain, "f", "p").byte_level());
  EXPECT_EQ(words(plain, "it's  me"), (Strings{"it", "'s", " ", " me"}));
  EXPECT_EQ(words(prefix, "é me"), (Strings{" é", " me"}));
  EXPECT_EQ(words(prefix, " é"), (Strings{" é"}));
  const Json spelled = {{"type", "Sequence"}, {"pretokenizers", {plain, split("Isolated", false, "String", "Ġ")}}};
  EXPECT_FALSE(PreTokenizer(spelled, "f", "p").byte_level());
  EXPECT_EQ(words(spelled, "é me"), (Strings{"Ã©", "Ġ", "me"}));
}

TEST(PreTokenizer, Metaspace) {
  const auto meta = [](const char* scheme, bool cut) { return Json{{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", cut}}; };
  EXPECT_EQ(words(meta("always", true), "a  b"), (Strings{"▁a", "▁", "▁b"}));
  EXPECT_EQ(words(meta("always", false), "a  b"), (Strings{"▁a▁▁b"}));
  EXPECT_EQ(words(meta("never", true), "a b"), (Strings{"a", "▁b"}));
  EXPECT_EQ(words(meta("first", true), "a b", true), (Strings{"▁a", "▁b"}));
  EXPECT_EQ(words(meta("first", true), "a b", false), (Strings{"a", "▁b"}));
  EXPECT_EQ(words(meta("always", true), " a"), (Strings{"▁a"}));
  const Json old = {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", false}, {"str_rep", "▁"}};
  EXPECT_EQ(words(old, "a b"), (Strings{"a", "▁b"}));
  const Json lines = {{"type", "Sequence"}, {"pretokenizers", {split("Isolated", false, "String", "\n"), meta("first", true)}}};
  EXPECT_EQ(words(lines, "a\nb"), (Strings{"▁a", "\n", "b"}));
}

TEST(PreTokenizer, TheOthers) {
  EXPECT_EQ(words({{"type", "Digits"}, {"individual_digits", true}}, "a12b"), (Strings{"a", "1", "2", "b"}));
  EXPECT_EQ(words({{"type", "Digits"}, {"individual_digits", false}}, "a12b"), (Strings{"a", "12", "b"}));
  EXPECT_EQ(words({{"type", "Whitespace"}}, "hé-- you_ "), (Strings{"hé", "--", "you_"}));
  EXPECT_EQ(words({{"type", "WhitespaceSplit"}}, " a\u3000b-c "), (Strings{"a", "b-c"}));
  EXPECT_EQ(words({{"type", "CharDelimiterSplit"}, {"delimiter", "é"}}, "aébé"), (Strings{"a", "b"}));
  EXPECT_EQ(words({{"type", "FixedLength"}, {"length", 2}}, "aé中b5"), (Strings{"aé", "中b", "5"}));
  EXPECT_EQ(words({{"type", "Punctuation"}}, "a,—b"), (Strings{"a", ",", "—", "b"}));
  EXPECT_EQ(words({{"type", "BertPreTokenizer"}}, "a, b"), (Strings{"a", ",", "b"}));
  EXPECT_EQ(words(nullptr, "a b"), (Strings{"a b"}));
  EXPECT_EQ(words(nullptr, ""), Strings{});
}

}  // namespace
}  // namespace fathom::text
