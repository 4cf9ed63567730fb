#include "model/cost.h"

#include <algorithm>
#include <cmath>

#include "core/limits.h"
#include "routing/select.h"

namespace fathom::model {
namespace {

using routing::CausalRule;
using routing::KvPolicy;

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
  int64_t qo, kv, mlp;   // the projections and the MLP
  int64_t pair;          // one query with one key: QKᵀ and PV over all heads
  int64_t router, predictor;
};

PerToken per_token(const ModelConfig& c) {
  const int64_t C = c.hidden_size, HD = c.num_attention_heads * c.head_dim, GD = c.num_key_value_heads * c.head_dim;
  const int64_t P = c.predictor_width();
  return {2 * C * HD, 2 * C * GD, 3 * C * c.intermediate_size, 2 * HD,
          C, c.routing.rule == CausalRule::predictor ? P * C + P : 0};
}

int64_t pairs(int64_t tokens) { return checked(static_cast<__int128>(tokens) * (tokens + 1) / 2); }

BlockCost full_block(const PerToken& m, int64_t tokens) {
  return {product(m.qo + m.kv, tokens), product(m.pair, pairs(tokens)), product(m.mlp, tokens), 0, 0};
}

BlockCost routed_block(const PerToken& m, KvPolicy kv, int64_t tokens, int64_t running, int64_t seen) {
  return {sum(product(m.qo, running), product(m.kv, kv == KvPolicy::keep ? tokens : running)), product(m.pair, seen),
          product(m.mlp, running), product(m.router, tokens), product(m.predictor, tokens)};
}

int64_t head_cost(const ModelConfig& c, int64_t rows) { return product(c.vocab_size, c.hidden_size, rows); }

std::vector<double> capacities(const ModelConfig& config, std::span<const double> given) {
  if (!given.empty()) {
    FATHOM_ASSERT(given.size() == config.routing.blocks.size(), given.size(), " capacities");
    return {given.begin(), given.end()};
  }
  std::vector<double> out;
  for (const auto& block : config.routing.blocks) out.push_back(block.capacity);
  return out;
}

}  // namespace

int64_t ForwardCost::blocks_total() const {
  int64_t out = 0;
  for (const BlockCost& b : blocks)
    for (int64_t part : {b.attention_linear, b.attention_scores, b.mlp, b.router, b.predictor}) out = sum(out, part);
  return out;
}

ForwardCost& ForwardCost::operator+=(const ForwardCost& other) {
  if (blocks.empty()) blocks.resize(other.blocks.size());
  FATHOM_ASSERT(blocks.size() == other.blocks.size(), "costs of two models");
  for (size_t i = 0; i < blocks.size(); ++i) {
    BlockCost& a = blocks[i];
    const BlockCost& b = other.blocks[i];
    a = {sum(a.attention_linear, b.attention_linear), sum(a.attention_scores, b.attention_scores), sum(a.mlp, b.mlp),
         sum(a.router, b.router), sum(a.predictor, b.predictor)};
  }
  head = sum(head, other.head);
  return *this;
}

