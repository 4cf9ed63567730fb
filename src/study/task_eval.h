// Log-likelihood tasks by the engine, under the causal rule: the items of many prompts side by side in every step, the choices of one
// going on from one reading of their context. An item's results are the same to the bit whatever stands beside it.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "study/evaluate.h"
#include "study/tasks.h"

namespace fathom::study {

// What one model made of one item. MACs (model/cost.h) are those of the rows that were read, a shared context once, and of the head
// for the tokens that count.
struct ItemResult {
  std::vector<double> log_likelihood;  // [choices] nats, summed over a choice's tokens
  bool greedy = false;                 // of a continuation: each of its tokens was the most likely one
  bool cut = false;                    // the context lost tokens on its left
  int64_t rows = 0;                    // tokens read
  int64_t blocks = 0, total = 0;       // MACs spent in the blocks, and with the head
  int64_t dense_blocks = 0, dense_total = 0;  // of every token in full
  bool operator==(const ItemResult&) const = default;
  Json to_json() const;
  // UserError (`where` names the line) unless it is one of an item of so many choices.
  static ItemResult from_json(const Json& json, const std::string& where, int64_t choices);
};

// Whether the item was answered rightly: the greatest log-likelihood (the first of equal ones) is the answer's, of a continuation
// whether it is what the model itself says. `by_length`: log-likelihoods over the choice's length in characters.
bool answered(const Task& task, size_t item, const ItemResult& result, bool by_length = false);

struct Mean {
  double value = 0, error = 0;  // standard error: √(Σ(x − mean)² / (n − 1) / n); NaN of one item
};

struct TaskResult {
  std::string name, file, hash;
  bool continuations = false;
  std::vector<ItemResult> items;
  std::vector<bool> right, right_by_length;  // [items]; the second empty for continuations
  int64_t rows = 0, cut = 0;
  double seconds = 0;                        // of the items that this run read
  int64_t read = 0;                          // how many those were
  double dial = 1;                           // block fraction asked for

  Mean accuracy() const, accuracy_by_length() const;
  // exp(−mean log-likelihood) of the right answers; its error to first order.
  Mean perplexity() const;
  double block_fraction() const, total_fraction() const;
  Json to_json(bool with_items) const;
};

// What two models made of the same items: a's share of right answers less b's, Student's t at 95 % on the items' differences.
struct TaskDifference {
  Interval value;
  int64_t gained = 0, lost = 0;  // items that a alone, that b alone answered rightly
};
TaskDifference task_difference(const std::vector<bool>& a, const std::vector<bool>& b);

struct TaskOptions {
  std::optional<double> dial = {};     // the model's default when empty
  int64_t rows_per_step = 512;         // over all items
  // Results of an earlier run: what it returns is not computed again.
  std::function<const ItemResult*(size_t item)> known = {};
  // Every item that was computed, as it ends (their order is not that of the task), and how many are there now; may throw to interrupt.
  std::function<void(size_t item, const ItemResult& result, int64_t done)> done = {};
};

// UserError: an item that no model of this context and tokenizer can read, the KV limit, a loss that is not finite.
TaskResult evaluate_task(const Subject& subject, const Task& task, const TaskOptions& options = {});

}  // namespace fathom::study
