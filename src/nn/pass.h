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

struct BlockWeights {                            // a part whose unit is static has none
  at::Tensor input_norm, post_norm;              // [C]
  at::Tensor q_norm, k_norm;                     // [D] of every head; undefined where the model has none
  Weight q, kv, qkv, o, gate_up, down;           // q and kv are parts of qkv
};

struct UnitWeights {                             // undefined when absent
  at::Tensor router, router_bias;                // [1, C], [1]
  at::Tensor fc1, fc1_bias, fc2, fc2_bias;       // [P, C], [P], [1, P], [1]
  Weight light_down, light_up;                   // [r, C], [C, r]
};

struct TransformerState {
  model::ModelConfig config;
  at::ScalarType type = at::kFloat;
  std::vector<Parameter> tensors, trained;       // Transformer::tensors, parameters
  std::unordered_map<std::string, at::Tensor> named;
  double adapter_scale = 0;                      // alpha / rank
  at::Tensor embedding, final_norm;              // [V, C], [C]
  Weight head;                                   // the embedding when tied
  std::vector<BlockWeights> blocks;              // [L]
  std::vector<UnitWeights> units;                // [U]
  at::Tensor ones;                               // [C] the weight of a norm that has none
  at::Tensor cosine, sine;                       // [positions, D / 2]

  at::Tensor at(const std::string& name) const;
  void ensure_positions(int64_t positions);
  void refresh_low();                            // bf16 copies of what has changed
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
  Scores scores(size_t unit, const Stream& stream) const;
  // What the unit's predictor says of rows x [n, C], with gradients.
  at::Tensor predict(size_t unit, const at::Tensor& x) const;
  // A plain unit's block (routing::RoutedUnit::is_plain). Consumes the scores' rows: the stream goes on in their memory.
  void routed_block(size_t unit, Stream& stream, Scores& scores, const Selected& selected, double tau) const;

  // What tokens do at a unit of any kind; padding does nothing.
  struct Decided {
    size_t unit = 0;
    Scores scores;         // with graph; undefined in a static unit
    at::Tensor router;     // [N] the linear router's score with graph, which the gate is a function of
    Selected full, light;  // that take these paths; the others skip
    std::vector<at::Tensor> gates;  // [cuts] tensors [N] of Pick::straight_through, with graph; else empty
  };
  // At the block's input, before either part runs; units in order. Consumes the scores' rows as routed_block does.
  Decided decide(size_t unit, Stream& stream, const ForwardOptions& options) const;
  // A block with the units that were decided.
  void run_block(size_t block, Stream& stream, const std::vector<Decided>& decided, double tau) const;
  HeadLoss loss(const Stream& stream, const at::Tensor& targets, const HeadTerms& terms = {}) const;
  at::Tensor logits(const Stream& stream) const;  // [N, V]

 private:
  std::shared_ptr<Attention> attention() const;  // shape and table without ranges
  // Puts scores.raw into the graph, after the decision; rows are gathered where they are given (ops.h, gather_rows).
  GatheredRows enter(size_t unit, Stream& stream, Scores& scores, const at::Tensor& rows, int64_t count) const;
  // rows [N, queries·D + keys·D + …] of the block's products, heads normed where the model does so.
  at::Tensor heads(size_t block, const at::Tensor& rows, int64_t queries, int64_t keys) const;
  at::Tensor whole_attention(size_t block, const at::Tensor& qkv) const;  // every row a query, before the output projection
  // [N, 2·G·D] keys and values of all rows of x, where the policy keeps those of rows that do not run; else undefined.
  at::Tensor kept_keys(size_t block, const at::Tensor& x) const;
  // Attention of the rows `filled`, which begin with those selected, before the output projection. x: these rows.
  at::Tensor attended(size_t block, const at::Tensor& x, const at::Tensor& kept, const Selected& selected, const std::vector<int64_t>& filled) const;
  at::Tensor mlp(size_t block, const at::Tensor& x, const at::Tensor& attention) const;  // of x + attention
  at::Tensor light(size_t unit, const at::Tensor& x) const;                              // up(down(x / rms(x)))
  struct Delta {
    at::Tensor a, m;  // [≥ K, C] of the unit's parts; else undefined
  };
  Delta full_delta(size_t block, routing::Part part, const at::Tensor& x, const at::Tensor& kept, const Selected& selected) const;
  at::Tensor run_unit(size_t block, const Decided& decided, const at::Tensor& x, double tau) const;
  at::Tensor tune_unit(size_t block, const Decided& decided, const at::Tensor& x) const;
  // d + sigmoid((s − threshold) / tau) less its own value, for the rows that reached a cut.
  at::Tensor straight_through(const Scores& scores, const Selected& reached, const at::Tensor& threshold, double tau) const;  // threshold: [N] or a scalar
  at::Tensor lowest_of_rows(const Scores& scores, const Selected& reached) const;                                            // [N] the least score that its row selected, not forced; else 0
  at::Tensor gate_of_all(const at::Tensor& raw) const;  // [N]
  at::Tensor gate(const at::Tensor& raw, const Selected& selected, const at::Tensor& rows, double tau) const;

  TransformerState& state_;
  at::ScalarType compute_;
  at::Tensor tokens_;  // [N]
  Rows rows_;
  std::shared_ptr<const Attention> whole_;  // every row a query
};

// Products are made of code that is compiled for each shape and kept for some hundred of them. Where the number of rows that
// run is another in every step, it is rounded up, so that shapes come again: by copies of row `filler`, which see themselves, and nothing reads
// what becomes of them.
std::vector<int64_t> filled_up(const std::vector<int64_t>& rows, int64_t filler);

at::Tensor index_tensor(const std::vector<int64_t>& values);  // int64

// 1 at the selected rows, 0 elsewhere, [N] in the type of `like`.
at::Tensor membership(const Selected& selected, const at::Tensor& like);

// The tokens that reach a unit's cut (routing::RoutedUnit::capacities); where the options ask for noise, draws it into `scores` first.
Selected select(const Pass& pass, const model::ModelConfig& config, size_t unit, size_t cut, Pass::Scores& scores, const ForwardOptions& options);

}  // namespace fathom::nn
