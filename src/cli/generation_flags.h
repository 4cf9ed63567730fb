// The flags of sampling, which the commands that write text share.
#pragma once
#include "cli/flags.h"
#include "infer/sampler.h"
#include "model/folder.h"

namespace fathom::cli {

void sampling_flags(Command& command);  // a group of its own
// The flags, and where one was not given the model's own.
infer::SamplerOptions sampling_of(const Arguments& args, const model::GenerationConfig& own);

}  // namespace fathom::cli
