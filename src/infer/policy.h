// How one sequence's tokens are routed in a forward: the causal rule at some thresholds (every use that produces text or
// a quality figure), or one of three views that tests and evaluation need.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "routing/decisions.h"
#include "routing/dial.h"

namespace fathom::infer {

enum class Rule {
  causal,   // decision score ≥ the thresholds of a unit's cuts
  imposed,  // given decisions
  random,   // control: a hash of seed, unit and position below the capacities of its cuts
  topk,     // the teacher's view: looks into the future, so the whole sequence is one item from position 0
};
extern const std::vector<std::pair<const char*, Rule>> kRuleNames;

struct RoutingPolicy {
  Rule rule = Rule::causal;
  std::vector<float> thresholds;                      // causal: [cuts]
  std::vector<double> capacity;                       // random, topk: [cuts]
  uint64_t seed = 0;                                  // random
  std::shared_ptr<const routing::Decisions> imposed;  // imposed: run[u][position of the token in its sequence]

  static RoutingPolicy full(const model::ModelConfig& config);  // every token in full, but in static units (gates still apply)
  static RoutingPolicy causal(std::vector<float> thresholds);
  // The thresholds of a dial, the table's default when none is asked for. A dense model needs no table, and takes no
  // dial other than 1. A model of random selection has routers that nobody trained: it runs as its own control, or in
  // full at dial 1, and takes no other dial. UserError.
  static RoutingPolicy at_dial(const model::ModelConfig& config, const std::optional<routing::DialTable>& table,
                               std::optional<double> dial = {});
  static RoutingPolicy teacher(const model::ModelConfig& config);  // topk at the configured capacities
  static RoutingPolicy control(const model::ModelConfig& config);  // random at the configured capacities and seed
  static RoutingPolicy given(routing::Decisions decisions);
  bool operator==(const RoutingPolicy&) const = default;  // imposed decisions: the same object
};

}  // namespace fathom::infer
