#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "core/limits.h"
#include "data/documents.h"

namespace fathom::data {
namespace {

class Walk {
 public:
  void add_input(const std::string& path) {
    struct stat s;
    if (::stat(path.c_str(), &s) != 0) throw UserError({path, "", std::strerror(errno), "a file or a folder", "check the path"});
    if (!S_ISDIR(s.st_mode)) {
      add_file(path, path.substr(path.rfind('/') + 1), s, true);
      return;
    }
    const size_t before = files.size();
    folder(path, "", s);
    if (files.size() == before) throw UserError({path, "", "a folder without files", "text files", "hidden files do not count"});
  }

  std::vector<SourceFile> files;

 private:
  void add_file(const std::string& path, const std::string& name, const struct stat& s, bool given) {
    if (static_cast<int64_t>(files.size()) == limits::kSourceFiles)
      throw UserError({path, "", str("more than ", limits::kSourceFiles, " files"), "fewer", "join small files"});
    files.push_back({path, name, S_ISREG(s.st_mode) ? s.st_size : 0,
                     s.st_mtim.tv_sec * 1'000'000'000LL + s.st_mtim.tv_nsec, given, S_ISREG(s.st_mode)});
  }

  void folder(const std::string& path, const std::string& prefix, const struct stat& self) {
    if (!seen_.insert({self.st_dev, self.st_ino}).second) return;  // a link back, or a second way to the same folder
    for (const std::string& name : list_folder(path)) {
      const std::string full = join_path(path, name);
      struct stat s;
      if (::stat(full.c_str(), &s) != 0) continue;  // a link to nothing
      if (S_ISDIR(s.st_mode)) folder(full, prefix + name + "/", s);
      else if (S_ISREG(s.st_mode)) add_file(full, prefix + name, s, false);
    }
  }

  std::set<std::pair<dev_t, ino_t>> seen_;
};

}  // namespace

std::vector<SourceFile> find_sources(const std::vector<std::string>& inputs) {
  Walk walk;
  for (const std::string& input : inputs) walk.add_input(input);
  return std::move(walk.files);
}

void require_files(const std::vector<SourceFile>& sources, const std::string& why, const std::string& hint) {
  for (const SourceFile& s : sources)
    if (!s.regular) throw UserError({s.path, "", "a pipe, which can be read once", "a file: " + why, hint});
}

}  // namespace fathom::data
