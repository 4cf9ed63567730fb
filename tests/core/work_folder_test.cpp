// What a long job has done stays until the same job is done; another job finds nothing of it.
#include "core/work_folder.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

TEST(WorkFolder, StandsBesideTheResult) {
  EXPECT_EQ(partial_path("some/out"), "some/.out.partial");
  EXPECT_EQ(partial_path("some/out/"), "some/.out.partial");
  EXPECT_EQ(partial_path("out"), ".out.partial");
}

TEST(WorkFolder, KeepsWhatIsOfTheSameJob) {
  const TemporaryFolder folder;
  const std::string out = join_path(folder.path(), "deep/out"), work = partial_path(out);
  { const WorkFolder nothing(out); }
  EXPECT_FALSE(exists(work));
  {
    const WorkFolder begun(out);
    begun.part("fits", {{"seed", 1}});
  }
  EXPECT_FALSE(exists(work)) << "nothing was done";
  {
    const WorkFolder first(out);
    atomic_write(join_path(first.part("fits", {{"seed", 1}}), "3"), "three");
    atomic_write(join_path(first.part("text", {{"tokens", 5}}), "0"), "zero");
    try {
      const WorkFolder second(out);
      FAIL() << "two at a time";
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("another process"), std::string::npos) << e.what();
    }
  }
  {
    const WorkFolder again(out);
    EXPECT_EQ(read_file(join_path(again.part("fits", {{"seed", 1}}), "3"), 100), "three");
    EXPECT_FALSE(exists(join_path(again.part("text", {{"tokens", 6}}), "0"))) << "of another job";
  }
  WorkFolder last(out);
  EXPECT_TRUE(exists(join_path(last.part("fits", {{"seed", 1}}), "3")));
  last.remove();
  EXPECT_FALSE(exists(work));
}

}  // namespace
}  // namespace fathom
