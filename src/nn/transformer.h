// The trainable Mixture-of-Depths transformer: parameters in the order and under the names of model/schema.h, the forward
// with its losses (autograd on), and what each routed block decided. Mathematics: docs/architecture.md.
//
// Shapes: B batch rows, T tokens of a row, C width, V vocabulary, U units (routing/unit.h), whose cuts stand one after the other.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "model/config.h"
#include "model/folder.h"

namespace fathom::nn {

// Targets with this value have no loss.
inline constexpr int64_t kIgnored = -100;

struct Batch {
  at::Tensor tokens;          // [B, T] int64
  at::Tensor targets;         // [B, T] int64, kIgnored where there is no loss; undefined: no loss is computed
  at::Tensor document_start;  // [B, T] int32: index in the row of the first token of this token's document; undefined: 0.
                              // Documents do not attend across; positions (RoPE, forced, random) count from it.
  at::Tensor lengths;         // [B] int64: tokens of the row that are no padding (padding is at the end); undefined: T
};

// How a forward picks the tokens that reach a unit's cuts. The first three are routing::Selection of a training step.
enum class Pick {
  topk,       // per row, ceil(capacity · length) tokens of highest raw score: also the teacher's view in evaluation
  threshold,  // raw score ≥ the cut's threshold
  random,     // routing::random_score(seed, block, position) < capacity, drawn anew for every row with `first_row`
  imposed,    // what `imposed` says
  causal,     // the causal rule: decision score ≥ the cut's threshold; the only one for figures of quality.
              // With Selection::random it is random_score < capacity and thresholds are not read.
};
Pick pick_of(routing::Selection selection);

// What the matrix products and activations are computed in. Parameters, the residual stream, norms, scores, softmax and
// losses are f32 in both. A model whose parameters are f64 (tests) computes everything in f64.
enum class Compute { f32, bf16 };

// Names of auxiliary losses. Each is a mean over unpadded tokens and units that decide.
inline constexpr const char* kPredictorBce = "predictor_bce";  // of the predictor's logit against selection
inline constexpr const char* kRouterBce = "router_bce";        // of the raw score against selection
inline constexpr const char* kRouterZ = "router_z";            // raw score squared

struct ForwardOptions {
  Pick pick = Pick::topk;
  std::vector<float> thresholds;       // [cuts], for Pick::threshold and Pick::causal
  std::vector<at::Tensor> imposed;     // [U] tensors [B, T] of routing::Path numbers (bool: full or skip), for Pick::imposed
  std::vector<double> capacity;        // [cuts], instead of the configuration's (warm-up); empty: the configuration's
  double score_noise = 0;              // standard deviation of normal noise on the score that selects; training only
  uint64_t noise_seed = 0;             // a function of seed and step, so that a resume draws the same
  std::optional<int64_t> first_row;    // number in the run of the batch's first row, for Pick::random in training
  double straight_through_tau = 1.0;   // Gate::hard: gradient of sigmoid(r / tau)
  std::map<std::string, double> aux;   // weights by name; an absent name is not computed
  Compute compute = Compute::f32;
  bool logits = false;                 // keep all logits [B, T, V] (else they exist in chunks of rows only)
  bool token_nll = false;              // negative log-likelihood per token
};

struct RoutedResult {              // of one unit; scores of a static one are 0
  at::Tensor raw;                // [B, T] scores r of the router, detached
  at::Tensor selecting;          // [B, T] what topk and threshold selected by: raw, or raw with the step's noise
  at::Tensor decision;           // [B, T] decision scores (r, or the predictor's logit), detached
  at::Tensor selected;           // [B, T] bool: ran in full
  at::Tensor light;              // [B, T] bool: took the light path; undefined where there is none
  int64_t selected_count = 0;    // tokens that ran in full, over all rows
  int64_t token_count = 0;       // unpadded tokens
};

struct ForwardResult {
  at::Tensor loss;                         // scalar: mean nll over targets that count (0 when there are none)
  at::Tensor total;                        // scalar: loss + Σ weight · aux; what backward() is called on
  int64_t target_count = 0;
  std::map<std::string, at::Tensor> aux;   // scalars, unweighted
  at::Tensor logits;                       // [B, T, V], when asked for
  at::Tensor nll;                          // [B, T] f32, 0 where ignored, when asked for
  std::vector<RoutedResult> routed;        // [U]
};

// A leaf of the graph. Matrices decay, vectors (norms, biases) do not; routers and predictors may have a learning rate
// of their own.
struct Parameter {
  std::string name;     // as in model::schema
  at::Tensor tensor;    // requires grad; contiguous
  bool matrix = false;
  bool router = false;  // of a router or predictor
};

// UserError: a model with biases or QK norms, which the engine alone computes.
void refuse_untrainable(const model::ModelConfig& config, const std::string& where);

struct TransformerState;

class Transformer {
 public:
  // Parameters are zero until init() or load(). dtype: at::kFloat, or at::kDouble for tests (of models whose positions are not
  // scaled). UserError: refuse_untrainable, units with exits.
  explicit Transformer(model::ModelConfig config, at::ScalarType dtype = at::kFloat);
  ~Transformer();
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  const model::ModelConfig& config() const;
  const std::vector<Parameter>& parameters() const;  // in schema order
  at::Tensor parameter(const std::string& name) const;

  // Normal(0, initializer_range), norms 1, biases 0, the two projections that write to the residual stream divided by
  // sqrt(2L). A function of the seed and the names alone. Routers get the same normal: zero would make every score equal,
  // and ties pick the first positions of every row, whereas selection only needs an order, not a scale.
  void init(uint64_t seed);
  void load(const model::ModelFolder& folder);
  void load(const std::string& name, const std::vector<float>& values);
  std::vector<float> read(const std::string& name) const;  // f32, row-major

  // With grad mode on, `total` can be called backward() on; under at::NoGradGuard nothing is kept.
  ForwardResult forward(const Batch& batch, const ForwardOptions& options = {});

 private:
  friend class CalibrationWalk;
  std::unique_ptr<TransformerState> state_;
};

}  // namespace fathom::nn
