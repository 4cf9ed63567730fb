// What each block of a dense model, its attention and its MLP are worth: the loss without them, for all tokens or for those that they
// change least. What one decides by which blocks to route, and the first thing to look at before a conversion.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "infer/weights.h"
#include "routing/unit.h"

namespace fathom::study {

struct SensitivityOptions {
  double share = 0.5;            // of tokens that do without in `least`: those of a chunk of text whose stream changes least, relative to its size
  int64_t forced_positions = 2;  // first tokens of a text that always run in full
  int threads = 0;               // 0: all cores that this process may use
  std::function<void(int64_t done, int64_t of)> progress;  // blocks
  std::function<void()> check;                             // between steps; may throw to interrupt
};

struct Sensitivity {
  struct One {             // a block, its attention or its MLP
    double all = 0;        // nats per token over `loss` when every token does without it: keys and values are written all the same
    double least = 0;      // when the share of tokens that it changes least do
    double change = 0;     // mean over tokens of ‖delta‖ / ‖stream before it‖
  };
  struct Block {
    One block, attention, mlp;
    const One& of(routing::Part part) const { return part == routing::Part::block ? block : part == routing::Part::attention ? attention : mlp; }
  };
  std::vector<Block> blocks;  // [L]
  double loss = 0;            // nats per token as the model is
  int64_t tokens = 0;         // predicted
  double share = 0;

  Json to_json() const;
  std::string chart() const;  // SVG
};

// Of a dense model on windows that each begin a text. UserError: a model with routed units, a loss that is not finite.
Sensitivity measure_sensitivity(std::shared_ptr<const infer::Weights> dense, std::span<const std::span<const int32_t>> windows, const SensitivityOptions& options = {});

}  // namespace fathom::study
