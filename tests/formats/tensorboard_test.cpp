#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "formats/tensorboard.h"

namespace fathom::formats {
namespace {

TEST(TensorBoard, CrcIsCastagnoli) {
  // RFC 3720, appendix B.4
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
}

TEST(TensorBoard, LaterWritersHaveLaterNames) {
  TemporaryFolder folder;
  const std::string logs = join_path(folder.path(), "a/b");
  std::vector<std::string> paths;
  for (int i = 0; i < 12; ++i) paths.push_back(EventWriter(logs, i).path());
  EXPECT_TRUE(std::is_sorted(paths.begin(), paths.end()));
  EXPECT_EQ(list_folder(logs).size(), 12u);
}

TEST(TensorBoard, WritesThroughItsBuffer) {
  TemporaryFolder folder;
  EventWriter w(folder.path());
  EXPECT_THROW(EventWriter("/dev/null/x"), UserError);
  w.text("t", 0, std::string(1 << 20, 'x'));  // past the buffer: written at once
  EXPECT_GT(file_size(w.path()), 1 << 20);
}

}  // namespace
}  // namespace fathom::formats
