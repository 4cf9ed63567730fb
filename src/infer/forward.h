// One step of the engine: rows of many sequences, ragged, through all blocks, with their keys and values in pages.
//
//   rows [N, C] → per block: decisions of its units → rows that run, compacted → kernels over that block's pages →
//   rows written back, those of light paths too → head for the rows that were asked for
//
// The result for a row does not depend, to the bit, on which rows travel with it, on how its sequence was cut into
// steps, on the number of threads or on the ISA.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "infer/kv_cache.h"
#include "infer/policy.h"
#include "infer/weights.h"
#include "kernels/kernels.h"
#include "routing/decisions.h"

namespace fathom::infer {

enum class Logits { none, last, all };  // of which of an item's rows

// The next tokens of one sequence. A sequence may appear once in a step.
struct WorkItem {
  Sequence* sequence = nullptr;
  std::span<const int32_t> tokens;               // ≥ 1
  const RoutingPolicy* policy = nullptr;
  Logits logits = Logits::last;
  std::span<const int32_t> targets = {};         // empty, or per token the id whose loss is wanted (−1: none)
};

struct StepResult {
  struct Item {
    int64_t first_row = 0, rows = 0;             // among the N rows of the step
    int64_t first_logits = 0, logits_rows = 0;   // among the rows of `logits`
  };
  std::vector<Item> items;
  int64_t vocab = 0;
  std::vector<float> logits;         // [rows asked for, V]
  std::vector<float> nll;            // [N] −log p(target), NaN where no target was given; empty without targets
  std::vector<int32_t> best;         // [N] the most likely id, where a target was given; empty without targets
  // run[u][N]; score[u][N] is the decision score of the model's causal rule, whatever rule decided.
  routing::Decisions decisions;

  std::span<const float> logits_of(size_t item, int64_t row = -1) const;  // row −1: the last
  routing::Decisions decisions_of(size_t item) const;
  void append_decisions(size_t item, routing::Decisions& to) const;
  // UserError where a router's score of some rows is NaN: such a token runs no routed block (routing/select.h), so that text and losses
  // would come out of a damaged model without a word.
  void refuse_nan_scores(const model::ModelConfig& config, int64_t first_row, int64_t rows) const;
};

// What an engine has done since it was made, in rows and slots.
struct EngineCounters {
  int64_t steps = 0, rows = 0, head_rows = 0;
  int64_t weight_bytes = 0;          // of the matrices that steps read, each once in a step that had a row for it
  std::vector<int64_t> block_rows;   // [L] rows that ran the block in full, attention and MLP
  std::vector<int64_t> unit_rows;    // [U] rows that ran the unit in full
  std::vector<int64_t> kv_slots;     // [L] slots written
  double attention_seconds = 0;      // over the pages, projections aside
  int64_t attention_bytes = 0;       // keys and values of the slots that a step's rows saw, once for each text
};

struct EngineOptions {
  int threads = 0;                             // 0: all cores that this process may use
  const kernels::Kernels* kernels = nullptr;   // null: kernels::chosen()
  int64_t kv_bytes = 0;                        // limit of the page pool; 0: none
  KvType kv_type = KvType::f32;                // how it holds keys and values
};

class Engine {
 public:
  explicit Engine(std::shared_ptr<const Weights> weights, const EngineOptions& options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  Sequence new_sequence();
  // Bytes of pages that a text of so many tokens may need: as if every token wrote into every block.
  int64_t kv_bytes_for(int64_t tokens) const;
  // UserError where the KV limit does not hold `texts` of them.
  void require_room(int64_t tokens, int64_t texts = 1) const;
  // Either the whole step happens, or it throws and no sequence has changed. UserError: a token id outside the
  // vocabulary, a position past max_position_embeddings, the KV limit. One call at a time.
  void forward(std::span<const WorkItem> items, StepResult& result);
  StepResult forward(std::span<const WorkItem> items);

  const model::ModelConfig& config() const;
  const Weights& weights() const;
  const PagePool& pool() const;
  const EngineCounters& counters() const;
  const kernels::Kernels& kernels() const;
  int threads() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fathom::infer
