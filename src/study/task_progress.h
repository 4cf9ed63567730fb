// What an evaluation of tasks has found out so far, in a file: a line that says what was asked of which models, then a line for each item of
// each, as it ends. An interrupted evaluation goes on from it to the same results; a half line at its end is passed over.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "core/json.h"
#include "study/evaluate.h"
#include "study/task_eval.h"

namespace fathom::study {

// What the results of a model depend on: weights, configuration, tokenizer, the policy that a dial means and how the cache holds
// keys and values. Reads all weights.
Json task_subject_json(const Subject& subject, std::optional<double> dial);

class TaskProgress {
 public:
  // Opens or makes the file. UserError where it holds results of other models, dials or task files (the first thing that differs is
  // named), or a line that is none of its own. Fewer or more items of the same files are no difference.
  TaskProgress(std::string path, const Json& subjects, std::span<const Task> tasks);
  ~TaskProgress();
  TaskProgress(const TaskProgress&) = delete;
  TaskProgress& operator=(const TaskProgress&) = delete;

  const ItemResult* known(size_t subject, size_t task, size_t item) const;  // nullptr where there is none
  int64_t known(size_t subject, size_t task) const;                         // how many of its items
  void add(size_t subject, size_t task, size_t item, const ItemResult& result);

 private:
  void read(const Json& header, std::span<const Task> tasks, int64_t subjects);
  void append(const Json& line);

  std::string path_;
  int fd_ = -1;
  std::map<std::tuple<size_t, size_t, size_t>, ItemResult> known_;
};

}  // namespace fathom::study
