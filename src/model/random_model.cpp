#include "model/random_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "core/error.h"
#include "model/schema.h"

namespace fathom::model {
namespace {

using routing::CausalRule;
using routing::Gate;
using routing::RoutingConfig;

int64_t between(Random& random, int64_t low, int64_t high) {  // both ends included
  return low >= high ? low : low + static_cast<int64_t>(random.below(static_cast<uint64_t>(high - low + 1)));
}

bool chance(Random& random, double p) { return random.uniform() < p; }

template <class T>
T one_of(Random& random, std::initializer_list<T> values) {
  return *(values.begin() + random.below(values.size()));
}

RoutingConfig random_routing(Random& random, int64_t blocks) {
  RoutingConfig r;
  const int64_t pattern = between(random, 0, 3);  // every second, all, one alone, coin flips
  const int64_t alone = between(random, 0, blocks - 1);
  for (int64_t b = 0; b < blocks; ++b) {
    const bool routed = pattern == 0 ? b % 2 == 1 : pattern == 1 ? true : pattern == 2 ? b == alone : chance(random, 0.5);
    if (routed) r.units.push_back({static_cast<int>(b), 1.0});
  }
  if (r.units.empty()) r.units.push_back({static_cast<int>(alone), 1.0});
  for (auto& unit : r.units)
    unit.capacity = one_of(random, {0.125, 0.25, 0.5, 1.0, 0.01 + 0.99 * random.uniform()});
  r.gate = one_of(random, {Gate::one_plus_tanh, Gate::sigmoid, Gate::raw, Gate::hard});
  r.gate_scale = one_of(random, {0.2, 0.5});
  r.rule = one_of(random, {CausalRule::score, CausalRule::predictor, CausalRule::router_bce});
  r.selection = one_of(random, {routing::Selection::topk, routing::Selection::threshold, routing::Selection::random});
  r.kv = one_of(random, {routing::KvPolicy::drop, routing::KvPolicy::keep});
  r.router_input = one_of(random, {routing::RouterInput::hidden, routing::RouterInput::normed});
  r.router_bias = chance(random, 0.5);
  r.forced_positions = chance(random, 0.3) ? between(random, 1, 4) : 0;
  r.random_seed = random.bits();
  return r;
}

RopeScaling random_scaling(Random& random, int64_t head_dim) {
  using Type = RopeScaling::Type;
  RopeScaling s;
  s.type = one_of(random, {Type::none, Type::linear, Type::llama3, Type::yarn, Type::divided});
  if (s.type != Type::none && s.type != Type::divided) s.factor = one_of(random, {2.0, 8.0, 1.5});
  if (s.type == Type::llama3 || s.type == Type::yarn) s.original_context = between(random, 8, 64);  // turns of most heads lie on both sides
  if (s.type == Type::llama3) s.low_freq_factor = 1, s.high_freq_factor = one_of(random, {4.0, 2.5});
  if (s.type == Type::yarn) {
    s.beta_fast = one_of(random, {32.0, 3.0}), s.beta_slow = one_of(random, {1.0, 0.5});
    s.attention_factor = one_of(random, {yarn_attention_factor(s.factor), 0.9});
  }
  for (int64_t i = 0; s.type == Type::divided && i < head_dim / 2; ++i) s.divisors.push_back(static_cast<float>(1 + 7 * random.uniform()));
  return s;
}

// Biases, QK norms and scaled positions, by a generator of their own: models without them stay what they were.
void add_properties(Random random, bool hf_shape, ModelConfig& c) {
  c.rope_scaling = random_scaling(random, c.head_dim);
  c.qk_norm = chance(random, 0.4);
  c.qkv_bias = chance(random, 0.5);
  c.output_bias = chance(random, 0.5);
  c.mlp_bias = chance(random, 0.3);
  if (!hf_shape) return;
  if (c.qk_norm || !c.qkv_bias) c.output_bias = c.qkv_bias;  // Qwen3's and Llama's; else Qwen2's, or Llama's all the same
  if (c.qk_norm || c.qkv_bias != c.output_bias) c.mlp_bias = false;
}

void add_adapters(Random random, ModelConfig& c) {
  if (chance(random, 0.5)) return;
  for (const char* projection : kProjections)
    if (chance(random, 0.6)) c.adapters.projections.emplace_back(projection);
  if (!c.adapters.projections.empty()) c.adapters.rank = between(random, 1, std::min<int64_t>(9, c.hidden_size));
}

// Every unit with paths of its own, half of them split into parts.
void draw_paths(Random& random, RoutingConfig& r, int64_t width, bool exits) {
  using routing::Part;
  std::vector<routing::RoutedUnit> units;
  const auto add = [&](routing::RoutedUnit unit, Part part) {
    unit.part = part;
    do unit.paths = {.exit = chance(random, 0.3) && exits, .skip = chance(random, 0.6), .light = chance(random, 0.6), .full = chance(random, 0.85)};
    while (!unit.paths.valid());
    if (unit.paths.light) unit.light_rank = between(random, 1, std::min<int64_t>(1 + width / 8, 9));
    if (unit.is_static()) unit.capacity = 0;
    if (unit.paths.light && (unit.paths.skip || unit.paths.exit) && !unit.is_static()) unit.light_capacity = random.uniform() * (1 - unit.capacity);
    if (unit.paths.exit && unit.paths.skip) unit.skip_capacity = random.uniform() * (1 - unit.capacity - unit.light_capacity);
    units.push_back(unit);
  };
  for (const routing::RoutedUnit& unit : r.units) {
    const int64_t parts = between(random, 0, 4);  // a whole block, one of its parts, or both
    if (parts <= 1) add(unit, Part::block);
    if (parts == 2 || parts == 4) add(unit, Part::attention);
    if (parts >= 3) add(unit, Part::mlp);
  }
  r.units = std::move(units);
}

// The greatest rank at which light still costs less than what it stands for (ModelConfig::validate).
void fit_ranks(ModelConfig& c) {
  for (routing::RoutedUnit& unit : c.routing.units)
    for (; unit.light_rank > 1; --unit.light_rank) {
      try {
        c.validate("");
        break;
      } catch (const UserError&) {
      }
    }
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Mean and deviation of a tensor's elements; the reasons are in random_model.h.
std::pair<double, double> distribution(const ModelConfig& config, const TensorSpec& spec) {
  const double fan_in = static_cast<double>(spec.shape.back());
  const double into_stream = 1 / std::sqrt(2.0 * static_cast<double>(config.num_hidden_layers));
  if (ends_with(spec.name, "norm.weight")) return {1, 0.1};
  if (ends_with(spec.name, "embed_tokens.weight")) return {0, 1};
  if (ends_with(spec.name, "o_proj.weight") || ends_with(spec.name, "down_proj.weight") || ends_with(spec.name, "light.up.weight") || ends_with(spec.name, "o_proj.lora_B.weight") || ends_with(spec.name, "down_proj.lora_B.weight"))
    return {0, into_stream / std::sqrt(fan_in)};
  if (ends_with(spec.name, "fc2.weight")) return {0, 2 / std::sqrt(fan_in)};
  if (ends_with(spec.name, "o_proj.bias") || ends_with(spec.name, "down_proj.bias")) return {0, 0.3 * into_stream};
  if (ends_with(spec.name, ".bias")) return {0, 0.3};
  return {0, 1 / std::sqrt(fan_in)};
}

}  // namespace

ModelConfig random_config(Random& random, const RandomLimits& limits) {
  const Random properties(mix64(random.seed() + mix64(random.counter())));
  ModelConfig c;
  c.num_hidden_layers = between(random, 1, limits.max_blocks);
  c.num_attention_heads = between(random, 1, limits.max_heads);
  do c.num_key_value_heads = between(random, 1, c.num_attention_heads);
  while (c.num_attention_heads % c.num_key_value_heads != 0);
  c.head_dim = 2 * between(random, 1, limits.max_head_width / 2);
  c.hidden_size = between(random, 6, limits.max_width);
  if (limits.hf_shape)
    c.hidden_size = std::max<int64_t>(1, c.hidden_size / c.num_attention_heads) * c.num_attention_heads;
  c.intermediate_size = between(random, 3, limits.max_feed_forward);
  c.vocab_size = between(random, 8, limits.max_vocabulary);
  c.max_position_embeddings = between(random, 64, 1024);
  c.rms_norm_eps = one_of(random, {1e-5, 1e-6});
  c.rope_theta = one_of(random, {10000.0, 500.0, 1e6});
  c.tie_word_embeddings = chance(random, 0.5);
  if (chance(random, 0.5)) c.bos_token_id = between(random, 0, c.vocab_size - 1);
  for (int64_t n = between(random, 0, 2); n > 0; --n) c.eos_token_ids.push_back(between(random, 0, c.vocab_size - 1));
  if (chance(random, 0.3)) c.pad_token_id = between(random, 0, c.vocab_size - 1);
  if (!limits.dense) c.routing = random_routing(random, c.num_hidden_layers);
  if (!limits.plain) add_properties(properties, limits.hf_shape, c);
  if (limits.adapters) add_adapters(properties.fork("adapters"), c);
  if (!limits.dense && limits.paths && chance(random, 0.5)) {
    draw_paths(random, c.routing, c.hidden_size, limits.exits);
    fit_ranks(c);
  }
  c.validate("a random configuration");
  return c;
}

Weights random_weights(const ModelConfig& config, uint64_t seed) {
  Weights out;
  for (const TensorSpec& spec : schema(config)) {
    Random random = Random(seed).fork(spec.name);
    const auto [mean, deviation] = distribution(config, spec);
    std::vector<float> values(static_cast<size_t>(spec.elements()));
    for (float& v : values) v = static_cast<float>(mean + deviation * random.normal());
    out.emplace(spec.name, std::move(values));
  }
  return out;
}

std::vector<float> random_thresholds(const ModelConfig& config, Random& random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> out;
  for (const routing::RoutedUnit& unit : config.routing.units) {
    const size_t first = out.size();
    for (size_t cut = 0; cut < unit.cuts(); ++cut) {
      const double kind = random.uniform();
      out.push_back(kind < 0.07 ? -kInfinity : kind < 0.14 ? kInfinity : static_cast<float>(0.8 * random.normal()));
    }
    if (unit.paths.exit) out[first] -= 1.5f;
    std::sort(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
  }
  return out;
}

routing::DialTable random_dial(const ModelConfig& config, Random& random) {
  const size_t cuts = config.routing.cuts();
  const int64_t points = between(random, 2, 5);
  routing::DialTable table;
  table.text = "drawn at random";
  table.tokens = between(random, 1, 1 << 20);
  std::vector<float> thresholds;
  for (const routing::RoutedUnit& unit : config.routing.units) {
    const size_t first = thresholds.size();
    for (size_t cut = 0; cut < unit.cuts(); ++cut) thresholds.push_back(static_cast<float>(1 + 0.5 * random.normal()));
    std::sort(thresholds.begin() + static_cast<std::ptrdiff_t>(first), thresholds.end());
  }
  for (int64_t i = 1; i <= points; ++i) {
    routing::DialPoint point;
    point.dial = i == points ? 1.0 : static_cast<double>(i) / static_cast<double>(points) - 0.1 * random.uniform();
    point.block_fraction = point.dial;
    point.thresholds = thresholds;
    point.capacity.assign(cuts, point.dial);
    point.loss = chance(random, 0.3) ? std::numeric_limits<double>::quiet_NaN() : 5 * random.uniform();
    table.points.push_back(std::move(point));
    size_t cut = 0;
    for (const routing::RoutedUnit& unit : config.routing.units) {
      if (unit.is_static()) continue;
      const float down = static_cast<float>(2 * random.uniform());  // a unit's together: they go on rising
      for (size_t i = 0; i < unit.cuts(); ++i) thresholds[cut++] -= down;
    }
  }
  table.default_dial = table.points[random.below(table.points.size())].dial;
  return table;
}

routing::Decisions random_decisions(const ModelConfig& config, int64_t tokens, Random& random) {
  routing::Decisions out;
  using routing::Path;
  for (const routing::RoutedUnit& unit : config.routing.units) {
    const double share = one_of(random, {0.0, 1.0, random.uniform(), random.uniform(), random.uniform()});
    const double light = !unit.paths.light ? 0 : unit.cheapest() == Path::light ? 1 : random.uniform();  // of the others
    std::vector<uint8_t> run(static_cast<size_t>(tokens));
    for (int64_t t = 0; t < tokens; ++t) {
      const bool full = !unit.is_static() && (chance(random, share) || t < config.routing.forced_positions);
      run[static_cast<size_t>(t)] = static_cast<uint8_t>(full ? Path::full : light > 0 && chance(random, light) ? Path::light : Path::skip);
    }
    out.run.push_back(std::move(run));
  }
  return out;
}

std::vector<int32_t> random_tokens(const ModelConfig& config, int64_t count, Random& random) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  for (int32_t& t : out) t = static_cast<int32_t>(random.below(static_cast<uint64_t>(config.vocab_size)));
  return out;
}

ModelToWrite model_to_write(const ModelConfig& config, Weights weights, uint64_t seed) {
  ModelToWrite out;
  out.config = config;
  out.tensor = [shared = std::make_shared<Weights>(std::move(weights))](const TensorSpec& spec) {
    const auto it = shared->find(spec.name);
    FATHOM_ASSERT(it != shared->end(), spec.name);
    return it->second;
  };
  if (config.routing.decides()) {
    Random random = Random(seed).fork("dial");
    out.dial = random_dial(config, random);
  }
  out.metadata = {{"made_by", "fathom, at random"}};
  return out;
}

}  // namespace fathom::model
