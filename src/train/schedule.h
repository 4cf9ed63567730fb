// What step n of a run does: its learning rate and its capacities. Functions of (configuration, step, total) alone, so
// a resumed run needs no state for them. And what a run costs: as planned, and as computed.
#pragma once
#include <cstdint>
#include <vector>

#include "nn/transformer.h"
#include "train/config.h"
#include "train/loader.h"

namespace fathom::train {

// Factor on the highest learning rate at step `step` in [0, total): linear warm-up that reaches 1 at its last step,
// then
//   constant  1
//   linear    1 → final_ratio
//   cosine    1 → final_ratio along half a cosine
//   wsd       1, and over the last `decay` steps linearly to final_ratio
double learning_rate_factor(const ScheduleConfig& schedule, int64_t step, int64_t total);

// Share of the way from capacity_start (0) to the configured capacities (1) at a step.
double capacity_progress(const RouterTraining& router, int64_t step, int64_t total);

// Capacity of every routed block at a step: start + progress · (capacity − start).
std::vector<double> capacities_at(const TrainConfig& config, int64_t step, int64_t total);

// Training FLOPs of one step at these capacities: rows × model::train_flops_per_row.
double step_flops(const TrainConfig& config, const std::vector<double>& capacity);

// Training FLOPs that a forward of `batch` and its backward really took: the tokens that ran each block, and of queries and
// keys the pairs within a document. A plan takes every row for one document and the capacity for met, which selections
// `threshold` and `random` meet on average at best.
double spent_flops(const model::ModelConfig& model, const Batch& batch, const std::vector<nn::RoutedResult>& routed);

// FLOPs of a whole run of `total` steps, the dearer steps of the capacity warm-up included.
double run_flops(const TrainConfig& config, int64_t total);

// How many steps the budget pays for: for `tokens` and `flops` the number whose total is nearest to it (at least 1).
int64_t total_steps(const TrainConfig& config);

}  // namespace fathom::train
