// `fathom eval --tasks`: its flags, and the way from them to a table or JSON.
#pragma once
#include "cli/flags.h"
#include "study/tasks.h"

namespace fathom::cli {

void task_flags(Command& c);
void task_source_flags(Command& c);  // of them --tasks, --task-file and --task-data, in a group of their own
// Those of --tasks and --task-file, at most the first `limit` items of each; 0 is all.
std::vector<study::Task> read_tasks(const Arguments& args, int64_t limit);
// Whether tasks are asked for; refuses flags that have no meaning beside them, or without them.
bool wants_tasks(const Arguments& args);
int run_tasks(const Arguments& args);

}  // namespace fathom::cli
