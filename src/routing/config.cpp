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

const std::vector<std::pair<const char*, std::vector<Part>>> kGranularities = {
    {"block", {Part::block}}, {"attention", {Part::attention}}, {"mlp", {Part::mlp}}, {"attention+mlp", {Part::attention, Part::mlp}}};

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

std::vector<RoutedUnit> read_pattern_units(const Fields& fields, int64_t n_blocks) {
  const std::vector<int> routed = read_pattern(fields, n_blocks);
  RoutedUnit unit;
  unit.read_paths(fields);
  if (unit.is_static() && fields.has("capacity"))
    fields.wrong("capacity", describe(fields.raw("capacity")), str("no such key with paths ", unit.paths.text()), "every token takes the one path");
  const std::vector<double> capacity = unit.is_static() ? std::vector<double>(routed.size()) : read_capacity(fields, routed.size());
  const std::vector<Part> parts = fields.choice<std::vector<Part>>("granularity", kGranularities, std::vector<Part>{Part::block});
  std::vector<RoutedUnit> out;
  for (size_t i = 0; i < routed.size(); ++i)
    for (const Part part : parts) {
      unit.block = routed[i], unit.capacity = capacity[i], unit.part = part;
      if (const auto [field, expected] = unit.problem(); !field.empty()) fields.wrong(field, describe(fields.raw(field)), expected);
      out.push_back(unit);
    }
  return out;
}

std::vector<RoutedUnit> read_units(const Fields& fields, int64_t n_blocks) {
  for (const char* key : {"routed_blocks", "capacity", "granularity", "paths", "light_rank", "light_capacity", "skip_capacity"})
    if (fields.has(key)) fields.wrong(key, describe(fields.raw(key)), "no such key beside \"units\"", "every unit has its own");
  const Json& list = fields.raw("units");
  if (!list.is_array()) fields.wrong("units", describe(list), "a list of units");
  std::vector<RoutedUnit> out;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string key = str("units[", i, "]");
    if (!list[i].is_object()) fields.wrong(key, describe(list[i]), "a unit { … }");
    out.push_back(RoutedUnit::from_json(Fields(list[i], fields.where(), fields.path(key)), n_blocks));
    if (i > 0 && !out[i - 1].before(out[i]))
      fields.wrong(key, str(out[i].name(), " after ", out[i - 1].name()), "units ascending by block, a block's attention before its MLP, each once");
  }
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

bool RoutingConfig::exits() const {
  return std::any_of(units.begin(), units.end(), [](const RoutedUnit& unit) { return unit.paths.exit; });
}

std::pair<size_t, size_t> RoutingConfig::units_of(int64_t block) const {
  const auto first = std::lower_bound(units.begin(), units.end(), block, [](const RoutedUnit& unit, int64_t b) { return unit.block < b; });
  auto last = first;
  while (last != units.end() && last->block == block) ++last;
  return {static_cast<size_t>(first - units.begin()), static_cast<size_t>(last - units.begin())};
}

int RoutingConfig::unit_of(int64_t block, Part half) const {
  const auto [first, last] = units_of(block);
  for (size_t u = first; u < last; ++u)
    if (units[u].covers(half)) return static_cast<int>(u);
  return -1;
}

size_t RoutingConfig::first_cut(size_t unit) const {
  size_t out = 0;
  for (size_t u = 0; u < unit; ++u) out += units[u].cuts();
  return out;
}

size_t RoutingConfig::cuts() const { return first_cut(units.size()); }

std::vector<double> RoutingConfig::capacities() const {
  std::vector<double> out;
  for (const RoutedUnit& unit : units)
    for (const double share : unit.capacities()) out.push_back(share);
  return out;
}

RoutingConfig::Shares RoutingConfig::shares(size_t unit, std::span<const double> capacity) const {
  FATHOM_ASSERT(capacity.size() == cuts(), capacity.size(), " capacities");
  const RoutedUnit& u = units[unit];
  Shares out;
  if (!u.is_static()) out.full = capacity[full_cut(unit)];
  if (!u.paths.light) return out;
  // Whoever exited takes the cheapest path: where that is light, everybody who does not run in full.
  out.light = (u.cheapest() == Path::light ? 1.0 : capacity[full_cut(unit) - 1]) - out.full;
  return out;
}

int64_t RoutingConfig::routed_blocks() const {
  int64_t out = 0;
  for (size_t u = 0; u < units.size(); ++u) out += u == 0 || units[u].block != units[u - 1].block;
  return out;
}

int64_t RoutingConfig::static_blocks() const {
  int64_t out = 0;
  int last = -1;
  for (const RoutedUnit& unit : units)
    if (unit.is_static() && unit.block != last) last = unit.block, ++out;
  return out;
}

int64_t RoutingConfig::full_blocks(std::span<const uint8_t> paths) const {
  FATHOM_ASSERT(paths.size() == units.size(), paths.size(), " paths of a token");
  int64_t out = 0;
  for (size_t u = 0; u < units.size(); ++u) {
    const bool second = u > 0 && units[u].block == units[u - 1].block;
    const bool full = paths[u] == static_cast<uint8_t>(Path::full);
    if (!second) out += full;
    else if (!full) out -= paths[u - 1] == static_cast<uint8_t>(Path::full);
  }
  return out;
}

RoutingConfig RoutingConfig::from_json(const Fields& fields, int64_t n_blocks) {
  const RoutingConfig defaults;
  RoutingConfig c;
  fields.integer("version", 1, kRoutingVersion, 1);
  c.units = fields.has("units") ? read_units(fields, n_blocks) : read_pattern_units(fields, n_blocks);
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
  Json j = {{"version", 1},
            {"gate", name_of(gate, kGateNames)},
            {"gate_scale", gate_scale},
            {"rule", name_of(rule, kCausalRuleNames)},
            {"selection", name_of(selection, kSelectionNames)},
            {"kv", name_of(kv, kKvPolicyNames)},
            {"router_input", name_of(router_input, kRouterInputNames)},
            {"router_bias", router_bias},
            {"forced_positions", forced_positions},
            {"random_seed", random_seed}};
  if (std::all_of(units.begin(), units.end(), [](const RoutedUnit& unit) { return unit.is_plain(); })) {
    j["routed_blocks"] = j["capacity"] = Json::array();
    for (const RoutedUnit& unit : units) j["routed_blocks"].push_back(unit.block), j["capacity"].push_back(unit.capacity);
    return j;
  }
  j["version"] = 2;
  for (const RoutedUnit& unit : units) j["units"].push_back(unit.to_json());
  return j;
}

void RoutingConfig::require_plain(const std::string& where) const {
  for (size_t u = 0; u < units.size(); ++u) {
    const RoutedUnit& unit = units[u];
    if (unit.is_plain()) continue;
    const bool part = unit.part != Part::block;
    throw UserError({where, str("fathom.units[", u, "].", part ? "part" : "paths"), part ? std::string(name_of(unit.part, kPartNames)) : unit.paths.text(),
                     part ? "block" : "skip,full", "training knows whole blocks that a token skips or runs in full; the engine runs the others"});
  }
}

}  // namespace fathom::routing
