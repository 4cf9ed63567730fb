#include "infer/dense_walk.h"

#include <algorithm>

#include "core/error.h"
#include "infer/text_steps.h"

namespace fathom::infer {

struct DenseWalk::State {
  TextSteps steps;
  std::vector<TextChunk> chunks;
  int64_t tokens = 0, next = 0;
  std::vector<int64_t> position;

  // The loaded chunk through block `next`.
  void run(const TextChunk& chunk, size_t first, const Hooks& hooks) {
    Step& step = steps.step();
    const size_t size = chunk.now.size();
    position.clear();
    for (const Row& row : step.rows) position.push_back(row.position);
    const auto call = [&](const std::function<void(const Rows&)>& hook) {
      if (hook) hook({.before = chunk.now, .now = {step.x.data(), size}, .position = position, .first = first});
    };
    begin_block(step);
    run_block(step, next, [&] { call(hooks.attention); });
    call(hooks.mlp);
    steps.forget();
  }

  template <class F>
  void each(F f) {
    size_t first = 0;
    for (TextChunk& chunk : chunks) {
      steps.load(chunk);
      f(chunk, first);
      first += static_cast<size_t>(chunk.rows);
    }
  }
};

DenseWalk::DenseWalk(std::shared_ptr<const Weights> weights, std::span<const std::span<const int32_t>> texts, const EngineOptions& options, std::function<void()> check)
    : state_(new State{.steps{std::move(weights), options, std::move(check)}, .chunks = {}, .position = {}}) {
  FATHOM_ASSERT(state_->steps.config().routing.dense(), "a model with units");
  state_->chunks = state_->steps.embedded(texts);
  for (const TextChunk& chunk : state_->chunks) state_->tokens += chunk.rows;
}
DenseWalk::~DenseWalk() = default;
DenseWalk::DenseWalk(DenseWalk&&) noexcept = default;

int64_t DenseWalk::block() const { return state_->next; }
int64_t DenseWalk::tokens() const { return state_->tokens; }

void DenseWalk::look(const Hooks& hooks) const {
  FATHOM_ASSERT(state_->next < state_->steps.config().num_hidden_layers, "no block is left");
  state_->each([&](const TextChunk& chunk, size_t first) { state_->run(chunk, first, hooks); });
}

void DenseWalk::advance(const Hooks& hooks) {
  FATHOM_ASSERT(state_->next < state_->steps.config().num_hidden_layers, "no block is left");
  state_->each([&](TextChunk& chunk, size_t first) {
    state_->run(chunk, first, hooks);
    state_->steps.keep(chunk);
  });
  ++state_->next;
}

void DenseWalk::go_on(std::span<const float> now) {
  FATHOM_ASSERT(state_->next < state_->steps.config().num_hidden_layers, "no block is left");
  FATHOM_ASSERT(std::ssize(now) == state_->tokens * state_->steps.config().hidden_size, now.size(), " numbers");
  for (TextChunk& chunk : state_->chunks) {
    std::ranges::copy(now.first(chunk.now.size()), chunk.now.begin());
    now = now.subspan(chunk.now.size());
  }
  ++state_->next;
}

DenseWalk::Loss DenseWalk::loss_if(const Hooks& hooks) const {
  Loss loss;
  const int64_t L = state_->steps.config().num_hidden_layers;
  state_->each([&](const TextChunk& chunk, size_t first) {
    if (state_->next < L) state_->run(chunk, first, hooks);
    state_->steps.dense_blocks(state_->next + 1, L);
    state_->steps.loss(loss.sum, loss.predicted);
  });
  return loss;
}

}  // namespace fathom::infer
