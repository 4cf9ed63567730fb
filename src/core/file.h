// Files: whole reads with a bound, memory maps, atomic writes (temporary name, fsync, rename), atomic folders, locks.
// Every failure is a UserError that names the path and the system's reason.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace fathom {

// Regular files only, here and in MappedFile: a pipe or a device is refused, not waited for.
std::string read_file(const std::string& path, int64_t max_bytes);

// Writes all of `bytes` to a temporary file beside `path`, syncs it and renames it: a reader sees the old file or the
// new one, never a part, also after a crash or a full disk.
void atomic_write(const std::string& path, std::string_view bytes);

// A file written piece by piece, complete only after commit(). Destroyed without commit() it leaves nothing.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* bytes, size_t count);
  void write(std::string_view bytes) { write(bytes.data(), bytes.size()); }
  int64_t size() const { return size_; }
  void commit();

 private:
  std::string path_, temporary_;
  int fd_ = -1;
  int64_t size_ = 0;
};

// Fills a temporary folder beside `path` by `fill(temporary_path)`, syncs every file and the folder, and renames it
// to `path` (which must not exist). On any failure nothing stays at `path`. Temporary folders are named
// `.PATH.tmp-PID-N`, and readers never look at names that begin with a dot.
void atomic_folder(const std::string& path, const std::function<void(const std::string&)>& fill);

// Renames a finished folder and syncs its parent. The files in it must have been synced.
void rename_folder(const std::string& from, const std::string& to);

// An exclusive lock on the file at `path`, which is created; the kernel lets go of it however the process ends. Held by
// another process it is tried again for `wait`, and then `busy` is thrown.
class FileLock {
 public:
  FileLock(const std::string& path, const UserError& busy, std::chrono::milliseconds wait = {});
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_;
};

// A read-only map of a whole file; empty files give an empty span.
class MappedFile {
 public:
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // What was read of it no longer counts as the process's memory; whoever reads it again gets it from the file.
  void release() const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

bool exists(const std::string& path);
bool is_folder(const std::string& path);
int64_t file_size(const std::string& path);
void make_folders(const std::string& path);     // like mkdir -p
void remove_all(const std::string& path);       // a missing path is no error
std::vector<std::string> list_folder(const std::string& path);  // names, sorted, without dot files
std::string join_path(const std::string& folder, const std::string& name);

// XXH3-128 of bytes, 32 hex digits: identity of files and tokenizers in manifests (not a defence against forgery).
std::string hash_bytes(std::string_view bytes);
class Hasher {
 public:
  Hasher();
  ~Hasher();
  void update(const void* bytes, size_t count);
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A folder under the system's temporary folder, removed with the object. For tests and scratch work.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace fathom
