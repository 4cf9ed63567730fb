// What a run computes in, settled when it starts and kept in its checkpoints: a resume computes the same bits.
#pragma once
#include <string>

#include "nn/matmul.h"
#include "train/checkpoint.h"

namespace fathom::train {

struct Computing {
  nn::MatmulReport matmul;  // measured now
  nn::Compute compute = nn::Compute::f32;
};

// Sets the process's threads and route of f32 products: those of the last checkpoint, or without one what `precision` and `route` say, automatic by
// measurement. Writes what was settled into `now` (threads 0 there: the checkpoint's, or all cores) and says it. UserError: a number of threads that
// is not the checkpoint's; oneDNN where it rounds. Another machine than the checkpoint's is a warning. `run` is the folder that errors name.
Computing settle_computing(Precision precision, Route route, const Identity* last, Identity& now, const std::string& run);

}  // namespace fathom::train
