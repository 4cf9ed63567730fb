#include "core/utf8.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"

namespace fathom {
namespace {

TEST(Utf8, EveryCodePointRoundTrips) {
  for (char32_t c = 0; c <= 0x10ffff; ++c) {
    if (c >= 0xd800 && c <= 0xdfff) continue;
    std::string s;
    utf8_append(s, c);
    char32_t back = 0;
    ASSERT_EQ(utf8_decode(s, back), s.size()) << static_cast<uint32_t>(c);
    ASSERT_EQ(back, c);
    for (size_t n = 1; n < s.size(); ++n) {
      ASSERT_EQ(utf8_length(std::string_view(s).substr(0, n)), 0u);
      ASSERT_EQ(utf8_incomplete_tail("x" + s.substr(0, n)), n);
    }
    ASSERT_EQ(utf8_incomplete_tail(s), 0u);
  }
}

// Table 3-7 of the Unicode standard, written again as plain ranges.
bool by_the_table(unsigned a, unsigned b, unsigned c, unsigned d) {
  const auto in = [](unsigned x, unsigned low, unsigned high) { return x >= low && x <= high; };
  const bool c_tail = in(c, 0x80, 0xbf), d_tail = in(d, 0x80, 0xbf);
  if (a == 0xf0) return in(b, 0x90, 0xbf) && c_tail && d_tail;
  if (in(a, 0xf1, 0xf3)) return in(b, 0x80, 0xbf) && c_tail && d_tail;
  if (a == 0xf4) return in(b, 0x80, 0x8f) && c_tail && d_tail;
  return false;
}

TEST(Utf8, FourBytesByTheTable) {
  const unsigned edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xf4, 0xff};
  for (unsigned a = 0xf0; a <= 0xff; ++a)
    for (unsigned b : edges)
      for (unsigned c : edges)
        for (unsigned d : edges) {
          const char s[] = {static_cast<char>(a), static_cast<char>(b), static_cast<char>(c), static_cast<char>(d)};
          ASSERT_EQ(utf8_length({s, 4}) == 4, by_the_table(a, b, c, d)) << a << " " << b << " " << c << " " << d;
        }
}

TEST(Utf8, RepairsAsTheStandardDoes) {
  // Unicode 15, table 3-8 and its neighbours; Python's bytes.decode(errors="replace") gives the same.
  const std::string r = "\xef\xbf\xbd";
  EXPECT_EQ(utf8_repair("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(utf8_repair("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(utf8_repair("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(utf8_repair("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), r + r + r + r + "A");
  int64_t replaced = 5;
  EXPECT_EQ(utf8_repair("ok \xff\xffx", &replaced), "ok " + r + r + "x");
  EXPECT_EQ(replaced, 7);
  EXPECT_EQ(utf8_repair("", &replaced), "");
}

TEST(Utf8, ValidLengthIsTheFirstFault) {
  Random random(3);
  for (int i = 0; i < 3000; ++i) {
    std::string s;
    const size_t characters = random.below(40);
    for (size_t k = 0; k < characters; ++k) utf8_append(s, random.below(3) ? static_cast<char32_t>(random.below(128)) : static_cast<char32_t>(0x80 + random.below(0xd000)));
    EXPECT_EQ(utf8_valid_length(s), s.size());
    EXPECT_TRUE(is_utf8(s));
    EXPECT_EQ(utf8_repair(s), s);
    const size_t good = s.size();
    s += '\xff';
    s += std::string(random.below(20), 'x');
    EXPECT_EQ(utf8_valid_length(s), good);
    EXPECT_FALSE(is_utf8(s));
    EXPECT_TRUE(is_utf8(utf8_repair(s)));
  }
}

TEST(Printable, ShowsWhatATerminalMaySee) {
  EXPECT_EQ(printable("a\tb\x1b[31m\x7f é"), "a\\x09b\\x1b[31m\\x7f é");
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(printable("\u009b31m\u0080\u009f\u00a0"), "\\xc2\\x9b31m\\xc2\\x80\\xc2\\x9f\u00a0") << "some terminals obey these too";
  EXPECT_EQ(printable(std::string(100, 'x'), 5), "xxxxx…");
  EXPECT_EQ(printable("xxxxx", 5), "xxxxx");
}

}  // namespace
}  // namespace fathom
