// The dial, calibrated by the engine: for every point of a table the thresholds that meet its capacities on held-out text, block
// by block from the first routed one to the last under the causal rule itself. Training does the same with the network
// (train/evaluate.h); whoever changes a model's weights calls for it anew, because thresholds are numbers of those weights.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "infer/weights.h"
#include "routing/dial.h"

namespace fathom::convert {

// A table for a model that has none: the usual grid and `more` dials, nothing measured; the default is what the configured capacities are expected to cost.
routing::DialTable uncalibrated(const model::ModelConfig& config, int64_t context, const std::vector<double>& more = {});

struct CalibrationText {
  std::span<const std::span<const int32_t>> windows;  // each at most max_position_embeddings tokens, read from position 0
  std::string name;                                   // for people: it stands in the table
  int64_t context = 0;                                // tokens of a window that block fractions are counted for; 0: of the longest
};

struct CalibrationOptions {
  int threads = 0;  // 0: all cores that this process may use
  // Other dials than the default one move all its thresholds by the same amount, until the block fraction is the dial: for routers whose scores share
  // one scale, as those of convert and tune do. Units then share a budget as they like, in place of a share of tokens each.
  bool shift = false;
  std::function<void(size_t done, size_t of)> progress;  // dials
  std::function<void()> check;                           // between steps; may throw to interrupt
};

// The grid and the default dial of `grid`, measured anew: thresholds, realised capacity and block fraction, loss. The point that the model was
// trained for gets the trained capacities, dial 1 every token, the others the capacities that their points in `grid` have, and where those have none
// the ones whose expected block fraction is the dial at that context (or see `shift`). Where tokens exit, fewer than a capacity may be left; the realised one says so. A model of random selection reads no threshold: its table comes back
// as it is. UserError when the windows hold no token, or the weights make NaN.
routing::DialTable calibrate_dial(std::shared_ptr<const infer::Weights> weights, const routing::DialTable& grid, const CalibrationText& text,
                                  const CalibrationOptions& options = {});

}  // namespace fathom::convert
