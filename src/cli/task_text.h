// The result of `fathom eval --tasks` as tables for people and as JSON.
#pragma once
#include <string>
#include <vector>

#include "core/json.h"
#include "study/task_eval.h"

namespace fathom::cli {

struct TaskReport {
  std::vector<std::string> names = {};                      // the model, then what it is compared with
  std::vector<bool> dense = {};                             // of each
  std::vector<std::vector<study::TaskResult>> results = {};  // [names][tasks]
};

std::string task_text(const TaskReport& report);
Json task_json(const TaskReport& report, bool with_items);

}  // namespace fathom::cli
