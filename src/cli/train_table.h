// The words and flags of `train`, without what they do: fathom-train runs it, and fathom, which only finds fathom-train and
// hands the words on, documents and completes it.
#pragma once
#include "cli/flags.h"

namespace fathom::cli {

Command train_table();

}  // namespace fathom::cli
