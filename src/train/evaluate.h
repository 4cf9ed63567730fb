// Figures of quality on held-out text, all under the causal rule; the loss under top-k stands beside them as the teacher's
// view. Thresholds come from other windows of the same split than the losses.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "data/shards.h"
#include "nn/transformer.h"
#include "routing/dial.h"
#include "text/tokenizer.h"
#include "train/config.h"
#include "train/health.h"
#include "train/loader.h"

namespace fathom::train {

nn::Batch to_tensors(const Batch& batch);

// [B, T] bool: the tokens at the first `positions` positions of their documents, which run routed blocks whatever they
// score; undefined where positions is 0.
at::Tensor forced_tokens(const Batch& batch, int64_t positions);

// Rows of T tokens at the given places of a split, as one batch.
nn::Batch read_rows(const data::Dataset& dataset, const std::vector<int64_t>& begins, int64_t row_tokens);

// UserError when the split is too small to calibrate on one half of its windows and to measure on the other: asked before
// the first step, not after the last.
void require_held_out(const data::Dataset& validation, int64_t row_tokens);

struct Evaluation {
  int64_t targets = 0;
  double loss = 0;              // nats per token under the causal rule
  double loss_topk = 0;         // under top-k; equal to `loss` for dense models
  double bits_per_byte = 0;     // under the causal rule
  double block_fraction = 1, total_fraction = 1;  // expected at the realised capacities
  std::vector<float> thresholds;
  RouterHealth health{0};
  Json to_json() const;
};

class Evaluator {
 public:
  // `validation`: the split; rows of the model's training length. `compute` is what training uses.
  Evaluator(nn::Transformer& network, std::shared_ptr<const data::Dataset> validation, const text::Tokenizer& tokenizer,
            const TrainConfig& config, nn::Compute compute);

  // Thresholds for the trained capacities on `tokens` of held-out text (or those of `dial` at its default), losses on as
  // many others.
  Evaluation evaluate(int64_t tokens, const std::optional<routing::DialTable>& dial = {});
  // Thresholds [R] that meet the trained capacities on `tokens` of held-out text, block by block.
  std::vector<float> thresholds(int64_t tokens);
  // The dial: thresholds and losses for a grid of block fractions.
  routing::DialTable calibrate(const std::function<void(size_t done, size_t of)>& progress = {});

 private:
  nn::Transformer& network_;
  std::shared_ptr<const data::Dataset> validation_;
  std::vector<int32_t> bytes_;
  const TrainConfig& config_;
  nn::Compute compute_;
};

}  // namespace fathom::train
