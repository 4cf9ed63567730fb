#include "core/work_folder.h"

#include <algorithm>
#include <filesystem>

#include "core/log.h"

namespace fathom {

namespace fs = std::filesystem;

std::string partial_path(const std::string& result) {
  const fs::path plain = fs::path(result).lexically_normal(), p = plain.filename().empty() ? plain.parent_path() : plain;  // "out/"
  return (p.parent_path() / ("." + p.filename().string() + ".partial")).string();
}

namespace {

constexpr const char* kOf = "of.json";

}  // namespace

WorkFolder::WorkFolder(const std::string& result) : path_(partial_path(result)) {
  make_folders(path_);
  lock_ = std::make_unique<FileLock>(join_path(path_, ".lock"), UserError({result, "", "another process that makes it now", "none", "wait for it or end it"}), std::chrono::seconds(2));
}

WorkFolder::~WorkFolder() {
  try {
    const auto done = [this](const std::string& name) { return list_folder(join_path(path_, name)) != std::vector<std::string>{kOf}; };
    if (is_folder(path_) && std::ranges::none_of(list_folder(path_), done)) remove();
  } catch (const UserError&) {  // then it stays
  }
}

std::string WorkFolder::part(const std::string& name, const Json& of) const {
  const std::string folder = join_path(path_, name), what = join_path(folder, kOf), now = of.dump(2) + "\n";
  if (exists(what) && read_json(what) == Json::parse(now)) {
    if (list_folder(folder).size() > 1) log_info("going on with what lies in ", folder);
    return folder;
  }
  remove_all(folder);
  make_folders(folder);
  atomic_write(what, now);
  return folder;
}

void WorkFolder::remove() { remove_all(path_); }

}  // namespace fathom
