#include "model/cost.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/limits.h"
#include "routing/select.h"

namespace fathom::model {
namespace {

using routing::CausalRule;
using routing::KvPolicy;
using routing::Part;
using routing::Path;
using routing::RoutedUnit;

// Sizes come from files and flags, so a product may pass 2^63 where no single size is beyond its bound.
int64_t checked(__int128 value) {
  if (value > INT64_MAX)
    throw UserError({"cost model", "", "more than 2^63 multiply-adds", "a smaller model or a shorter text", ""});
  return static_cast<int64_t>(value);
}

template <class... Sizes>
int64_t product(Sizes... sizes) {
  int64_t out = 1;
  ((out = checked(static_cast<__int128>(out) * sizes)), ...);
  return out;
}

int64_t sum(int64_t a, int64_t b) { return checked(static_cast<__int128>(a) + b); }

// MACs of one token, by what has to happen for them to be spent.
struct PerToken {
  int64_t qo, kv, mlp;   // the projections and the MLP, with their adapters
  int64_t pair;          // one query with one key: QKᵀ and PV over all heads
  int64_t router, predictor;
};

PerToken per_token(const ModelConfig& c) {
  const int64_t C = c.hidden_size, HD = c.num_attention_heads * c.head_dim, GD = c.num_key_value_heads * c.head_dim;
  const int64_t P = c.predictor_width(), F = c.intermediate_size;
  const auto adapter = [&](const char* projection, int64_t in, int64_t out) { return c.adapters.on(projection) ? c.adapters.rank * (in + out) : 0; };
  return {2 * C * HD + adapter("q", C, HD) + adapter("o", HD, C), 2 * C * GD + adapter("k", C, GD) + adapter("v", C, GD),
          3 * C * F + adapter("gate", C, F) + adapter("up", C, F) + adapter("down", F, C), 2 * HD,
          C, c.routing.rule == CausalRule::predictor ? P * C + P : 0};
}

// Elements of a block's vectors, by which rows read them: norms and biases.
struct Vectors {
  int64_t kv_norms, kv_biases;  // for rows whose keys and values are written
  int64_t q_norms, q_biases;    // besides, for rows that run attention
  int64_t mlp_norms, mlp_biases;
  int64_t norms() const { return kv_norms + q_norms + mlp_norms; }
  int64_t biases() const { return kv_biases + q_biases + mlp_biases; }
};

Vectors vectors(const ModelConfig& c) {
  const int64_t C = c.hidden_size, HD = c.num_attention_heads * c.head_dim, GD = c.num_key_value_heads * c.head_dim, F = c.intermediate_size;
  const int64_t qk_norm = c.qk_norm ? c.head_dim : 0;
  return {C + qk_norm, c.qkv_bias ? 2 * GD : 0, qk_norm, (c.qkv_bias ? HD : 0) + (c.output_bias ? C : 0), C, c.mlp_bias ? 2 * F + C : 0};
}

int64_t light_per_token(const ModelConfig& c, const RoutedUnit& unit) { return 2 * c.hidden_size * unit.light_rank; }

int64_t pairs(int64_t tokens) { return checked(static_cast<__int128>(tokens) * (tokens + 1) / 2); }

BlockCost full_block(const PerToken& m, int64_t tokens) {
  return {product(m.qo + m.kv, tokens), product(m.pair, pairs(tokens)), product(m.mlp, tokens), 0, 0, 0};
}

// Of a block with units: `running` and `light` are asked for tokens of a unit, `seen` for the keys that so many running see.
BlockCost routed_block(const ModelConfig& c, const PerToken& m, int64_t block, int64_t tokens, const std::function<int64_t(size_t)>& running,
                       const std::function<int64_t(size_t)>& light, const std::function<int64_t(size_t)>& seen) {
  BlockCost out = full_block(m, tokens);
  const auto [first, last] = c.routing.units_of(block);
  for (size_t u = first; u < last; ++u) {
    const RoutedUnit& unit = c.routing.units[u];
    const int64_t run = unit.is_static() ? 0 : running(u);
    if (unit.covers(Part::attention)) {
      const bool all_write = c.routing.kv == KvPolicy::keep && !unit.is_static();
      out.attention_linear = sum(product(m.qo, run), product(m.kv, all_write ? tokens : run));
      out.attention_scores = unit.is_static() ? 0 : product(m.pair, seen(u));
    }
    if (unit.covers(Part::mlp)) out.mlp = product(m.mlp, run);
    if (unit.paths.light) out.light = sum(out.light, product(light_per_token(c, unit), light(u)));
    if (unit.is_static()) continue;
    out.router = sum(out.router, product(m.router, tokens));
    out.predictor = sum(out.predictor, product(m.predictor, tokens));
  }
  return out;
}

int64_t head_cost(const ModelConfig& c, int64_t rows) { return product(c.vocab_size, c.hidden_size, rows); }

std::vector<double> capacities(const ModelConfig& config, std::span<const double> given) {
  if (given.empty()) return config.routing.capacities();
  FATHOM_ASSERT(given.size() == config.routing.cuts(), given.size(), " capacities");
  return {given.begin(), given.end()};
}

}  // namespace

int64_t ForwardCost::blocks_total() const {
  int64_t out = 0;
  for (const BlockCost& b : blocks)
    for (int64_t part : {b.attention_linear, b.attention_scores, b.mlp, b.router, b.predictor, b.light}) out = sum(out, part);
  return out;
}

ForwardCost& ForwardCost::operator+=(const ForwardCost& other) {
  if (blocks.empty()) blocks.resize(other.blocks.size());
  FATHOM_ASSERT(blocks.size() == other.blocks.size(), "costs of two models");
  for (size_t i = 0; i < blocks.size(); ++i) {
    BlockCost& a = blocks[i];
    const BlockCost& b = other.blocks[i];
    a = {sum(a.attention_linear, b.attention_linear), sum(a.attention_scores, b.attention_scores), sum(a.mlp, b.mlp),
         sum(a.router, b.router), sum(a.predictor, b.predictor), sum(a.light, b.light)};
  }
  head = sum(head, other.head);
  return *this;
}

ForwardCost forward_cost(const ModelConfig& config, int64_t tokens, const routing::Decisions& decisions, int64_t head_rows) {
  const routing::RoutingConfig& routing = config.routing;
  FATHOM_ASSERT(decisions.run.size() == routing.units.size(), decisions.run.size(), " rows of decisions");
  for (const std::vector<uint8_t>& run : decisions.run)
    FATHOM_ASSERT(static_cast<int64_t>(run.size()) == tokens, run.size(), " decisions for ", tokens, " tokens");
  const auto count = [&](size_t u, Path path) { return std::ranges::count(decisions.run[u], static_cast<uint8_t>(path)); };
  const auto seen = [&](size_t u) {
    int64_t running = 0, out = 0;
    for (int64_t t = 0; t < tokens; ++t)
      if (decisions.run[u][static_cast<size_t>(t)] == static_cast<uint8_t>(Path::full)) out += routing.kv == KvPolicy::keep ? t + 1 : ++running;
    return out;
  };
  const PerToken m = per_token(config);
  ForwardCost out;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block)
    out.blocks.push_back(routed_block(config, m, block, tokens, [&](size_t u) { return count(u, Path::full); },
                                      [&](size_t u) { return count(u, Path::light); }, seen));
  out.head = head_cost(config, head_rows);
  return out;
}

