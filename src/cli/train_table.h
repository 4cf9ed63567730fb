// The words and flags of `train` and `tune`, without what they do: fathom-train runs them, and fathom, which only finds fathom-train and
// hands the words on, documents and completes them.
#pragma once
#include "cli/flags.h"

namespace fathom::cli {

Command train_table();
Command tune_table();
Flag chat_share_flag();  // of --data self, in convert too

}  // namespace fathom::cli
