// Texts through the model block by block, their hidden states kept: gives the decision scores of one unit after the units before it
// were decided by thresholds, and goes on. What calibration reads; the network has its twin (nn/calibration_walk.h).
//
//   BlockWalk walk(weights, texts);
//   for each dial: walk.restart(); thresholds = routing::calibrate(routing, capacities, [&](size_t u, const auto& before) {
//     return walk.scores(u, before); }); BlockWalk::Figures f = walk.finish(thresholds);
//
// Scores, paths and losses are those of Engine::forward under the same thresholds, bit for bit.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "infer/forward.h"

namespace fathom::infer {

class BlockWalk {
 public:
  // Each text has 1 to max_position_embeddings tokens and begins at position 0 (UserError where it is longer). Two times
  // [tokens, C] in f32 stay in memory. The blocks before the first with a unit are computed here, once for all dials. `check`
  // is called between steps and may throw.
  BlockWalk(std::shared_ptr<const Weights> weights, std::span<const std::span<const int32_t>> texts, const EngineOptions& options = {},
            std::function<void()> check = {});
  ~BlockWalk();

  void restart();
  // Decision scores of unit u over all tokens, text after text, +∞ for those at forced positions, which run whatever they score and
  // count inside the capacity, −∞ for those that have exited. `before` holds the thresholds of the units 0..u−1; u must be the
  // next unit or the same as in the last call.
  std::vector<float> scores(size_t u, const std::vector<float>& before);

  struct Figures {
    double loss = 0;               // nats per predicted token; NaN when no text has two tokens
    std::vector<double> capacity;  // [cuts] realised: share of tokens that took the cut's path or a dearer one
  };
  // Decides the remaining units by `thresholds` [cuts] and computes the loss. UserError where a score is NaN.
  Figures finish(const std::vector<float>& thresholds);
  // The same in two parts, for who may do without the loss, whose head is a good part of a small model. `scores` takes those of the
  // remaining units [units][tokens], as scores() gives them.
  std::vector<double> capacity(const std::vector<float>& thresholds, std::vector<std::vector<float>>* scores = nullptr);
  double loss();  // once all units are decided

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fathom::infer
