// The cost model: multiply–adds (MACs), parameters and bytes, exact for given decisions; a test holds it equal to the
// reference kernels' counts, to the integer.
//
// Counted: every matrix product (projections, MLP, head), attention (each query with each key that it may see: D for
// the score and D for the value, per head), routers, predictors. Not counted: norms, RoPE, softmax, activations,
// gates, biases, embedding lookup (all O(C) per token and far below 1 %). FLOPs = 2 · MACs. Training = 3 × forward.
//
// At a routed unit:
//   router      C per token, and with rule "predictor" P·C + P more: paid by every token, at inference too, where only the
//               gate of the rows that run needs r, and by tokens that have exited. The engine computes both for all rows, so
//               that one count holds. A static unit has none.
//   full        attention pays q, o, and sees tokens before it and itself; the MLP pays its three matrices
//   light       2·C·r; skip nothing
//   adapters    r·(in + out) more of each projection that has one, by whoever pays the projection, and by the dense twin
//   kv drop     a token that runs attention pays k and v and is seen by later ones; the others neither
//   kv keep     every token pays k and v and is seen, but in a static unit, where nobody looks
// Sizes whose product passes 2^63 are a UserError.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/kv_type.h"
#include "model/config.h"
#include "routing/decisions.h"

namespace fathom::model {

struct BlockCost {  // MACs
  int64_t attention_linear = 0;  // q, k, v, o projections
  int64_t attention_scores = 0;  // QKᵀ and PV
  int64_t mlp = 0;
  int64_t router = 0;            // paid by every token
  int64_t predictor = 0;         // of rule "predictor", paid by every token
  int64_t light = 0;             // low-rank maps of tokens that take the light path
  int64_t total() const { return attention_linear + attention_scores + mlp + router + predictor + light; }
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

// One document of T tokens from position 0 under given decisions (run[u][t] of each unit). `head_rows`: how
// many rows the head computes (all T in training and evaluation, 1 for a prompt).
ForwardCost forward_cost(const ModelConfig& config, int64_t tokens, const routing::Decisions& decisions, int64_t head_rows);
// Every token in full, routers not paid: the dense twin of the same shape.
ForwardCost dense_cost(const ModelConfig& config, int64_t tokens, int64_t head_rows);
// Under top-k with the config's capacities (or those given, per cut): exact counts, since K is fixed, for the linear parts;
// attention by the expectation for kv keep (queries spread evenly, rounded down), exact for kv drop. Tokens that exit are
// in the capacities.
ForwardCost topk_cost(const ModelConfig& config, int64_t tokens, int64_t head_rows, std::span<const double> capacity = {});

// Training FLOPs of one row of T tokens (3 × 2 × MACs).
double train_flops_per_row(const ModelConfig& config, int64_t tokens, std::span<const double> capacity = {});

// Of costs summed over documents: `dense` is the sum of dense_cost over the same ones.
double block_fraction(const ForwardCost& cost, const ForwardCost& dense);
double total_fraction(const ForwardCost& cost, const ForwardCost& dense);
// Of one document.
double block_fraction(const ModelConfig& config, const ForwardCost& cost, int64_t tokens);
double total_fraction(const ModelConfig& config, const ForwardCost& cost, int64_t tokens, int64_t head_rows);

// Expected block fraction at context `tokens` for capacities per cut (for the dial), each in [0, 1]: as
// topk_cost, but with K = capacity · T not rounded up, so that it rises with every capacity of full, and of light beside skip.
double expected_block_fraction(const ModelConfig& config, int64_t tokens, std::span<const double> capacity);

// The same as a polynomial of the capacities c, for who wants its derivative: fixed + Σ over cuts of linear·c + square·c². A square is there
// with kv drop alone, where tokens that run attention see each other and nobody else.
struct BlockFractionTerms {
  double fixed = 0;
  std::vector<double> linear, square;  // [cuts]
  double at(std::span<const double> capacity) const;
};
BlockFractionTerms block_fraction_terms(const ModelConfig& config, int64_t tokens);

struct Parameters {
  int64_t embedding = 0, routers = 0, predictors = 0, norms = 0, head = 0;  // head 0 when tied
  int64_t blocks = 0;  // projections and MLPs, with their biases
  int64_t light = 0;
  int64_t total() const { return embedding + blocks + light + routers + predictors + norms + head; }
};
Parameters parameters(const ModelConfig& config);

// Bytes moved to decode one token at batch 1 with `context` tokens before it, expected at the given capacities:
// weights of what runs (expectation), routers always, head, final norm and one row of the embedding; KV read (by
// a token that runs: of the tokens before it that have a slot) and written. Empty `capacity`: the config's.
struct BlockBytes {
  double weights = 0;              // projections and MLP with their biases, norms
  double light = 0;
  double router = 0, predictor = 0;
  double kv_read = 0, kv_write = 0;
};
struct DecodeBytes {
  std::vector<BlockBytes> blocks;  // [L]
  double head = 0;                 // with the final norm and the row of the embedding
  double weights() const;          // head, blocks, light paths, routers and predictors
  double kv_read() const, kv_write() const;
  double total() const { return weights() + kv_read() + kv_write(); }
};
// Bytes of a weight in memory, on average: of the blocks' matrices, of the head (and the embedding); everything else is f32.
struct WeightBytes {
  double blocks = 4, head = 4;
};
DecodeBytes decode_bytes(const ModelConfig& config, int64_t context, std::span<const double> capacity,
                         const WeightBytes& weight = {}, KvType kv = KvType::f32);
int64_t kv_bytes_per_token_and_block(const ModelConfig& config, KvType kv = KvType::f32);  // 2·G keys and values of D numbers

}  // namespace fathom::model
