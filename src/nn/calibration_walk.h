// Calibration block by block: holds the hidden states of many sequences, gives the decision scores of one routed block
// after the blocks before it were decided by thresholds, and goes on. `scores` has the signature that
// routing::calibrate asks for:
//
//   CalibrationWalk walk(model, batch, compute);
//   for each dial: walk.restart(); thresholds = routing::calibrate(capacities, [&](size_t r, const auto& before) {
//     return walk.scores(r, before); }); CalibrationWalk::Figures f = walk.finish(thresholds);
#pragma once
#include <memory>
#include <vector>

#include "nn/transformer.h"

namespace fathom::nn {

class CalibrationWalk {
 public:
  // `batch` may hold hundreds of rows: they are computed `rows_at_once` at a time. The blocks before the first routed one
  // are computed here, once for all dials. UserError: a unit that is not plain; the engine calibrates every kind (infer/walk.h).
  CalibrationWalk(Transformer& model, const Batch& batch, Compute compute = Compute::f32, int64_t rows_at_once = 16);
  ~CalibrationWalk();

  void restart();
  // Decision scores of routed block r over all unpadded tokens (rows in order), +∞ for those at forced positions, which
  // run whatever they score and count inside the capacity. `before` holds the thresholds of the routed
  // blocks 0..r−1; r must be the next block or the same as in the last call.
  std::vector<float> scores(size_t r, const std::vector<float>& before);

  struct Figures {
    double loss = 0;                // mean nll over the batch's targets; NaN without targets
    std::vector<double> capacity;   // realised share of tokens per routed block
    std::vector<at::Tensor> selected;  // [R] tensors [B, T] bool
  };
  // Decides the remaining blocks by `thresholds` [R] and computes the loss.
  Figures finish(const std::vector<float>& thresholds);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fathom::nn
