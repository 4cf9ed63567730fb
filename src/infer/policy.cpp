#include "infer/policy.h"

#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"

namespace fathom::infer {

constexpr double kSameDial = 1e-3;  // a dial as people copy it from where it is printed

const std::vector<std::pair<const char*, Rule>> kRuleNames = {
    {"causal", Rule::causal}, {"imposed", Rule::imposed}, {"random", Rule::random}, {"topk", Rule::topk}};

RoutingPolicy RoutingPolicy::full(const model::ModelConfig& config) {
  return causal(std::vector<float>(config.routing.cuts(), -std::numeric_limits<float>::infinity()));
}

RoutingPolicy RoutingPolicy::causal(std::vector<float> thresholds) {
  RoutingPolicy policy;
  policy.thresholds = std::move(thresholds);
  return policy;
}

RoutingPolicy RoutingPolicy::at_dial(const model::ModelConfig& config, const std::optional<routing::DialTable>& table,
                                     std::optional<double> dial) {
  if (config.routing.random()) {
    if (dial && *dial == 1) return full(config);
    if (!dial || (table && std::abs(*dial - table->default_dial) < kSameDial)) return control(config);
    throw UserError({"dial", "", str(*dial), table && table->default_dial < 1 ? str("1, or ", table->default_dial, ", the model's own") : "1, or none",
                     "the model's blocks pick tokens at random (selection \"random\"), at the capacities of its config.json alone"});
  }
  if (!config.routing.decides() || !table) {
    if (dial && !(*dial == 1.0))
      throw UserError({"dial", "", str(*dial), "1", !config.routing.decides() ? "this model has no routed block; fathom convert makes one of it that has" : "this model has no fathom_dial.json; fathom dial --calibrate makes one"});
    if (!config.routing.decides() || dial) return full(config);
    throw UserError({"fathom_dial.json", "", "nothing", "the thresholds of the routed blocks", "fathom dial --calibrate finds them; at dial 1 none are needed"});
  }
  return causal(table->thresholds(dial.value_or(table->default_dial)));
}

RoutingPolicy RoutingPolicy::teacher(const model::ModelConfig& config) {
  RoutingPolicy policy;
  policy.rule = Rule::topk;
  policy.capacity = config.routing.capacities();
  return policy;
}

RoutingPolicy RoutingPolicy::control(const model::ModelConfig& config) {
  RoutingPolicy policy = teacher(config);
  policy.rule = Rule::random;
  policy.seed = config.routing.random_seed;
  return policy;
}

RoutingPolicy RoutingPolicy::given(routing::Decisions decisions) {
  RoutingPolicy policy;
  policy.rule = Rule::imposed;
  policy.imposed = std::make_shared<const routing::Decisions>(std::move(decisions));
  return policy;
}

}  // namespace fathom::infer
