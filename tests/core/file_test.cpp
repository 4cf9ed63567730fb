#include "core/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "core/error.h"
#include "in_memory.h"

namespace fathom {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string message(const std::function<void()>& body) {
  try {
    body();
  } catch (const UserError& e) {
    return e.what();
  }
  return "no error";
}

size_t entries(const std::string& folder) {
  size_t n = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator(folder)) ++n;
  return n;
}

class FileTest : public ::testing::Test {
 protected:
  std::string at(const std::string& name) const { return join_path(folder_.path(), name); }
  TemporaryFolder folder_;
};

TEST_F(FileTest, ReadsAndWrites) {
  const std::string bytes("a\0b\xff", 4);
  atomic_write(at("a"), bytes);
  EXPECT_EQ(read_file(at("a"), 4), bytes);
  EXPECT_EQ(file_size(at("a")), 4);
  atomic_write(at("a"), "new");
  EXPECT_EQ(read_file(at("a"), 100), "new");
  EXPECT_EQ(entries(folder_.path()), 1u) << "no temporary file stays";
  EXPECT_GT(read_file("/proc/self/status", 1 << 20).size(), 100u) << "files without a size";
}

TEST_F(FileTest, NamesPathAndReason) {
  EXPECT_EQ(message([&] { read_file(at("no"), 1); }), at("no") + ": cannot open: No such file or directory; check the path");
  EXPECT_EQ(message([&] { read_file(folder_.path(), 1); }), folder_.path() + ": found a folder, expected a file");
  EXPECT_EQ(message([&] { MappedFile f(at("no")); }), at("no") + ": cannot open: No such file or directory; check the path");
  EXPECT_THAT(message([&] { atomic_write(at("no/a"), "x"); }), HasSubstr("cannot create: No such file or directory; check the path"));
  EXPECT_THAT(message([&] { list_folder(at("no")); }), HasSubstr("cannot list: No such file or directory"));
  atomic_write(at("a"), "x");
  EXPECT_THAT(message([&] { make_folders(at("a/b")); }), HasSubstr("cannot create the folder: Not a directory"));
  EXPECT_THAT(message([&] { file_size(at("no")); }), HasSubstr("cannot open"));
}

TEST_F(FileTest, AtomicFileAppearsAtCommit) {
  {
    AtomicFile f(at("a"));
    f.write("12");
    f.write("345", 3);
    EXPECT_EQ(f.size(), 5);
    EXPECT_FALSE(exists(at("a")));
    f.commit();
    EXPECT_EQ(read_file(at("a"), 10), "12345");
  }
  {
    AtomicFile f(at("a"));
    f.write("half");
  }
  EXPECT_EQ(read_file(at("a"), 10), "12345") << "without commit the old file stays";
  EXPECT_EQ(entries(folder_.path()), 1u);
}

TEST_F(FileTest, NamesThatAKilledRunLeftAreNotInTheWay) {  // in a container the same process id comes again
  const std::string tail = str(".tmp-", ::getpid(), "-");
  for (int n = 0; n < 400; ++n) {
    std::ofstream(at(str(".a", tail, n))) << "left";
    make_folders(at(str(".set", tail, n)));
    std::ofstream(at(str(".set", tail, n, "/left"))) << "left";
  }
  atomic_write(at("a"), "1");
  EXPECT_EQ(read_file(at("a"), 10), "1");
  atomic_folder(at("set"), [](const std::string& temporary) { atomic_write(join_path(temporary, "b"), "2"); });
  EXPECT_THAT(list_folder(at("set")), ElementsAre("b"));
  EXPECT_EQ(entries(folder_.path()), 802u) << "what may belong to a run in another container stays";
}

