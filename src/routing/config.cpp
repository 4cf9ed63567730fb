#include "routing/config.h"

#include <algorithm>

namespace fathom::routing {

const std::vector<std::pair<const char*, Gate>> kGateNames = {
    {"one_plus_tanh", Gate::one_plus_tanh}, {"sigmoid", Gate::sigmoid}, {"raw", Gate::raw}, {"hard", Gate::hard}};
const std::vector<std::pair<const char*, CausalRule>> kCausalRuleNames = {
    {"score", CausalRule::score}, {"predictor", CausalRule::predictor}, {"router_bce", CausalRule::router_bce}};
const std::vector<std::pair<const char*, Selection>> kSelectionNames = {
    {"topk", Selection::topk}, {"threshold", Selection::threshold}, {"random", Selection::random}};
const std::vector<std::pair<const char*, KvPolicy>> kKvPolicyNames = {{"drop", KvPolicy::drop}, {"keep", KvPolicy::keep}};
const std::vector<std::pair<const char*, RouterInput>> kRouterInputNames = {{"hidden", RouterInput::hidden},
                                                                            {"normed", RouterInput::normed}};

namespace {

constexpr const char* kPatterns =
    "a list of block indices, \"none\", \"all\", \"every_second\", \"every_third\" or {\"from\": a, \"to\": b, \"step\": s}";
constexpr const char* kCapacities =
    "a number above 0 and at most 1, a list of them (one per routed block) or {\"first\": a, \"last\": b}";

std::vector<int> stepped(int64_t from, int64_t to, int64_t step) {
  std::vector<int> out;
  for (int64_t b = from; b <= to; b += step) out.push_back(static_cast<int>(b));
  return out;
}

std::vector<int> read_pattern(const Fields& fields, int64_t n_blocks) {
  const std::string key = "routed_blocks";
  if (!fields.has(key)) fields.missing(key, kPatterns);
  const Json& value = fields.raw(key);
  if (value.is_string()) {
    const std::string name = value.get<std::string>();
    std::vector<int> out;
    if (name == "none") return out;
    if (name == "all") out = stepped(0, n_blocks - 1, 1);
    else if (name == "every_second") out = stepped(1, n_blocks - 1, 2);
    else if (name == "every_third") out = stepped(2, n_blocks - 1, 3);
    else fields.wrong(key, describe(value), kPatterns);
    if (out.empty())
      fields.wrong(key, str("\"", name, "\", which routes no block of ", n_blocks), "a pattern that routes a block",
                   "write \"none\" for a dense model");
    return out;
  }
  if (value.is_object()) {
    const Fields range = fields.object(key);
    const int64_t from = range.integer("from", 0, n_blocks - 1);
    const int64_t to = range.integer("to", from, n_blocks - 1);
    const int64_t step = range.integer("step", 1, n_blocks, 1);
    range.done();
    return stepped(from, to, step);
  }
  if (!value.is_array()) fields.wrong(key, describe(value), kPatterns);
  const std::vector<int64_t> list = fields.integers(key, 0, n_blocks - 1);
  for (size_t i = 1; i < list.size(); ++i)
    if (list[i] <= list[i - 1])
      fields.wrong(str(key, "[", i, "]"), str(list[i], " after ", list[i - 1]), "ascending indices, each once");
  return {list.begin(), list.end()};
}

double one_capacity(const Fields& fields, const std::string& key, const Json& value) {
  if (!value.is_number() || !(value.get<double>() > 0 && value.get<double>() <= 1))
    fields.wrong(key, describe(value), "a number above 0 and at most 1");
  return value.get<double>();
}

std::vector<double> read_capacity(const Fields& fields, size_t count) {
  const std::string key = "capacity";
  if (!fields.has(key)) {
    if (count == 0) return {};
    fields.missing(key, kCapacities);
  }
  const Json& value = fields.raw(key);
  if (value.is_number()) return std::vector<double>(count, one_capacity(fields, key, value));
  std::vector<double> out;
  if (value.is_object()) {
    const Fields range = fields.object(key);
    const double first = one_capacity(range, "first", range.raw("first"));
    const double last = one_capacity(range, "last", range.raw("last"));
    range.done();
    for (size_t i = 0; i < count; ++i) {
      const double t = count == 1 ? 0 : static_cast<double>(i) / static_cast<double>(count - 1);
      out.push_back(first * (1 - t) + last * t);
    }
    return out;
  }
  if (!value.is_array()) fields.wrong(key, describe(value), kCapacities);
  for (size_t i = 0; i < value.size(); ++i) out.push_back(one_capacity(fields, str(key, "[", i, "]"), value[i]));
  if (out.size() != count)
    fields.wrong(key, describe(value), str("as many as routed blocks: ", count));
  return out;
}

uint64_t read_seed(const Fields& fields) {
  const std::string key = "random_seed";
  if (!fields.has(key)) return 0;
  const Json& value = fields.raw(key);
  if (!value.is_number_integer() || (!value.is_number_unsigned() && value.get<int64_t>() < 0))
    fields.wrong(key, describe(value), str("a whole number from 0 to ", UINT64_MAX));
  return value.get<uint64_t>();
}

}  // namespace

int RoutingConfig::routed_index(int block) const {
  const auto it = std::lower_bound(blocks.begin(), blocks.end(), block,
                                   [](const RoutedBlock& r, int b) { return r.block < b; });
  return it != blocks.end() && it->block == block ? static_cast<int>(it - blocks.begin()) : -1;
}

RoutingConfig RoutingConfig::from_json(const Fields& fields, int64_t n_blocks) {
  const RoutingConfig defaults;
  RoutingConfig c;
  fields.integer("version", kRoutingVersion, kRoutingVersion, kRoutingVersion);
  const std::vector<int> routed = read_pattern(fields, n_blocks);
  const std::vector<double> capacity = read_capacity(fields, routed.size());
  for (size_t i = 0; i < routed.size(); ++i) c.blocks.push_back({routed[i], capacity[i]});
  c.gate = fields.choice<Gate>("gate", kGateNames, defaults.gate);
  c.gate_scale = fields.number("gate_scale", 0, limits::kGateScale, defaults.gate_scale);
  c.rule = fields.choice<CausalRule>("rule", kCausalRuleNames, defaults.rule);
  c.selection = fields.choice<Selection>("selection", kSelectionNames, defaults.selection);
  c.kv = fields.choice<KvPolicy>("kv", kKvPolicyNames, defaults.kv);
  c.router_input = fields.choice<RouterInput>("router_input", kRouterInputNames, defaults.router_input);
  c.router_bias = fields.boolean("router_bias", defaults.router_bias);
  c.forced_positions = fields.integer("forced_positions", 0, limits::kContext, defaults.forced_positions);
  c.random_seed = read_seed(fields);
  fields.done();
  return c;
}

Json RoutingConfig::to_json() const {
  Json routed = Json::array(), capacity = Json::array();
  for (const RoutedBlock& r : blocks) {
    routed.push_back(r.block);
    capacity.push_back(r.capacity);
  }
  return {{"version", kRoutingVersion},
          {"routed_blocks", routed},
          {"capacity", capacity},
          {"gate", name_of(gate, kGateNames)},
          {"gate_scale", gate_scale},
          {"rule", name_of(rule, kCausalRuleNames)},
          {"selection", name_of(selection, kSelectionNames)},
          {"kv", name_of(kv, kKvPolicyNames)},
          {"router_input", name_of(router_input, kRouterInputNames)},
          {"router_bias", router_bias},
          {"forced_positions", forced_positions},
          {"random_seed", random_seed}};
}

}  // namespace fathom::routing
