#include "text/pattern.h"

#include <chrono>

#include "fixtures.h"
#include "text/word_patterns.h"

namespace fathom::text {
namespace {

std::vector<std::string> all(const std::string& source, const std::string& text) {
  PatternScratch scratch;
  const Pattern p = Pattern::regex(source, "f", "p");
  Pattern::Matches m(p, text, scratch);
  std::vector<std::string> out;
  while (m.next()) out.push_back(text.substr(m.begin, m.end - m.begin));
  return out;
}

using Strings = std::vector<std::string>;

TEST(Pattern, MeansWhatOnigurumaMeans) {
  EXPECT_EQ(all(R"(\s)", "\u180e \u0085\u3000"), (Strings{" ", "\u0085", "\u3000"}));  // PCRE2's own \s has U+180E
  EXPECT_EQ(all(R"(\w+)", "añ_9\u0301²³-‿"), (Strings{"añ_9\u0301²³", "‿"}));
  EXPECT_EQ(all(R"(\h+)", "xAf9 "), (Strings{"Af9"}));
  EXPECT_EQ(all(R"(\v)", "\n\v"), (Strings{"\v"}));
  EXPECT_EQ(all("^a", "a\na\n"), (Strings{"a", "a"}));  // lines, as in Ruby
  EXPECT_EQ(all("(?m)a.a", "a\na"), (Strings{"a\na"}));
  EXPECT_EQ(all("a.a", "a\na"), Strings{});
  EXPECT_EQ(all("a(?i)b|c", "aC"), (Strings{"aC"}));  // the option holds both alternatives
  EXPECT_EQ(all(R"(\p{L}+)", "a\U00031350b"), (Strings{"a\U00031350b"}));  // Unicode 15
  EXPECT_EQ(all(R"([^\p{L}]+)", "a\U00031350 b"), (Strings{" "}));
  EXPECT_EQ(all(R"(\P{L}+)", "a\U00031350 b"), (Strings{" "}));
  EXPECT_EQ(all(R"(\p{^L}|\p{Letter})", "a "), (Strings{"a", " "}));
  EXPECT_EQ(all(R"(a{,2})", "aaa"), (Strings{"aa", "a"}));
  EXPECT_EQ(all(R"(\u0041\x42\x{43})", "ABC"), (Strings{"ABC"}));
  EXPECT_EQ(all(R"([[:digit:]]+)", "a12"), (Strings{"12"}));
  EXPECT_EQ(all(R"(\bx)", "x ax\u0301 x"), (Strings{"x", "x"}));
  EXPECT_EQ(all(R"((a)(b))", "ab"), (Strings{"ab"}));
  EXPECT_EQ(all(R"(\{x{)", "{x{"), (Strings{"{x{"}));
  EXPECT_EQ(all(R"([]a]+)", "a]b"), (Strings{"a]"}));
}

TEST(Pattern, EmptyMatchesMoveOn) {
  EXPECT_EQ(all("x*", "axxb"), (Strings{"", "xx", ""}));
  EXPECT_EQ(all("", "é"), (Strings{"", ""}));
  EXPECT_EQ(all("x*", ""), (Strings{""}));
}

TEST(Pattern, LiteralsAreFoundAndReplaced) {
  PatternScratch scratch;
  EXPECT_EQ(Pattern::literal(" ").replace("a  b", "▁", scratch), "a▁▁b");
  EXPECT_EQ(Pattern::literal("aa").replace("aaaa.", "b", scratch), "bb.");
  EXPECT_EQ(Pattern::regex(R"(\d+)", "f", "p").replace("a12b3", "#", scratch), "a#b#");
  EXPECT_EQ(Pattern::literal("x").replace("", "b", scratch), "");
}

TEST(Pattern, RefusesWhatItCannotHoldToItsMeaning) {
  for (const char* source : {"(", ")", "[", "a**b{", "[a&&b]", "[a[b]]", "(*FAIL)", "(?R)", "(?P<n>a)", R"(\1)", R"(\K)", R"(\G)", R"(\g<1>)", R"(\X)",
                             R"(\p)", R"(\pL)", R"(\p{Klingon})", R"(\p{Lx)", R"([\W])", "a{2,3}+", "a{2}?", R"(\x{110000})", R"(\x{d800})", R"(\xff)",
                             R"(\u00)", "(?x) a", R"([[:alpha:]])", "(?<=a+)b", "a\\", "[z-a]", "(?i", "(?#c)"})
    EXPECT_NE(error_of([&] { Pattern::regex(source, "file.json", "pre_tokenizer.pattern.Regex"); }).find("file.json: pre_tokenizer.pattern.Regex"),
              std::string::npos)
        << source;
  const std::string deep = std::string(5000, '(') + "a" + std::string(5000, ')');
  EXPECT_NE(error_of([&] { Pattern::regex(deep, "f", "p"); }).find("nested deeper"), std::string::npos);
  EXPECT_NE(error_of([&] { Pattern::regex(std::string(100'000, 'a'), "f", "p"); }).find("at most 16384"), std::string::npos);
  error_of([&] { Pattern::regex("((a{1,1000}){1,1000}){1,1000}", "f", "p"); });
}

TEST(Pattern, CatastrophicBacktrackingGivesUpWithAnError) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_NE(error_of([&] { all("(a+)+b", std::string(60, 'a') + "cb"); }).find("gives up"), std::string::npos);
  EXPECT_NE(error_of([&] { all("(?:a|a)*b", std::string(60, 'a') + "cb"); }).find("gives up"), std::string::npos);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

// Ten million alternatives in a row need a deep stack in a backtracking engine.
TEST(Pattern, LongMatchesAreWholeOrAnError) {
  const std::string text(3'000'000, 'a');
  try {
    EXPECT_EQ(all("(?:a|b)+", text), Strings{text});
  } catch (const UserError& e) {
    EXPECT_NE(std::string(e.what()).find("gives up"), std::string::npos);
  }
  EXPECT_EQ(all("[ab]+", text), Strings{text});
}

TEST(Pattern, ReplacementsAreBounded) {
  PatternScratch scratch;
  EXPECT_EQ(Pattern::literal("a").replace("aa", "bbb", scratch, 6), "bbbbbb");
  EXPECT_NE(error_of([&] { Pattern::literal("a").replace("aaa", "bbb", scratch, 6); }).find("at most 6 bytes"), std::string::npos);
}

// The matchers written by hand against PCRE2.
TEST(WordPatterns, EqualPcre2OnRandomStrings) {
  PatternScratch scratch;
  for (const WordRule rule : {WordRule::gpt2, WordRule::llama3, WordRule::qwen2}) {
    const Pattern p = Pattern::regex(word_rule_pattern(rule), "f", "p");
    Random random(static_cast<uint64_t>(rule));
    for (int i = 0; i < 12'000; ++i) {
      const std::string text = random_text(random, 40);
      std::vector<size_t> expected, got;
      Pattern::Matches m(p, text, scratch);
      size_t done = 0;
      while (m.next()) {
        ASSERT_EQ(m.begin, done) << printable(text, 400);
        expected.push_back(done = m.end);
      }
      ASSERT_EQ(done, text.size());
      for_each_word(rule, text, [&](size_t, size_t end) { got.push_back(end); });
      ASSERT_EQ(got, expected) << static_cast<int>(rule) << " " << printable(text, 400);
    }
  }
}

TEST(WordPatterns, EqualPcre2OnEveryCodePoint) {
  PatternScratch scratch;
  for (const WordRule rule : {WordRule::gpt2, WordRule::llama3}) {
    const Pattern p = Pattern::regex(word_rule_pattern(rule), "f", "p");
    for (char32_t block = 0; block < 0x110000; block += 0x100) {
      std::string text;
      for (char32_t c = block; c < block + 0x100; ++c)
        if (c < 0xd800 || c > 0xdfff) utf8_append(text, c), text += " x'";
      std::vector<size_t> expected, got;
      Pattern::Matches m(p, text, scratch);
      while (m.next()) expected.push_back(m.end);
      for_each_word(rule, text, [&](size_t, size_t end) { got.push_back(end); });
      ASSERT_EQ(got, expected) << std::hex << static_cast<uint32_t>(block);
    }
  }
}

TEST(WordPatterns, AreKnownByTheirSpelling) {
  EXPECT_EQ(word_rule_of(word_rule_pattern(WordRule::qwen2)), WordRule::qwen2);
  EXPECT_EQ(word_rule_of("\\s+"), std::nullopt);
}

}  // namespace
}  // namespace fathom::text
