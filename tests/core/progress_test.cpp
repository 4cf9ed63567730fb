#include "core/progress.h"

#include <chrono>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/log.h"

namespace fathom {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(Progress, PlainLinesWhereThereIsNoTerminal) {
  if (stderr_is_terminal()) GTEST_SKIP() << "stderr is a terminal here";
  ::testing::internal::CaptureStderr();
  {
    Progress p("train", "tokens", 4000, 1000);
    std::this_thread::sleep_for(std::chrono::milliseconds(510));
    p.update(2000, "loss 3.21");
    for (int i = 0; i < 1000; ++i) p.update(2000 + i);
    p.finish("done");
  }
  const std::string out = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(out, StartsWith("train  50%  2.00k/4.00k tokens  "));
  EXPECT_THAT(out, HasSubstr("k/s  "));  // 1,000 in half a second
  EXPECT_THAT(out, HasSubstr("left  loss 3.21\n"));
  EXPECT_THAT(out, HasSubstr("train  74%  3.00k/4.00k tokens"));
  EXPECT_THAT(out, HasSubstr("  done\n"));
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 2) << out;
  EXPECT_EQ(out.find('\x1b'), std::string::npos);
}

TEST(Progress, NoRateFromNoTime) {
  if (stderr_is_terminal()) GTEST_SKIP() << "stderr is a terminal here";
  ::testing::internal::CaptureStderr();
  {
    Progress p("read", "bytes", 1 << 20);
    p.update(1 << 19);
    p.finish();
  }
  const std::string out = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(out, StartsWith("read  50%  524k/1.05M bytes\nread  50%  524k/1.05M bytes  in "));
  EXPECT_EQ(out.find("/s"), std::string::npos) << out;
}

TEST(Log, LevelsAndWarnings) {
  ::testing::internal::CaptureStderr();
  log_info("a ", 1);
  log_warning("b ", 0.5);
  set_log_level(LogLevel::warning);
  log_info("not shown");
  log_warning("c");
  set_log_level(LogLevel::quiet);
  log_warning("not shown");
  set_log_level(LogLevel::info);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "a 1\nwarning: b 0.5\nwarning: c\n");
}

TEST(Error, PartsMakeOneLine) {
  EXPECT_STREQ(UserError({"file", "key", "x", "y", "do z"}).what(), "file: key: found x, expected y; do z");
  EXPECT_STREQ(UserError({"file", "", "", "y", ""}).what(), "file: expected y");
  EXPECT_STREQ(UserError({"", "key", "x", "", ""}).what(), "key: found x");
  EXPECT_STREQ(UserError("plain").what(), "plain");
  EXPECT_EQ(UserError({"file", "key", "x", "y", "z"}).parts().found, "x");
  EXPECT_THROW(FATHOM_ASSERT(1 == 2, "note ", 3), std::logic_error);
  try {
    FATHOM_ASSERT(1 == 2, "note ", 3);
  } catch (const std::logic_error& e) {
    EXPECT_THAT(e.what(), HasSubstr("1 == 2: note 3; please report this"));
  }
  EXPECT_EQ(str("a", 1, 0.1), "a10.1");
}

}  // namespace
}  // namespace fathom
