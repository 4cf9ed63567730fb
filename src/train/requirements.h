// What is known to fail before a run begins, and is said then and not hours later.
#pragma once
#include <string>

#include "train/config.h"

namespace fathom::train {

// Weights, gradients and both moments of AdamW must fit, and of a step its tokens and what every unrouted block keeps for
// its backward at least: better said now than by the kernel's killer an hour from now. `config.model` has its vocabulary.
void require_memory(const TrainConfig& config, const std::string& where);

// What needs nothing of the text, asked before hours may go into preparing it: the model, its memory, the budget. The
// vocabulary is that of the tokenizer which is given, or the one to be trained.
void require_before_text(const TrainConfig& config, const std::string& where);

}  // namespace fathom::train