ForwardCost forward_cost(const ModelConfig& config, int64_t tokens, const routing::Decisions& decisions, int64_t head_rows) {
  FATHOM_ASSERT(decisions.run.size() == config.routing.blocks.size(), decisions.run.size(), " rows of decisions");
  const PerToken m = per_token(config);
  ForwardCost out;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const int r = config.routing.routed_index(static_cast<int>(block));
    if (r < 0) {
      out.blocks.push_back(full_block(m, tokens));
      continue;
    }
    const std::vector<uint8_t>& run = decisions.run[static_cast<size_t>(r)];
    FATHOM_ASSERT(static_cast<int64_t>(run.size()) == tokens, run.size(), " decisions for ", tokens, " tokens");
    int64_t running = 0, seen = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      if (!run[static_cast<size_t>(t)]) continue;
      ++running;
      seen += config.routing.kv == KvPolicy::keep ? t + 1 : running;
    }
    out.blocks.push_back(routed_block(m, config.routing.kv, tokens, running, seen));
  }
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
  ForwardCost out = dense_cost(config, tokens, head_rows);
  for (size_t r = 0; r < c.size(); ++r) {
    const int64_t running = routing::selected_count(c[r], tokens);
    // A query at a position drawn evenly sees (T + 1) / 2 keys.
    const int64_t seen = config.routing.kv == KvPolicy::keep ? checked(static_cast<__int128>(running) * (tokens + 1) / 2) : pairs(running);
    out.blocks[static_cast<size_t>(config.routing.blocks[r].block)] = routed_block(m, config.routing.kv, tokens, running, seen);
  }
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
  const double linear = static_cast<double>(m.qo + m.mlp), kv = static_cast<double>(m.kv), pair = static_cast<double>(m.pair);
  const double full = T * (linear + kv) + pair * T * (T + 1) / 2;
  const bool keep = config.routing.kv == KvPolicy::keep;
  const std::vector<double> shares = capacities(config, capacity);
  double cost = full * static_cast<double>(config.num_hidden_layers - static_cast<int64_t>(shares.size()));
  for (double c : shares) {
    const double K = c * T;
    cost += K * linear + (keep ? T : K) * kv + pair * K * ((keep ? T : K) + 1) / 2 + T * static_cast<double>(m.router + m.predictor);
  }
  return cost / (full * static_cast<double>(config.num_hidden_layers));
}

Parameters parameters(const ModelConfig& config) {
  const int64_t C = config.hidden_size, L = config.num_hidden_layers, P = config.predictor_width();
  const int64_t routed = static_cast<int64_t>(config.routing.blocks.size());
  const PerToken m = per_token(config);
  Parameters out;
  out.embedding = config.vocab_size * C;
  out.blocks = L * (m.qo + m.kv + m.mlp);  // a weight is one multiply–add per token
  out.routers = routed * (C + (config.routing.router_bias ? 1 : 0));
  if (config.routing.rule == CausalRule::predictor) out.predictors = routed * (P * C + P + P + 1);
  out.norms = (2 * L + 1) * C;
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
  return head + over_blocks(*this, &BlockBytes::weights) + over_blocks(*this, &BlockBytes::router) + over_blocks(*this, &BlockBytes::predictor);
}
double DecodeBytes::kv_read() const { return over_blocks(*this, &BlockBytes::kv_read); }
double DecodeBytes::kv_write() const { return over_blocks(*this, &BlockBytes::kv_write); }

DecodeBytes decode_bytes(const ModelConfig& config, int64_t context, std::span<const double> capacity, const WeightBytes& weight, KvType kv_type) {
  const PerToken m = per_token(config);
  const double C = static_cast<double>(config.hidden_size), V = static_cast<double>(config.vocab_size);
  const double linear = static_cast<double>(m.qo + m.mlp), kv = static_cast<double>(m.kv);
  const double slot = static_cast<double>(kv_bytes_per_token_and_block(config, kv_type));
  const bool keep = config.routing.kv == KvPolicy::keep;
  const std::vector<double> shares = capacities(config, capacity);
  const Parameters p = parameters(config);
  constexpr double kOther = 4;  // norms, routers and predictors
  // All routed blocks have routers and predictors of one shape.
  const double routed = static_cast<double>(std::max<size_t>(shares.size(), 1));
  const double router = kOther * static_cast<double>(p.routers) / routed, predictor = kOther * static_cast<double>(p.predictors) / routed;
  DecodeBytes out;
  out.head = weight.head * (V * C + C) + kOther * C;  // the head and the token's row of the embedding, the final norm
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const int r = config.routing.routed_index(static_cast<int>(block));
    const double share = r < 0 ? 1.0 : shares[static_cast<size_t>(r)];
    const double stored = keep ? 1.0 : share;  // of the tokens before this one, and of this one
    BlockBytes b;
    b.weights = weight.blocks * (share * linear + stored * kv) + kOther * (share + stored) * C;
    if (r >= 0) b.router = router, b.predictor = predictor;
    b.kv_read = slot * share * stored * static_cast<double>(context);
    b.kv_write = slot * stored;
    out.blocks.push_back(b);
  }
  return out;
}

int64_t kv_bytes_per_token_and_block(const ModelConfig& config, KvType kv) {
  return 2 * config.num_key_value_heads * kv_bytes(kv, config.head_dim);
}

}  // namespace fathom::model
