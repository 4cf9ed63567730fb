// `fathom eval --tasks`: its flags, and the way from them to a table or JSON.
#pragma once
#include "cli/flags.h"

namespace fathom::cli {

void task_flags(Command& c);
// Whether tasks are asked for; refuses flags that have no meaning beside them, or without them.
bool wants_tasks(const Arguments& args);
int run_tasks(const Arguments& args);

}  // namespace fathom::cli
