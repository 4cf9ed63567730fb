// Texts through a dense model block by block, with what every block reads and writes at hand: what the fitting of substitutes and
// their price in loss are computed from.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "infer/forward.h"

namespace fathom::infer {

class DenseWalk {
 public:
  // Of some whole texts. C width, N tokens.
  struct Rows {
    std::span<const float> before;      // [N, C] the residual stream as the block found it
    std::span<float> now;               // [N, C] as it is: after the attention, or after the MLP; what is written here is what goes on
    std::span<const int64_t> position;  // [N] of each token in its text
    size_t first = 0;                   // tokens of the texts before these
  };
  // What is done to a block's work; either may be empty. Called once for every chunk of texts, in order.
  struct Hooks {
    std::function<void(const Rows&)> attention, mlp;
  };
  struct Loss {
    double sum = 0;         // nats
    int64_t predicted = 0;  // tokens
    double mean() const { return sum / static_cast<double>(predicted); }
  };

  // Weights without units. Each text has 1 to max_position_embeddings tokens and begins at position 0 (UserError where it is longer);
  // [tokens, C] in f32 stay in memory. `check` is called between steps and may throw.
  DenseWalk(std::shared_ptr<const Weights> weights, std::span<const std::span<const int32_t>> texts, const EngineOptions& options = {},
            std::function<void()> check = {});
  ~DenseWalk();
  DenseWalk(DenseWalk&&) noexcept;

  int64_t block() const;   // that comes next; the number of blocks at the end
  int64_t tokens() const;
  // Runs the next block and stays before it: what the hooks write is forgotten.
  void look(const Hooks& hooks) const;
  void advance(const Hooks& hooks = {});
  // Goes on without running the block, as if it had left this stream [tokens, C].
  void go_on(std::span<const float> now);
  // The loss if `hooks` had their way in the next block and all later ones ran as they are; the walk stays where it is. At the end: the loss
  // as it is.
  Loss loss_if(const Hooks& hooks = {}) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fathom::infer
