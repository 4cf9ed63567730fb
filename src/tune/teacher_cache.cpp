#include "tune/teacher_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace fathom::tune {
namespace {

constexpr std::string_view kMagic = "FATHOMTR";
constexpr int64_t kVersion = 1, kHashBytes = 32, kMostHeader = 4096;

[[noreturn]] void failed(const std::string& path, const char* what) { throw UserError({path, "", str("cannot ", what, ": ", std::strerror(errno)), "", "free some space, or tune without --teacher-cache"}); }

void write_all(int fd, const std::string& path, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) failed(path, "write");
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

bool read_all(int fd, int64_t at, std::span<char> to) {
  size_t done = 0;
  while (done < to.size()) {
    const ssize_t n = ::pread(fd, to.data() + done, to.size() - done, at + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

TeacherCache::TeacherCache(const std::string& folder, const Json& key, int64_t record_bytes) : record_bytes_(record_bytes) {
  make_folders(folder);
  Json header = key;
  header["version"] = kVersion;
  header["record_bytes"] = record_bytes;
  std::string text = header.dump();
  path_ = join_path(folder, hash_bytes(text).substr(0, 16) + ".rows");
  text.resize(static_cast<size_t>(kMostHeader) - kMagic.size(), ' ');
  const std::string head = std::string(kMagic) + text;
  header_bytes_ = static_cast<int64_t>(head.size());
  lock_ = std::make_unique<FileLock>(path_ + ".lock", UserError({path_, "", "another process fills it", "one at a time", "wait for it, or give another --teacher-cache"}));
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) failed(path_, "open");
  const int64_t size = file_size(path_);
  if (size < header_bytes_) {  // new, or killed before its first record
    if (::ftruncate(fd_, 0) != 0) failed(path_, "truncate");
    write_all(fd_, path_, head);
  } else {
    std::string found(head.size(), '\0');
    if (!read_all(fd_, 0, found)) failed(path_, "read");
    if (found != head) throw UserError({path_, "", "another header than its name says", "a file that fathom tune wrote", "remove it: the teacher is asked anew"});
    records_ = (size - header_bytes_) / (record_bytes_ + kHashBytes);
  }
  if (::ftruncate(fd_, file_bytes(records_)) != 0 || ::lseek(fd_, 0, SEEK_END) < 0) failed(path_, "truncate");
}

TeacherCache::~TeacherCache() {
  if (fd_ >= 0) ::close(fd_);
}

int64_t TeacherCache::file_bytes(int64_t records) const { return header_bytes_ + records * (record_bytes_ + kHashBytes); }

std::vector<std::byte> TeacherCache::read(int64_t record) const {
  std::vector<std::byte> out(static_cast<size_t>(record_bytes_ + kHashBytes));
  if (!read_all(fd_, file_bytes(record), {reinterpret_cast<char*>(out.data()), out.size()})) failed(path_, "read");
  const std::string_view all(reinterpret_cast<const char*>(out.data()), out.size());
  if (hash_bytes(all.substr(0, static_cast<size_t>(record_bytes_))) != all.substr(static_cast<size_t>(record_bytes_)))
    throw UserError({path_, str("record ", record), "other bytes than were written", "those that its hash was taken of", "the file is damaged; remove it: the teacher is asked anew"});
  out.resize(static_cast<size_t>(record_bytes_));
  return out;
}

void TeacherCache::append(std::span<const std::byte> record) {
  FATHOM_ASSERT(static_cast<int64_t>(record.size()) == record_bytes_, record.size());
  const std::string_view bytes(reinterpret_cast<const char*>(record.data()), record.size());
  write_all(fd_, path_, std::string(bytes) + hash_bytes(bytes));
  ++records_;
}

}  // namespace fathom::tune