ForwardCost dense_cost(const ModelConfig& config, int64_t tokens, int64_t head_rows) {
  ForwardCost out;
  out.blocks.assign(static_cast<size_t>(config.num_hidden_layers), full_block(per_token(config), tokens));
  out.head = head_cost(config, head_rows);
  return out;
}

ForwardCost topk_cost(const ModelConfig& config, int64_t tokens, int64_t head_rows, std::span<const double> capacity) {
  const PerToken m = per_token(config);
  const std::vector<double> c = capacities(config, capacity);
  const auto running = [&](size_t u) { return routing::selected_count(config.routing.shares(u, c).full, tokens); };
  const auto light = [&](size_t u) {
    const auto [full, more] = config.routing.shares(u, c);
    return routing::selected_count(std::min(1.0, full + more), tokens) - routing::selected_count(full, tokens);
  };
  const auto seen = [&](size_t u) {
    const int64_t K = running(u);
    // A query at a position drawn evenly sees (T + 1) / 2 keys.
    return config.routing.kv == KvPolicy::keep ? checked(static_cast<__int128>(K) * (tokens + 1) / 2) : pairs(K);
  };
  ForwardCost out;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block)
    out.blocks.push_back(routed_block(config, m, block, tokens, running, light, seen));
  out.head = head_cost(config, head_rows);
  return out;
}

double train_flops_per_row(const ModelConfig& config, int64_t tokens, std::span<const double> capacity) {
  return 3 * topk_cost(config, tokens, tokens, capacity).flops();
}

