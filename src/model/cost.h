// The cost model: multiply–adds (MACs), parameters and bytes, exact for given decisions; a test holds it equal to the
// reference kernels' counts, to the integer.
//
// Counted: every matrix product (projections, MLP, head), attention (each query with each key that it may see: D for
// the score and D for the value, per head), routers, predictors. Not counted: norms, RoPE, softmax, activations,
// gates, embedding lookup (all O(C) per token and far below 1 %). FLOPs = 2 · MACs. Training = 3 × forward.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"
#include "routing/decisions.h"

namespace fathom::model {

struct BlockCost {  // MACs
  int64_t attention_linear = 0;  // q, k, v, o projections
  int64_t attention_scores = 0;  // QKᵀ and PV
  int64_t mlp = 0;
  int64_t router = 0;            // router and predictor, paid by every token
  int64_t total() const { return attention_linear + attention_scores + mlp + router; }
  bool operator==(const BlockCost&) const = default;
};

struct ForwardCost {
  std::vector<BlockCost> blocks;  // [L]
  int64_t head = 0;               // MACs of the output projection
  int64_t blocks_total() const;
  int64_t total() const { return blocks_total() + head; }
  double flops() const { return 2.0 * static_cast<double>(total()); }
  ForwardCost& operator+=(const ForwardCost& other);
};

// One document of T tokens from position 0 under given decisions (run[r][t] of each routed block). `head_rows`: how
// many rows the head computes (all T in training and evaluation, 1 for a prompt).
ForwardCost forward_cost(const ModelConfig& config, int64_t tokens, const routing::Decisions& decisions, int64_t head_rows);
// Every token in full, routers not paid: the dense twin of the same shape.
ForwardCost dense_cost(const ModelConfig& config, int64_t tokens, int64_t head_rows);
// Under top-k with the config's capacities (or those given): exact counts, since K is fixed, for the linear parts;
// attention by the expectation for kv keep (queries spread evenly), exact for kv drop.
ForwardCost topk_cost(const ModelConfig& config, int64_t tokens, int64_t head_rows, std::span<const double> capacity = {});

// Training FLOPs of one row of T tokens (3 × 2 × MACs).
double train_flops_per_row(const ModelConfig& config, int64_t tokens, std::span<const double> capacity = {});

double block_fraction(const ModelConfig& config, const ForwardCost& cost, int64_t tokens);
double total_fraction(const ModelConfig& config, const ForwardCost& cost, int64_t tokens, int64_t head_rows);

// Expected block fraction at context `tokens` for capacities per routed block (for the dial).
double expected_block_fraction(const ModelConfig& config, int64_t tokens, std::span<const double> capacity);

struct Parameters {
  int64_t embedding = 0, blocks = 0, routers = 0, predictors = 0, norms = 0, head = 0;  // head 0 when tied
  int64_t total() const { return embedding + blocks + routers + predictors + norms + head; }
};
Parameters parameters(const ModelConfig& config);

// Bytes moved to decode one token at batch 1 with `context` tokens before it, expected at the given capacities:
// weights of blocks that run (expectation), routers always, head and final norm; KV read and written.
struct DecodeBytes {
  double weights = 0, kv_read = 0, kv_write = 0;
  double total() const { return weights + kv_read + kv_write; }
};
DecodeBytes decode_bytes(const ModelConfig& config, int64_t context, std::span<const double> capacity,
                         double bytes_per_weight = 4, double bytes_per_kv = 4);
int64_t kv_bytes_per_token_and_block(const ModelConfig& config, int64_t bytes_per_kv = 4);  // 2·G·D·bytes

}  // namespace fathom::model
