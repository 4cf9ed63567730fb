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
#include "nn/ops.h"

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
  straight_through,  // tuning of a converted model, see below
};
Pick pick_of(routing::Selection selection);

// Pick::straight_through. At every cut a token has s = r + noise (logistic, of scale score_noise) and decides d = [s ≥ threshold]; forced
// positions have d = 1. What it then gives is x' = x + g·full + (g_light − g)·light, where g = d + σ((s − threshold) / τ) − stop_gradient(σ(…)) at the
// cut of full, and g_light is that of the light cut, or 1 where nobody skips. So without noise the values are those of the causal rule,
// and every score has a gradient. Where keys are kept, and at a unit of an MLP, that is of what the token would have got on either path: the full
// delta of tokens with d = 0 is computed for it, outside the graph, since 0 is what comes back to it. With kv drop a token that does not run attention
// has no delta: its gradient is the light path's alone.
// Given capacities, a row selects by top-k instead, and its threshold is the least score that was selected.
// UserError: a model that it is not for, by what it has instead of gate hard, rule score and a selection by score.
void require_tunable(const model::ModelConfig& config, const std::string& where);

// What the matrix products and activations are computed in. Parameters, the residual stream, norms, scores, softmax and
// losses are f32 in both. A model whose parameters are f64 (tests) computes everything in f64.
enum class Compute { f32, bf16 };

// Names of auxiliary losses. The first three are means over unpadded tokens and units that decide.
inline constexpr const char* kPredictorBce = "predictor_bce";  // of the predictor's logit against selection
inline constexpr const char* kRouterBce = "router_bce";        // of the raw score against selection
inline constexpr const char* kRouterZ = "router_z";            // raw score squared
inline constexpr const char* kDistillation = "distillation";   // KL(teacher ‖ model), mean over targets that count; needs `teacher`
inline constexpr const char* kBudget = "budget";               // √((c − target)² + 1e-4) of the block fraction c; this and the next need `budget`
inline constexpr const char* kUnitBudget = "unit_budget";      // the same of every cut's share and its target, mean over cuts

// What straight-through tuning is to cost. c is model::expected_block_fraction at the shares of tokens that reach each cut, differentiable through
// their gates.
struct Budget {
  double target = 1;           // block fraction; may be another in every step
  int64_t context = 0;         // tokens of a text at which costs are counted; 0: T
  std::vector<double> shares;  // [cuts] targets of kUnitBudget
};

struct ForwardOptions {
  Pick pick = Pick::topk;
  std::vector<float> thresholds;       // [cuts], for Pick::threshold, causal and straight_through (there empty: 0 everywhere)
  std::vector<at::Tensor> imposed;     // [U] tensors [B, T] of routing::Path numbers (bool: full or skip), for Pick::imposed
  std::vector<double> capacity;        // [cuts], instead of the configuration's (warm-up); empty: the configuration's, in straight_through thresholds
  double score_noise = 0;              // standard deviation of normal noise on the score that selects, scale of straight_through's; training only
  uint64_t noise_seed = 0;             // a function of seed and step, so that a resume draws the same
  std::optional<int64_t> first_row;    // number in the run of the batch's first row, for Pick::random in training
  double straight_through_tau = 1.0;   // Gate::hard and Pick::straight_through: gradient of sigmoid(r / tau)
  std::map<std::string, double> aux;   // weights by name; an absent name is not computed
  double loss_weight = 1;              // of the language model's loss in `total`
  Teacher teacher;                     // of kDistillation; its rows are those of tokens, [B·T]
  at::Tensor target_weights;           // [B·T] how much each target counts in loss and kDistillation; undefined: 1 each
  std::optional<Budget> budget;        // of Pick::straight_through
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
  at::Tensor loss;                         // scalar: mean nll over targets that count, by their weights (0 when there are none)
  at::Tensor total;                        // scalar: loss_weight · loss + Σ weight · aux; what backward() is called on
  int64_t target_count = 0;
  std::map<std::string, at::Tensor> aux;   // scalars, unweighted
  std::vector<double> shares;              // [cuts] of unpadded tokens that reach it; of a unit's last cut: that run it in full
  std::optional<double> block_fraction;    // c, with a budget
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
  bool light = false;   // of a light path
  bool adapter = false;
};

// Low-rank adapters beside projections: W + (alpha / rank) · B · A, with A [rank, in] and B [out, rank] named "….q_proj.lora_A.weight" and
// "….lora_B.weight" (Hu et al. 2021).
struct Lora {
  int64_t rank = 0;                  // 0: none
  double alpha = 16;
  std::vector<std::string> targets = {"q", "k", "v", "o", "gate", "up", "down"};
};

// What has a gradient. What has none costs none: a frozen matrix saves its product in the backward, and the blocks before the first thing that is
// trained their whole backward.
struct Trainable {
  bool everything = true;            // every tensor of the schema, and no adapters
  bool routers = false, light = false;
  Lora lora = {};
};

// UserError: a model whose adapters are kept apart.
void refuse_untrainable(const model::ModelConfig& config, const std::string& where);

struct TransformerState;

class Transformer {
 public:
  // Parameters are zero until init() or load(). dtype: at::kFloat, or at::kDouble for tests (of models whose positions are not
  // scaled). UserError: refuse_untrainable, units with exits, adapters that there cannot be.
  explicit Transformer(model::ModelConfig config, at::ScalarType dtype = at::kFloat, const Trainable& trainable = {});
  ~Transformer();
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  const model::ModelConfig& config() const;
  const std::vector<Parameter>& parameters() const;  // what is trained: of the schema in its order, then adapters
  const std::vector<Parameter>& tensors() const;     // the schema's, in its order
  at::Tensor parameter(const std::string& name) const;  // any of both

  // Normal(0, initializer_range), norms 1, biases 0, the two projections that write to the residual stream divided by
  // sqrt(2L). A function of the seed and the names alone. Routers get the same normal: zero would make every score equal,
  // and ties pick the first positions of every row, whereas selection only needs an order, not a scale.
  void init(uint64_t seed);
  // Of adapters alone: A normal(0, 1/√in), a function of seed and name, B 0, so that they add nothing. init() does it too.
  void init_adapters(uint64_t seed);
  void load(const model::ModelFolder& folder);
  void load(const std::string& name, const std::vector<float>& values);
  std::vector<float> read(const std::string& name) const;  // f32, row-major
  std::vector<float> merged(const std::string& name) const;  // the same with what an adapter adds to it: what a model folder holds

  // With grad mode on, `total` can be called backward() on; under at::NoGradGuard nothing is kept.
  ForwardResult forward(const Batch& batch, const ForwardOptions& options = {});

 private:
  friend class CalibrationWalk;
  std::unique_ptr<TransformerState> state_;
};

}  // namespace fathom::nn
