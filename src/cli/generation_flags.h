// The flags of sampling and of guesses, which the commands that write text share.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "cli/flags.h"
#include "infer/sampler.h"
#include "infer/speculation.h"
#include "model/folder.h"

namespace fathom::cli {

void sampling_flags(Command& command);  // a group of its own
void speculation_flags(Command& command);  // a group of its own
// Guesses for texts at `dial` (absent: the folder's own); nothing when all are turned off.
std::optional<infer::Speculation> speculation_of(const Arguments& args, const model::ModelFolder& folder, std::optional<double> dial);
// Of --logit-bias and --stop-id; an id that the vocabulary does not have is refused.
std::map<int32_t, float> logit_bias_of(const Arguments& args, int64_t vocabulary);
std::vector<int32_t> stop_ids_of(const Arguments& args, int64_t vocabulary);
// The flags, and where one was not given the model's own.
infer::SamplerOptions sampling_of(const Arguments& args, const model::GenerationConfig& own);
// What a conversation samples by where the model recommends nothing: temperature 0.7 of the 0.95 likeliest. All of a small model's distribution, its tail
// included, makes no answer.
model::GenerationConfig for_conversation(model::GenerationConfig own);

}  // namespace fathom::cli
