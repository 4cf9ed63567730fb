// How a model routes: which units, at what capacity, by which gate and which causal rule. Lives in config.json under
// the key "fathom" and is the same for training and the engine. What belongs to training only (selection schedule,
// loss weights, warm-up) is in the training configuration.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/json.h"
#include "routing/unit.h"

namespace fathom::routing {

// "version" of the "fathom" object. 1 is written where every unit is a whole block that tokens skip or run, else 2; a greater one is refused.
inline constexpr int kRoutingVersion = 2;

// The factor on a selected block's delta, from the router's score r.
enum class Gate {
  one_plus_tanh,  // 1 + gate_scale · tanh(r)
  sigmoid,        // 1 / (1 + exp(−r))
  raw,            // r
  hard,           // exactly 1; training passes a straight-through gradient of sigmoid(r)
};

// What decides outside the training step which path a token takes: a cut is reached ⟺ decision score ≥ threshold (both f32).
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

// Keys and values of tokens that do not run a block's attention in full. Where nobody does (a static unit) there are none.
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

struct RoutingConfig {
  std::vector<RoutedUnit> units;    // ascending by block, a block's attention before its MLP; empty = a dense model
  Gate gate = Gate::hard;           // the best of those tried at equal training FLOPs, and the dense block to the bit
  double gate_scale = 0.2;          // of one_plus_tanh
  CausalRule rule = CausalRule::score;
  Selection selection = Selection::topk;
  KvPolicy kv = KvPolicy::drop;
  RouterInput router_input = RouterInput::hidden;
  bool router_bias = false;
  int64_t forced_positions = 0;     // the first tokens of a document always run, with gate 1, and never exit
  uint64_t random_seed = 0;         // of Selection::random
  bool operator==(const RoutingConfig&) const = default;

  bool dense() const { return units.empty(); }
  bool decides() const { return cuts() > 0; }  // whether any token's path is to be decided
  bool random() const { return decides() && selection == Selection::random; }  // decided, but by no score
  bool exits() const;

  // Indices into `units` of a block's units: [first, last), none to two.
  std::pair<size_t, size_t> units_of(int64_t block) const;
  // Index of the unit that decides about a block's attention or MLP, or −1 when every token runs it.
  int unit_of(int64_t block, Part half) const;

  // Thresholds, capacities and what a dial holds are lists over cuts, unit after unit, a unit's cheapest first.
  size_t cuts() const;
  size_t first_cut(size_t unit) const;
  size_t full_cut(size_t unit) const { return first_cut(unit + 1) - 1; }  // of a unit that is not static
  std::vector<double> capacities() const;  // [cuts], as RoutedUnit::capacities

  struct Shares {
    double full = 0, light = 0;  // of tokens; the others skip
  };
  Shares shares(size_t unit, std::span<const double> capacity) const;  // capacity [cuts]

  // Depth: a block counts when its attention and its MLP both ran in full. Blocks without units always count.
  int64_t routed_blocks() const;  // blocks with a unit
  int64_t static_blocks() const;  // blocks that no token can run in full
  int64_t full_blocks(std::span<const uint8_t> paths) const;  // routed blocks that a token ran in full; paths [units]

  // `fields` is the "fathom" object; `n_blocks` bounds the indices. Either "units", a list (RoutedUnit::from_json), or
  // "routed_blocks", which takes a list, "none", "all", "every_second" (1, 3, 5, …), "every_third" (2, 5, …) or
  // {"from": a, "to": b, "step": s} (both ends included), with "capacity", a number, a list (one per routed block) or
  // {"first": a, "last": b} (linear over routed blocks), "granularity" (block, attention, mlp, attention+mlp) and the keys
  // of RoutedUnit::read_paths for all of them. Reads all keys of the object and refuses unknown ones.
  static RoutingConfig from_json(const Fields& fields, int64_t n_blocks);
  Json to_json() const;  // the canonical form: lists
  // UserError where a unit is more than a whole block that tokens skip or run in full: training from scratch knows no others.
  void require_plain(const std::string& where) const;
};

}  // namespace fathom::routing
