// How a model routes: which blocks, at what capacity, by which gate and which causal rule. Lives in config.json under
// the key "fathom" and is the same for training and the engine. What belongs to training only (selection schedule,
// loss weights, warm-up) is in the training configuration.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "core/json.h"

namespace fathom::routing {

inline constexpr int kRoutingVersion = 1;  // "version" of the "fathom" object; another one is refused

// The factor on a selected block's delta, from the router's score r.
enum class Gate {
  one_plus_tanh,  // 1 + gate_scale · tanh(r)
  sigmoid,        // 1 / (1 + exp(−r))
  raw,            // r
  hard,           // exactly 1; training passes a straight-through gradient of sigmoid(r)
};

// What decides outside the training step whether a token runs a block: run ⟺ decision score ≥ threshold (both f32).
enum class CausalRule {
  score,       // decision score = the router's r; threshold calibrated
  predictor,   // decision score = logit of a small MLP on the block's input; threshold calibrated
  router_bce,  // as score, but training also pulls r towards top-k membership by a cross-entropy
};

// How the training step picks tokens.
enum class Selection {
  topk,       // expert choice: the ceil(capacity·T) highest scores of each row
  threshold,  // token choice: score ≥ a running quantile of earlier steps; causal in training too
  random,     // control: a hash of seed, block and position, at the block's capacity
};

// Keys and values of tokens that skip a block.
enum class KvPolicy {
  drop,  // none: later tokens cannot attend to it in this block (the paper)
  keep,  // written all the same
};

// What the router and the predictor read.
enum class RouterInput {
  hidden,  // x, the block's input
  normed,  // x / rms(x), no weight (converted models)
};

extern const std::vector<std::pair<const char*, Gate>> kGateNames;
extern const std::vector<std::pair<const char*, CausalRule>> kCausalRuleNames;
extern const std::vector<std::pair<const char*, Selection>> kSelectionNames;
extern const std::vector<std::pair<const char*, KvPolicy>> kKvPolicyNames;
extern const std::vector<std::pair<const char*, RouterInput>> kRouterInputNames;

struct RoutedBlock {
  int block = 0;          // index into the model's blocks
  double capacity = 1.0;  // share of tokens that run it in full, in (0, 1]
  bool operator==(const RoutedBlock&) const = default;
};

struct RoutingConfig {
  std::vector<RoutedBlock> blocks;  // ascending by block; empty = a dense model
  Gate gate = Gate::hard;           // the best of those tried at equal training FLOPs, and the dense block to the bit
  double gate_scale = 0.2;          // of one_plus_tanh
  CausalRule rule = CausalRule::score;
  Selection selection = Selection::topk;
  KvPolicy kv = KvPolicy::drop;
  RouterInput router_input = RouterInput::hidden;
  bool router_bias = false;
  int64_t forced_positions = 0;     // the first tokens of a document always run, with gate 1
  uint64_t random_seed = 0;         // of Selection::random
  bool operator==(const RoutingConfig&) const = default;

  bool dense() const { return blocks.empty(); }
  bool random() const { return !dense() && selection == Selection::random; }  // routed, but by no score
  // Index into `blocks` of a model block, or −1 when that block is not routed.
  int routed_index(int block) const;

  // `fields` is the "fathom" object; `n_blocks` bounds the indices. "routed_blocks" takes a list, "none", "all",
  // "every_second" (1, 3, 5, …), "every_third" (2, 5, …) or {"from": a, "to": b, "step": s} (both ends included);
  // "capacity" a number, a list (one per routed block) or {"first": a, "last": b} (linear over routed blocks).
  // Reads all keys of the object and refuses unknown ones.
  static RoutingConfig from_json(const Fields& fields, int64_t n_blocks);
  Json to_json() const;  // the canonical form: lists
};

}  // namespace fathom::routing
