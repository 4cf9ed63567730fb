// What one step works on: its rows and the scratch memory that steps share. Internal to the engine.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "core/thread_pool.h"
#include "infer/forward.h"
#include "infer/rope.h"
#include "kernels/buffer.h"
#include "kernels/kernels.h"

namespace fathom::infer {

struct Row {
  uint32_t item = 0;
  Sequence* sequence = nullptr;
  int64_t position = 0;
};

struct Step {
  Step(const Weights& weights, const kernels::Kernels& kernels, ThreadPool& threads, PagePool& pool)
      : weights(weights), config(weights.config()), kernels(kernels), threads(threads), pool(pool),
        rope(config.head_dim, config.rope_theta, config.rope_scaling) {}

  const Weights& weights;
  const model::ModelConfig& config;
  const kernels::Kernels& kernels;
  ThreadPool& threads;
  PagePool& pool;
  RopeTable rope;

  std::span<const WorkItem> items;
  std::vector<Row> rows;               // [N], item after item, positions ascending in each
  kernels::Buffer x;                   // [N, C] the residual stream
  std::vector<uint8_t> exited;         // [N] 1: no further unit in full
  int64_t weight_bytes = 0;            // of the matrices that products read so far

  // Of the block at hand: its rows, ascending, and the factors on their deltas (empty: 1 everywhere)
  std::vector<int64_t> running;        // [M] that run its attention in full
  std::vector<float> gate;             // [M]
  std::vector<int64_t> light;          // that take the light path of its attention, or of the whole block
  std::vector<int64_t> mlp_running;    // [M'] that run its MLP in full
  std::vector<float> mlp_gate;         // [M']
  std::vector<int64_t> mlp_light;
  const UnitWeights* light_weights = nullptr;      // of `light`
  const UnitWeights* mlp_light_weights = nullptr;  // of `mlp_light`
  bool whole = false;                  // one unit is the whole block: the MLP's input is x + a, whatever the gate
  std::vector<float> router_score;     // [N] r, of the unit at hand
  std::vector<float> score;            // [N] decision scores; 0 in a static unit

  // Scratch, each as large as the largest step so far needed
  kernels::Buffer normed;              // [N, C]
  kernels::Buffer normed_running;      // [M, C]
  kernels::Buffer q;                   // [M, H·D], then attention's output
  kernels::Buffer k, v;                // [M or N, G·D]
  kernels::Buffer delta;               // [M, C] of attention, MLP or a light path
  kernels::Buffer hidden;              // [M, C] x + a, where the gate is not 1
  kernels::Buffer gate_up;             // [2, M', F]
  kernels::Buffer low;                 // [rows, r] of a light path
  kernels::Buffer adapter_low;         // [jobs of one set, rows, r] A x
  kernels::Buffer adapter_delta;       // [jobs of one set, rows, out] B (A x)
  kernels::Buffer router;              // [N, C + P] inputs and predictor's hidden layer
  kernels::Buffer head;                // [rows of the head, C]
  kernels::Buffer operands[4];         // inputs as products read them: two of one set of jobs at most, each in two forms at most
  kernels::Buffer logits;              // [tile of rows, V] that only a loss needs
  std::vector<int64_t> slots;          // of the rows that write keys and values
  std::vector<int64_t> visible;        // [M] slots that a running row sees
  std::vector<const uint8_t*> pages;   // of the sequences at hand
  std::vector<float*> heads;           // [M·H] queries, those of a key/value head of an item side by side
  std::vector<int64_t> head_visible;   // [M·H] slots that they see
  kernels::Buffer scores;              // of long texts whose attention threads share

  // Since the engine was made
  double attention_seconds = 0;
  int64_t attention_bytes = 0;         // keys and values of the slots that a step's rows saw, once for each text

  int64_t row_count() const { return static_cast<int64_t>(rows.size()); }
};

struct Product {  // y [rows, N] = x [rows, K] · wᵀ, whatever w is packed as
  const float* x = nullptr;
  int64_t rows = 0;
  const kernels::PackedMatrix* w = nullptr;
  float* y = nullptr;
  const std::optional<AdapterWeights>* adapter = nullptr;  // what it holds adds B (A x)
};

// Every product of `jobs`, at most kProducts, split over outputs and rows. Their inputs are quantised once for all that read them so.
inline constexpr size_t kProducts = 3;
void products(Step& step, std::span<const Product> jobs);

// body(first, last) over ranges of [0, rows), on several threads when there is enough to do. `width`: floats per row.
void over_rows(Step& step, int64_t rows, int64_t width, const std::function<void(int64_t, int64_t)>& body);

// Every row runs both parts of the block at hand, until units decide otherwise: one after the other, before it runs.
void begin_block(Step& step);
// Unit u at its block's input, step.x: fills `run` [N] with paths, step.score, step.exited, and the rows of the unit's parts.
void decide(Step& step, size_t u, std::vector<uint8_t>& run);

// Attention of the rows in step.running, whose queries [M, H·D] after RoPE are in step.q, over the pages of `block`; what comes
// out takes their place. Row i sees the first visible[i] slots of its sequence.
void attend(Step& step, std::span<const int64_t> visible, int64_t block);

// The rows of the block at hand through `block`, written back into step.x. Returns the slots of keys and values written.
// `between` is called when attention has written to step.x, before the MLP reads it.
int64_t run_block(Step& step, int64_t block, const std::function<void()>& between = {});

// The head: logits, losses and best ids of the rows that the items ask for. Returns how many rows it computed.
int64_t run_head(Step& step, StepResult& result);

}  // namespace fathom::infer
