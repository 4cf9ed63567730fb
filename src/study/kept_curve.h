// What the measurement of a curve has found so far, in files of a folder: of every model at a dial its losses on the text, and its results of tasks item by
// item. Names of files are hashes of all that their content depends on, so that a changed model, dial, text or task finds nothing.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "study/evaluate.h"
#include "study/task_progress.h"

namespace fathom::study {

class KeptCurve {
 public:
  KeptCurve(std::string folder, const HeldOut& text);

  struct Quality {
    Evaluation evaluation;
    double kv_bytes = 0;  // of keys and values, a token
  };
  // `subject` is task_subject_json() of it at its dial. Nothing where it was not kept; UserError: a damaged file.
  std::optional<Quality> quality(const Subject& of, const Json& subject) const;
  void keep(const Json& subject, const Quality& quality) const;
  // Results of items, the only subject being number 0.
  std::unique_ptr<TaskProgress> tasks(const Json& subject, const std::vector<Task>& tasks) const;

 private:
  std::string quality_path(const Json& subject) const;
  std::string folder_, text_;
};

}  // namespace fathom::study
