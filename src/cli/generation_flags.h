// What the commands that write text share: the flags of sampling, and what ends a text.
#pragma once
#include <cstdint>
#include <vector>

#include "cli/flags.h"
#include "infer/sampler.h"
#include "model/folder.h"
#include "study/held_out.h"

namespace fathom::cli {

void sampling_flags(Command& command);  // a group of its own
// The flags, and where one was not given the model's own.
infer::SamplerOptions sampling_of(const Arguments& args, const model::GenerationConfig& own);
// The ids that end a text of the model.
std::vector<int32_t> end_ids(const model::ModelFolder& folder, const study::DocumentEnds& ends);

}  // namespace fathom::cli
