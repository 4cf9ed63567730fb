// What a long job has done so far, in the folder `.NAME.partial` beside its result NAME: the same job goes on there after a stop.
#pragma once
#include <memory>
#include <string>

#include "core/file.h"
#include "core/json.h"

namespace fathom {

// `.NAME.partial` beside NAME.
std::string partial_path(const std::string& result);

class WorkFolder {
 public:
  explicit WorkFolder(const std::string& result);  // UserError: another process is at it
  ~WorkFolder();                                   // nothing stays where nothing was done
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  // The folder in it for files that depend on what `of` says and on nothing else. What lies there of another job is removed.
  std::string part(const std::string& name, const Json& of) const;
  void remove();  // the job is done

 private:
  std::string path_;
  std::unique_ptr<FileLock> lock_;
};

}  // namespace fathom