double block_fraction(const ForwardCost& cost, const ForwardCost& dense) {
  return static_cast<double>(cost.blocks_total()) / static_cast<double>(dense.blocks_total());
}

double total_fraction(const ForwardCost& cost, const ForwardCost& dense) {
  return static_cast<double>(cost.total()) / static_cast<double>(dense.total());
}

double block_fraction(const ModelConfig& config, const ForwardCost& cost, int64_t tokens) {
  return block_fraction(cost, dense_cost(config, tokens, 0));
}

double total_fraction(const ModelConfig& config, const ForwardCost& cost, int64_t tokens, int64_t head_rows) {
  return total_fraction(cost, dense_cost(config, tokens, head_rows));
}

double expected_block_fraction(const ModelConfig& config, int64_t tokens, std::span<const double> capacity) {
  const PerToken m = per_token(config);
  const double T = static_cast<double>(tokens);
  const double qo = static_cast<double>(m.qo), kv = static_cast<double>(m.kv), mlp = static_cast<double>(m.mlp), pair = static_cast<double>(m.pair);
  const double attention = T * (qo + kv) + pair * T * (T + 1) / 2, full = attention + T * mlp;
  const bool keep = config.routing.kv == KvPolicy::keep;
  const std::vector<double> c = capacities(config, capacity);
  double cost = full * static_cast<double>(config.num_hidden_layers);
  for (size_t u = 0; u < config.routing.units.size(); ++u) {
    const RoutedUnit& unit = config.routing.units[u];
    const auto [share, light] = config.routing.shares(u, c);
    const double K = share * T;
    if (unit.covers(Part::attention))
      cost += K * qo + (keep && !unit.is_static() ? T : K) * kv + pair * K * ((keep ? T : K) + 1) / 2 - attention;
    if (unit.covers(Part::mlp)) cost += K * mlp - T * mlp;
    cost += light * T * static_cast<double>(light_per_token(config, unit));
    if (!unit.is_static()) cost += T * static_cast<double>(m.router + m.predictor);
  }
  return cost / (full * static_cast<double>(config.num_hidden_layers));
}

double BlockFractionTerms::at(std::span<const double> capacity) const {
  FATHOM_ASSERT(capacity.size() == linear.size(), capacity.size(), " capacities");
  double out = fixed;
  for (size_t cut = 0; cut < linear.size(); ++cut) out += capacity[cut] * (linear[cut] + square[cut] * capacity[cut]);
  return out;
}

BlockFractionTerms block_fraction_terms(const ModelConfig& config, int64_t tokens) {
  const routing::RoutingConfig& routing = config.routing;
  const PerToken m = per_token(config);
  const double T = static_cast<double>(tokens), qo = static_cast<double>(m.qo), kv = static_cast<double>(m.kv), mlp = static_cast<double>(m.mlp);
  const double pair = static_cast<double>(m.pair), attention = qo + kv + pair * (T + 1) / 2;  // of a token that runs, among all
  const double whole = static_cast<double>(config.num_hidden_layers) * (attention + mlp);
  BlockFractionTerms out{.fixed = 1, .linear = std::vector<double>(routing.cuts()), .square = std::vector<double>(routing.cuts())};
  for (size_t u = 0; u < routing.units.size(); ++u) {
    const RoutedUnit& unit = routing.units[u];
    double none = 0, full = 0, square = 0;  // what the unit costs a token when nobody runs it, and per share of those who do
    if (unit.covers(Part::attention)) {
      none -= attention;
      if (!unit.is_static() && routing.kv == KvPolicy::keep) none += kv, full += attention - kv;
      if (!unit.is_static() && routing.kv == KvPolicy::drop) full += qo + kv + pair / 2, square = pair * T / 2;
    }
    if (unit.covers(Part::mlp)) none -= mlp, full += mlp;
    if (!unit.is_static()) none += static_cast<double>(m.router + m.predictor);
    const double light = unit.paths.light ? static_cast<double>(light_per_token(config, unit)) : 0;
    const bool light_from_first_cut = unit.paths.light && unit.cheapest() != Path::light;
    if (!light_from_first_cut) none += light;  // of everybody, less those who run in full
    out.fixed += none / whole;
    if (unit.is_static()) continue;
    const size_t cut = routing.full_cut(u);
    out.linear[cut] = (full - light) / whole;
    out.square[cut] = square / whole;
    if (light_from_first_cut) out.linear[cut - 1] = light / whole;
  }
  return out;
}

