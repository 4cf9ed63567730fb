// The commands of fathom-train, one file each.
#pragma once
#include "cli/flags.h"

namespace fathom::cli {

Command train_command();
Command tune_command();
Command export_command();

}  // namespace fathom::cli
