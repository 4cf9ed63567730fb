// One forward over a batch, block by block: what Transformer::forward and CalibrationWalk share. Internal to the room.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "nn/ops.h"
#include "nn/select.h"
#include "nn/transformer.h"

namespace fathom::nn {

struct BlockWeights {
  at::Tensor input_norm, post_norm;              // [C]
  Weight q, kv, qkv, o, gate_up, down;           // q and kv are parts of qkv
  at::Tensor router, router_bias;                // [1, C], [1]; undefined when absent
  at::Tensor fc1, fc1_bias, fc2, fc2_bias;       // [P, C], [P], [1, P], [1]
};

struct TransformerState {
  model::ModelConfig config;
  at::ScalarType type = at::kFloat;
  std::vector<Parameter> parameters;
  std::unordered_map<std::string, size_t> index;
  at::Tensor embedding, final_norm;              // [V, C], [C]
  Weight head;                                   // the embedding when tied
  std::vector<BlockWeights> blocks;              // [L]
  at::Tensor cosine, sine;                       // [positions, D / 2]

  at::Tensor at(const std::string& name) const;
  void ensure_positions(int64_t positions);
  void refresh_low();                            // bf16 copies of what has changed

 private:
  std::vector<uint64_t> low_version_;
};

// The residual stream of N rows, its last addition still to be done: x + delta. The next norm does it on the way.
struct Stream {
  at::Tensor x;      // [N, C]
  at::Tensor delta;  // [N, C] or undefined
};

class Pass {
 public:
  Pass(TransformerState& state, const Batch& batch, Compute compute);

  const Rows& rows() const { return rows_; }
  Stream embedded() const;
  void dense_block(size_t block, Stream& stream) const;

  struct Scores {
    at::Tensor raw;       // [N]; with graph only after routed_block
    at::Tensor decision;  // [N]: raw itself, or the predictor's logit (with graph up to the predictor's parameters)
    at::Tensor noisy;     // [N] raw with the step's noise, detached: what select() went by; undefined where it drew none
    ScoredRows rows;
  };
  Scores scores(size_t block, const Stream& stream) const;
  // Consumes the scores' rows: the stream goes on in their memory.
  void routed_block(size_t block, Stream& stream, Scores& scores, const Selected& selected, double tau) const;
  HeadLoss loss(const Stream& stream, const at::Tensor& targets) const;
  at::Tensor logits(const Stream& stream) const;  // [N, V]

 private:
  std::shared_ptr<Attention> attention() const;  // shape and table without ranges
  // Attention and feed-forward over rows that all run; returns a and m of x' = (x + a) + m.
  at::Tensor gate(const at::Tensor& raw, const Selected& selected, const at::Tensor& rows, double tau) const;

  TransformerState& state_;
  at::ScalarType compute_;
  at::Tensor tokens_;  // [N]
  Rows rows_;
  std::shared_ptr<const Attention> whole_;  // every row a query
};

// Picks the tokens that run; where the options ask for noise, draws it into `scores` first.
Selected select(Pick pick, const Pass& pass, const model::ModelConfig& config, size_t routed, Pass::Scores& scores,
                const ForwardOptions& options);

}  // namespace fathom::nn