Parameters parameters(const ModelConfig& config) {
  const int64_t C = config.hidden_size, L = config.num_hidden_layers, P = config.predictor_width();
  const PerToken m = per_token(config);
  const Vectors v = vectors(config);
  Parameters out;
  out.embedding = config.vocab_size * C;
  out.blocks = L * (m.qo + m.kv + m.mlp + v.biases());  // a weight is one multiply–add per token
  out.norms = L * v.norms() + C;
  for (const RoutedUnit& unit : config.routing.units) {
    out.light += light_per_token(config, unit);
    if (!unit.is_static()) {
      out.routers += C + (config.routing.router_bias ? 1 : 0);
      if (config.routing.rule == CausalRule::predictor) out.predictors += P * C + P + P + 1;
      continue;
    }
    if (unit.covers(Part::attention)) out.blocks -= m.qo + m.kv + v.kv_biases + v.q_biases, out.norms -= v.kv_norms + v.q_norms;
    if (unit.covers(Part::mlp)) out.blocks -= m.mlp + v.mlp_biases, out.norms -= v.mlp_norms;
  }
  out.head = config.tie_word_embeddings ? 0 : config.vocab_size * C;
  return out;
}

namespace {

double over_blocks(const DecodeBytes& bytes, double BlockBytes::*part) {
  double out = 0;
  for (const BlockBytes& b : bytes.blocks) out += b.*part;
  return out;
}

}  // namespace

double DecodeBytes::weights() const {
  return head + over_blocks(*this, &BlockBytes::weights) + over_blocks(*this, &BlockBytes::light) + over_blocks(*this, &BlockBytes::router) + over_blocks(*this, &BlockBytes::predictor);
}
double DecodeBytes::kv_read() const { return over_blocks(*this, &BlockBytes::kv_read); }
double DecodeBytes::kv_write() const { return over_blocks(*this, &BlockBytes::kv_write); }

DecodeBytes decode_bytes(const ModelConfig& config, int64_t context, std::span<const double> capacity, const WeightBytes& weight, KvType kv_type) {
  const PerToken m = per_token(config);
  const double C = static_cast<double>(config.hidden_size), V = static_cast<double>(config.vocab_size), P = static_cast<double>(config.predictor_width());
  const double qo = static_cast<double>(m.qo), kv = static_cast<double>(m.kv), mlp = static_cast<double>(m.mlp);
  const double slot = static_cast<double>(kv_bytes_per_token_and_block(config, kv_type));
  const bool keep = config.routing.kv == KvPolicy::keep;
  const std::vector<double> c = capacities(config, capacity);
  const Vectors v = vectors(config);
  const double kv_vectors = static_cast<double>(v.kv_norms + v.kv_biases), q_vectors = static_cast<double>(v.q_norms + v.q_biases);
  const double mlp_vectors = static_cast<double>(v.mlp_norms + v.mlp_biases);
  constexpr double kOther = 4;  // norms, biases, routers and predictors
  DecodeBytes out;
  out.head = weight.head * (V * C + C) + kOther * C;  // the head and the token's row of the embedding, the final norm
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    double attends = 1, stored = 1, feeds = 1;  // share that runs attention; that has a slot, of the tokens before this one, and of this one; that runs the MLP
    BlockBytes b;
    const auto [first, last] = config.routing.units_of(block);
    for (size_t u = first; u < last; ++u) {
      const RoutedUnit& unit = config.routing.units[u];
      const auto [full, light] = config.routing.shares(u, c);
      if (unit.covers(Part::attention)) attends = full, stored = keep && !unit.is_static() ? 1.0 : full;
      if (unit.covers(Part::mlp)) feeds = full;
      b.light += weight.blocks * light * static_cast<double>(light_per_token(config, unit));
      if (unit.is_static()) continue;
      b.router += kOther * (C + (config.routing.router_bias ? 1 : 0));
      if (config.routing.rule == CausalRule::predictor) b.predictor += kOther * (P * C + P + P + 1);
    }
    b.weights = weight.blocks * (attends * qo + stored * kv + feeds * mlp) + kOther * (stored * kv_vectors + attends * q_vectors + feeds * mlp_vectors);
    b.kv_read = slot * attends * stored * static_cast<double>(context);
    b.kv_write = slot * stored;
    out.blocks.push_back(b);
  }
  return out;
}

int64_t kv_bytes_per_token_and_block(const ModelConfig& config, KvType kv) {
  return 2 * config.num_key_value_heads * kv_bytes(kv, config.head_dim);
}

}  // namespace fathom::model
