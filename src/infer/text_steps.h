// Whole texts through single blocks: what the walks over texts share (walk.h, dense_walk.h). Texts are cut into chunks of some
// hundred rows; a chunk's residual stream is put into a step, runs blocks there, and is kept. Internal to the engine.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "infer/forward.h"
#include "infer/step.h"

namespace fathom::infer {

struct TextChunk {  // some texts, whole
  std::vector<std::span<const int32_t>> texts;
  std::vector<float> now;       // [N, C] the residual stream
  std::vector<uint8_t> exited;  // [N]
  int64_t rows = 0;             // N
};

class TextSteps {
 public:
  // `check` is called between steps and may throw.
  TextSteps(std::shared_ptr<const Weights> weights, const EngineOptions& options, std::function<void()> check);

  const model::ModelConfig& config() const { return weights_->config(); }
  // The texts at the input of block 0. UserError where one is longer than max_position_embeddings or has an id that the model lacks.
  std::vector<TextChunk> embedded(std::span<const std::span<const int32_t>> texts);

  // Lays the chunk's rows out in step(), from position 0 of every text.
  void load(const TextChunk& chunk);
  void keep(TextChunk& chunk) const;
  // Blocks [from, to) over the chunk that is loaded, every row in full.
  void dense_blocks(int64_t from, int64_t to);
  // A block's keys and values serve that block alone: their pages go to the next one.
  void forget();

  // Of the loaded chunk at the end of all blocks: −log p(next token) of every token but each text's last, added to `sum`, counted in
  // `predicted`. UserError where one is not finite.
  void loss(double& sum, int64_t& predicted);

  RoutingPolicy policy;  // of every text
  Step& step() { return step_; }

 private:
  std::shared_ptr<const Weights> weights_;
  std::function<void()> check_;
  ThreadPool threads_;
  std::shared_ptr<PagePool> pool_;
  Step step_;
  const TextChunk* loaded_ = nullptr;
  std::vector<Sequence> sequences_;
  std::vector<WorkItem> items_;
};

}  // namespace fathom::infer
