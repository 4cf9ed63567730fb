#include "bounds.h"
#include "core/json.h"

namespace fathom {
namespace {

std::string padded(int64_t bytes) { return "[" + std::string(static_cast<size_t>(bytes) - 2, ' ') + "]"; }
std::string nested(int depth) { return std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']'); }
std::string values(int64_t n) {  // n in all: the array and what is in it; left open, so that no tree of them is made
  std::string out = "[1";
  out.reserve(static_cast<size_t>(2 * n));
  for (int64_t i = 2; i < n; ++i) out += ",1";
  return out;
}

void parse(const std::string& text, int64_t max_bytes = limits::kConfigBytes) { parse_json(text, "c.json", {.max_bytes = max_bytes}); }

TEST(Limits, Json) {
  using namespace limits;
  expect_bound("kConfigBytes", [] { parse(padded(kConfigBytes)); }, [] { parse(padded(kConfigBytes + 1)); }, "expected at most 4194304");
  expect_bound("kJsonDepth", [] { parse(nested(kJsonDepth)); }, [] { parse(nested(kJsonDepth + 1)); }, "expected at most 64 levels");
  expect_bound("kJsonValues", [] { parse(values(kJsonValues), kJsonBytes); }, [] { parse(values(kJsonValues + 1), kJsonBytes); }, "more than 8388608 values");
}

TEST(Limits, AFileIsHeldAgainstItsBoundBeforeItIsRead) {
  TemporaryFolder folder;
  const std::string path = hollow_file(join_path(folder.path(), "huge"), limits::kMetricsBytes + 1);
  EXPECT_THAT(error_message([&] { read_file(path, limits::kMetricsBytes); }), ::testing::HasSubstr("huge: found 4294967297 bytes, expected at most 4294967296"));
}

}  // namespace
}  // namespace fathom