TEST_F(FileTest, AFullDiskKeepsTheOldFile) {
  atomic_write(at("a"), "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string m = message([&] { atomic_write(at("a"), std::string(1000, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  EXPECT_EQ(m, at("a") + ": cannot write: File too large");
  EXPECT_EQ(read_file(at("a"), 10), "old");
  EXPECT_EQ(entries(folder_.path()), 1u);
}

TEST_F(FileTest, AtomicFolderIsWholeOrAbsent) {
  atomic_folder(at("set"), [](const std::string& temporary) {
    atomic_write(join_path(temporary, "a"), "1");
    make_folders(join_path(temporary, "b/c"));
  });
  EXPECT_THAT(list_folder(at("set")), ElementsAre("a", "b"));
  EXPECT_THAT(message([&] { atomic_folder(at("set"), [](const std::string&) {}); }), HasSubstr("found an existing path, expected a new folder"));
  EXPECT_THROW(atomic_folder(at("other"),
                             [](const std::string& temporary) {
                               atomic_write(join_path(temporary, "a"), "1");
                               throw UserError("broken");
                             }),
               UserError);
  EXPECT_FALSE(exists(at("other")));
  EXPECT_EQ(entries(folder_.path()), 1u);
}

TEST_F(FileTest, AKillLeavesNoFolder) {
  const pid_t child = ::fork();
  if (child == 0) {
    atomic_folder(at("set"), [](const std::string& temporary) {
      atomic_write(join_path(temporary, "a"), "1");
      ::raise(SIGKILL);
    });
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(exists(at("set")));
  EXPECT_TRUE(list_folder(folder_.path()).empty()) << "what is left begins with a dot";
  atomic_folder(at("set"), [](const std::string& temporary) { atomic_write(join_path(temporary, "a"), "2"); });
  EXPECT_EQ(read_file(at("set/a"), 10), "2");
}

TEST_F(FileTest, NeverTakesThePlaceOfADeviceOrAFolder) {
  make_folders(at("folder"));
  ASSERT_EQ(::mkfifo(at("pipe").c_str(), 0600), 0);
  for (const char* name : {"folder", "pipe"}) {
    try {
      atomic_write(at(name), "x");
      FAIL() << name;
    } catch (const UserError& e) {
      EXPECT_EQ(e.parts().expected, "the name of a file") << e.what();
    }
  }
  EXPECT_THAT(list_folder(folder_.path()), ElementsAre("folder", "pipe"));
  EXPECT_TRUE(is_folder(at("folder")));
}

TEST_F(FileTest, RefusesAPipeWithoutWaitingForIt) {
  ASSERT_EQ(::mkfifo(at("pipe").c_str(), 0600), 0);
  ::alarm(20);  // to wait would be for ever
  for (const std::string& path : {at("pipe"), std::string("/dev/zero")}) {
    const std::string expected = path + ": found a pipe or device, expected a file; write what it gives to a file first";
    EXPECT_EQ(message([&] { read_file(path, 1 << 20); }), expected);
    EXPECT_EQ(message([&] { MappedFile f(path); }), expected);
    EXPECT_EQ(message([&] { file_size(path); }), expected);
  }
  ::alarm(0);
}

TEST_F(FileTest, Maps) {
  atomic_write(at("a"), "mapped");
  atomic_write(at("empty"), "");
  const MappedFile f(at("a")), empty(at("empty"));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(f.bytes().data()), f.bytes().size()), "mapped");
  EXPECT_TRUE(empty.bytes().empty());
}

TEST_F(FileTest, ListsSortedWithoutHidden) {
  for (const char* name : {"b", ".hidden", "a", "C"}) atomic_write(at(name), "");
  EXPECT_THAT(list_folder(folder_.path()), ElementsAre("C", "a", "b"));
  EXPECT_TRUE(is_folder(folder_.path()));
  EXPECT_FALSE(is_folder(at("a")));
  remove_all(at("a"));
  remove_all(at("a"));
  EXPECT_FALSE(exists(at("a")));
}

TEST(Hash, IsXxh3OfAnyPieces) {
  EXPECT_EQ(hash_bytes(""), "99aa06d3014798d86001c324468d497f");  // XXH3-128 of nothing, from its specification
  std::string bytes;
  for (int i = 0; i < 100'000; ++i) bytes += static_cast<char>(i * 7);
  Hasher h;
  for (size_t i = 0; i < bytes.size(); i += 777) h.update(bytes.data() + i, std::min<size_t>(777, bytes.size() - i));
  EXPECT_EQ(h.hex(), hash_bytes(bytes));
  EXPECT_EQ(h.hex().size(), 32u);
  EXPECT_NE(hash_bytes("a"), hash_bytes("b"));
}

}  // namespace
}  // namespace fathom
