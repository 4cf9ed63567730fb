#include "core/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"

namespace fs = std::filesystem;

namespace fathom {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what, int error) {
  const char* hint = error == ENOSPC || error == EDQUOT ? "free some space and try again"
                     : error == EACCES ? "check the permissions"
                     : error == ENOENT ? "check the path" : "";
  throw UserError({path, str(what, ": ", std::strerror(error)), "", "", hint});
}

class Fd {
 public:
  Fd(const std::string& path, int flags, mode_t mode = 0644) : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {
    if (fd_ < 0) fail(path, flags & O_CREAT ? "cannot create" : "cannot open", errno);
  }
  ~Fd() { ::close(fd_); }
  int get() const { return fd_; }

 private:
  int fd_;
};

// To open a pipe waits for its writer, perhaps for ever; O_NONBLOCK does not, and changes nothing for a file.
constexpr int kReadOnly = O_RDONLY | O_NONBLOCK;

struct stat stat_of(int fd, const std::string& path) {
  struct stat s;
  if (::fstat(fd, &s) != 0) fail(path, "cannot stat", errno);
  if (S_ISDIR(s.st_mode)) throw UserError({path, "", "a folder", "a file", ""});
  if (!S_ISREG(s.st_mode)) throw UserError({path, "", "a pipe or device", "a file", "write what it gives to a file first"});
  return s;
}

// 0, or the error; a signal (Ctrl-C) is none.
int sync(int fd) {
  while (::fsync(fd) != 0)
    if (errno != EINTR) return errno == EINVAL ? 0 : errno;
  return 0;
}

void sync_path(const std::string& path) {
  Fd fd(path, O_RDONLY);
  if (const int error = sync(fd.get())) fail(path, "cannot sync", error);
}

std::string parent_of(const std::string& path) {
  const std::string p = fs::path(path).parent_path().string();
  return p.empty() ? "." : p;
}

constexpr int kTemporaryNames = 10'000;

// A new name beside `path`, which `create` takes, or says EEXIST. Another run may have taken one, killed before it could give
// it back, or alive: containers number their processes alike.
template <class Create>
std::string temporary_beside(const std::string& path, Create&& create) {
  static std::atomic<int> counter{0};
  for (int tries = 0; tries < kTemporaryNames; ++tries) {
    const std::string name = join_path(parent_of(path), str(".", fs::path(path).filename().string(), ".tmp-", ::getpid(), "-", counter++));
    if (create(name.c_str())) return name;
    if (errno != EEXIST) break;
  }
  fail(path, "cannot create", errno);
}

}  // namespace

std::string read_file(const std::string& path, int64_t max_bytes) {
  Fd fd(path, kReadOnly);
  if (const int64_t size = stat_of(fd.get(), path).st_size; size > max_bytes)
    throw UserError({path, "", str(size, " bytes"), str("at most ", max_bytes), ""});
  // Read to the end rather than trust st_size: /proc reports 0.
  std::string out;
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path, "cannot read", errno);
    if (n == 0) return out;
    if (static_cast<int64_t>(out.size()) + n > max_bytes)
      throw UserError({path, "", str("more than ", max_bytes, " bytes"), str("at most ", max_bytes), ""});
    out.append(buffer, static_cast<size_t>(n));
  }
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  // The rename at the end would put a file in the place of a device.
  struct stat status;
  if (::stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    throw UserError({path_, "", S_ISDIR(status.st_mode) ? "a folder" : "a device or pipe", "the name of a file", ""});
  temporary_ = temporary_beside(path_, [&](const char* name) { return (fd_ = ::open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)) >= 0; });
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::write(const void* bytes, size_t count) {
  const char* p = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t n = ::write(fd_, p, count);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path_, "cannot write", errno);
    p += n;
    count -= static_cast<size_t>(n);
    size_ += n;
  }
}

void AtomicFile::commit() {
  FATHOM_ASSERT(fd_ >= 0, path_);
  if (const int error = sync(fd_)) fail(path_, "cannot sync", error);
  const int closed = ::close(fd_);
  fd_ = -1;
  if (closed != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    fail(path_, "cannot finish writing", error);
  }
  sync_path(parent_of(path_));
}

void atomic_write(const std::string& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void atomic_folder(const std::string& path, const std::function<void(const std::string&)>& fill) {
  if (exists(path)) throw UserError({path, "", "an existing path", "a new folder", "choose another name or remove it"});
  make_folders(parent_of(path));
  const std::string temporary = temporary_beside(path, [](const char* name) { return ::mkdir(name, 0777) == 0; });
  try {
    fill(temporary);
    for (const auto& entry : fs::recursive_directory_iterator(temporary)) sync_path(entry.path().string());
    sync_path(temporary);
    rename_folder(temporary, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
}

void rename_folder(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail(to, "cannot finish the folder", errno);
  sync_path(parent_of(to));
}

FileLock::FileLock(const std::string& path, const UserError& busy, std::chrono::milliseconds wait)
    : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
  if (fd_ < 0) fail(path, "cannot create", errno);
  const auto until = std::chrono::steady_clock::now() + wait;
  while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    if (error == EINTR) continue;
    if (error == EWOULDBLOCK && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      continue;
    }
    ::close(fd_);
    if (error == EWOULDBLOCK) throw busy;
    fail(path, "cannot lock", error);
  }
}

FileLock::~FileLock() { ::close(fd_); }

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  Fd fd(path_, kReadOnly);
  size_ = static_cast<size_t>(stat_of(fd.get(), path_).st_size);
  if (size_ == 0) return;
  void* p = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (p == MAP_FAILED) fail(path_, "cannot map", errno);
  data_ = static_cast<const std::byte*>(p);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::release() const {
  if (data_) (void)::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);  // a wish: nothing depends on it
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

int64_t file_size(const std::string& path) {
  Fd fd(path, kReadOnly);
  return stat_of(fd.get(), path).st_size;
}

void make_folders(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail(path, "cannot create the folder", error.value());
}

void remove_all(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail(path, "cannot remove", error.value());
}

std::vector<std::string> list_folder(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (auto it = fs::directory_iterator(path, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name[0] != '.') names.push_back(name);
  }
  if (error) fail(path, "cannot list", error.value());
  std::sort(names.begin(), names.end());
  return names;
}

std::string join_path(const std::string& folder, const std::string& name) { return (fs::path(folder) / name).string(); }

struct Hasher::State {
  XXH3_state_t xxh;
};

Hasher::Hasher() : state_(new (std::align_val_t(64)) State) { XXH3_128bits_reset(&state_->xxh); }
Hasher::~Hasher() {
  State* s = state_.release();
  s->~State();
  ::operator delete(s, std::align_val_t(64));
}
void Hasher::update(const void* bytes, size_t count) { XXH3_128bits_update(&state_->xxh, bytes, count); }
std::string Hasher::hex() const {
  const XXH128_hash_t h = XXH3_128bits_digest(&state_->xxh);
  char out[33];
  std::snprintf(out, sizeof out, "%016llx%016llx", static_cast<unsigned long long>(h.high64), static_cast<unsigned long long>(h.low64));
  return out;
}
std::string hash_bytes(std::string_view bytes) {
  Hasher h;
  h.update(bytes.data(), bytes.size());
  return h.hex();
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (fs::temp_directory_path() / "fathom-XXXXXX").string();
  if (!::mkdtemp(pattern.data())) fail(pattern, "cannot create a temporary folder", errno);
  path_ = pattern;
}
TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace fathom
