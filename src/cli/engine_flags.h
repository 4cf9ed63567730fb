// What the commands that run a model share: how its cache holds keys and values, and how much memory they may take.
#pragma once
#include "cli/flags.h"
#include "infer/forward.h"

namespace fathom::cli {

Flag kv_type_flag();                 // --kv-type
void engine_flags(Command& command);  // a group of its own: --kv-type, --kv-memory
infer::EngineOptions engine_options(const Arguments& args, int threads);
KvType kv_type_of(const Arguments& args);

}  // namespace fathom::cli
