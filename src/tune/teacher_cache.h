// A file of records of one size, one per row of a run, appended in order: FOLDER/KEY.rows (docs/formats.md, "Teacher rows"). One process at a time; a record
// that was not finished is dropped when the file is opened again.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"

namespace fathom::tune {

class TeacherCache {
 public:
  // `key` is what the records depend on; it stands in the file and names it.
  TeacherCache(const std::string& folder, const Json& key, int64_t record_bytes);
  ~TeacherCache();
  TeacherCache(const TeacherCache&) = delete;
  TeacherCache& operator=(const TeacherCache&) = delete;

  int64_t records() const { return records_; }
  std::vector<std::byte> read(int64_t record) const;  // UserError where its bytes are not those that were written
  void append(std::span<const std::byte> record);
  int64_t file_bytes(int64_t records) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int64_t record_bytes_ = 0, header_bytes_ = 0, records_ = 0;
  std::unique_ptr<FileLock> lock_;
  int fd_ = -1;
};

}  // namespace fathom::tune
