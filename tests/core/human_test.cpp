#include "core/human.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace fathom {
namespace {

TEST(Format, Counts) {
  const std::pair<double, const char*> cases[] = {{0, "0"}, {7, "7"}, {999, "999"}, {999.4, "999"}, {999.6, "1.00k"}, {1000, "1.00k"}, {1234, "1.23k"},
                                                  {9994, "9.99k"}, {9996, "10.0k"}, {12345, "12.3k"}, {99960, "100k"}, {123456, "123k"},
                                                  {999600, "1.00M"}, {4.56e7, "45.6M"}, {7.89e9, "7.89G"}, {1e18, "1.00E"}, {-1500, "-1.50k"}};
  for (const auto& [n, text] : cases) EXPECT_EQ(human_count(n), text) << n;
}

TEST(Format, Bytes) {
  const std::pair<double, const char*> cases[] = {{0, "0 B"}, {999, "999 B"}, {1000, "1.0 KB"}, {1234567, "1.2 MB"}, {99960000, "100 MB"}, {5.5e12, "5.5 TB"}};
  for (const auto& [n, text] : cases) EXPECT_EQ(human_bytes(n), text) << n;
}

TEST(Format, Durations) {
  const std::pair<double, const char*> cases[] = {{0, "0 ms"}, {0.0123, "12 ms"}, {0.85, "850 ms"}, {1, "1.0 s"}, {12.34, "12.3 s"}, {59.9, "59.9 s"}, {60, "1m00s"},
                                                  {245, "4m05s"}, {3599, "59m59s"}, {3600, "1h00m"}, {7380, "2h03m"}, {360000, "100h00m"}, {-1, "?"}, {1e12, "?"}};
  for (const auto& [s, text] : cases) EXPECT_EQ(human_duration(s), text) << s;
}

TEST(Format, Numbers) {
  EXPECT_EQ(fixed(3.14159, 4), "3.1416");
  EXPECT_EQ(fixed(-0.5, 0), "-0");
  EXPECT_EQ(fixed(std::nan(""), 2), "–");
  EXPECT_EQ(fixed(std::numeric_limits<double>::infinity(), 2), "–");
  EXPECT_EQ(percent(0.125), "12.5 %");
  EXPECT_EQ(percent(0.98765, 0), "99 %");
  EXPECT_EQ(percent(std::nan("")), "–");
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(1234567), "1,234,567");
  EXPECT_EQ(grouped(-1234), "-1,234");
  EXPECT_EQ(grouped(-123), "-123");
}

}  // namespace
}  // namespace fathom
