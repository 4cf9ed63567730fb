// The differentiable operators of the network, all over flat rows: N rows (tokens that run, of all sequences), C width,
// H heads, G key/value heads, D head width, F feed-forward width, V vocabulary. x, h: the residual stream in the
// parameters' type (f32; f64 in tests). y, qkv, a, m: activations in the compute type (the same, or bf16).
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <ATen/ATen.h>

#include "model/rope.h"

namespace fathom::nn {

// A low-rank addition to a parameter W [O, I]: W + scale · b · a, never formed in a product (LoRA, Hu et al. 2021).
struct Adapter {
  at::Tensor a, b;  // leaves [r, I], [O, r]; undefined: no adapter
  double scale = 0;
};

// One to three parameters [Oi, I] that are multiplied with as one matrix [O, I]: neighbours in one storage. Its products end in what their biases add.
struct Weight {
  std::vector<at::Tensor> parts;  // leaves; a product for their gradient is computed where one requires it
  std::vector<at::Tensor> biases; // leaves [Oi] of each part, neighbours too; empty: none has one
  std::vector<Adapter> adapters;  // of each part; empty: none has one
  at::Tensor joined;              // [O, I] the same memory, outside the graph
  at::Tensor bias;                // [O] the biases' memory, outside the graph; undefined without
  at::Tensor low;                 // [O, I] bf16 copy, refreshed when one of the parts has changed; else undefined
  uint64_t low_version = 0;       // of the parts, when it was
  const at::Tensor& as(at::ScalarType type) const { return type == at::kBFloat16 ? low : joined; }
  Weight rows(size_t first_part, size_t count) const;  // a part of it as a Weight
  std::vector<at::Tensor> leaves() const;              // parts, biases, then a and b of every adapter that there is
};

// Which keys each query sees: the range [lo, hi) of rows of the key tensor. Causal, packed documents, padding, gathered
// (drop) and keep are all such ranges. Within a sequence both ends never fall.
struct Attention {
  int64_t heads = 0, groups = 0, width = 0;       // H, G, D
  std::vector<int32_t> lo, hi;                    // [Nq]
  std::vector<int64_t> q_begin, k_begin;          // [S + 1] rows of each sequence: no range leaves its sequence
  std::vector<int32_t> q_position, k_position;    // [Nq], [Nk] for RoPE
  at::Tensor cosine, sine;                        // [positions, D / 2] in the parameters' type
};

// cos and sin of position · theta^(−2i/D): f32 as in model/rope.h, f64 for tests in double, of positions that are not scaled.
std::pair<at::Tensor, at::Tensor> rope_table(int64_t positions, int64_t width, double theta, at::ScalarType type, const model::RopeScaling& scaling = {});

// [N, C] rows of `weight` [V, C] for tokens [N] int64.
at::Tensor embed(const at::Tensor& weight, const at::Tensor& tokens);

// h = x + delta (delta undefined: x), y = rms_norm(h) · norm · Wᵀ in `compute`.
struct NormLinear {
  at::Tensor h;  // [N, C]
  at::Tensor y;  // [N, O]
};
NormLinear add_norm_linear(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& norm, double eps, const Weight& w,
                           at::ScalarType compute);

// Rotates queries and keys by their positions and attends. q_rows [Nq, ≥H·D] holds queries first; kv_rows [Nk, 2·G·D] keys then
// values. For q_rows [N, (H + 2G)·D] with kv_rows undefined, keys and values follow the queries. Returns [Nq, H·D].
at::Tensor rope_attention(const at::Tensor& q_rows, const at::Tensor& kv_rows, const std::shared_ptr<const Attention>& attention);

// RMS norm of every head of rows [N, (queries + keys + …)·D]: queries by q_norm [D], keys behind them by k_norm [D]; what follows stays.
at::Tensor norm_heads(const at::Tensor& rows, int64_t queries, int64_t keys, const at::Tensor& q_norm, const at::Tensor& k_norm, double eps);

at::Tensor linear(const at::Tensor& x, const Weight& w);                     // [N, I] → [N, O]
at::Tensor swiglu_linear(const at::Tensor& gate_up, const Weight& w);        // [N, 2F] → [N, O]: (silu(gate) · up) · Wᵀ

// What a teacher says of the next token of every row: the k likeliest and their log-probabilities (natural, the rest of the mass is one bucket), or
// all logits.
struct Teacher {
  at::Tensor ids;              // [N, k] int32, those of a row distinct
  at::Tensor log_probability;  // [N, k]
  at::Tensor logits;           // [N, V] of any floating type, instead of the two
  bool defined() const { return logits.defined() || ids.defined(); }
};

// Means over the targets that count, each by its weight: loss, −log softmax(rms_norm(x + delta) · norm · Wᵀ)[target], and with a teacher the divergence of
// the softmax from it, KL(teacher ‖ softmax) at temperature 1. Logits exist in chunks only, and their gradient is formed in the forward, where the softmax is at
// hand.
struct HeadLoss {
  at::Tensor total;     // scalar f32 (f64): loss_weight · loss + kl_weight · kl
  at::Tensor loss, kl;  // scalars; with a teacher outside the graph, without one there is no kl
  at::Tensor nll;       // [N], outside the graph, unweighted; 0 where ignored
  int64_t targets = 0;
};
struct HeadTerms {
  double loss_weight = 1, kl_weight = 0;
  Teacher teacher = {};
  at::Tensor weights = {};  // [N] of targets; undefined: 1 each
};
HeadLoss head_loss(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& norm, double eps, const Weight& w,
                   const at::Tensor& targets, at::ScalarType compute, const HeadTerms& terms = {});

// The entrance of a routed block. First what its decision needs, outside the graph:
struct ScoredRows {
  at::Tensor x, delta;  // as they came
  at::Tensor h;         // [N, C] x + delta in memory of its own
  at::Tensor score;     // [N] h · w, or of h / rms(h) when `normed`; in the parameters' type always
  at::Tensor rstd;      // [N] 1 / rms(h); undefined when not `normed`
};
ScoredRows score_rows(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& w, bool normed, double eps);
// Then the same inside the graph, with the rows that run gathered (`rows` undefined: none are); from rows beyond the first
// `count` no gradient comes back. One pass over memory brings all three gradients back to x and delta.
struct GatheredRows {
  at::Tensor h;         // [N, C] the memory of scored.h
  at::Tensor score;     // [N]
  at::Tensor gathered;  // [K, C], undefined without `rows`
};
GatheredRows gather_rows(const ScoredRows& scored, const at::Tensor& w, const at::Tensor& rows,  // [K] int64, the first `count` ascending
                         std::optional<int64_t> count = {});                                  // all of them

// x with rows [K] replaced by (x + g·a) + g·m; a, m [≥ K, C] (m undefined: 0), g [K] (undefined: 1 and outside the graph). `in_place`: in the
// memory of x, for an x that nothing else reads any more (GatheredRows::h, whose backward reads gathered rows from `gathered`).
at::Tensor scatter_delta(const at::Tensor& x, const at::Tensor& rows, const at::Tensor& a, const at::Tensor& m, const at::Tensor& g, bool in_place);

}  // namespace fathom::nn
