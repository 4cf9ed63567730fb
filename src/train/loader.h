// Rows of tokens for training, in an order that (seed, epoch, position) fixes: an epoch cuts the corpus into windows of
// T + 1 tokens from a random offset and visits them along a keyed permutation, so that any position is reached without
// reading what lies before it. A thread reads ahead; what it read ahead is no part of the state.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/json.h"
#include "data/shards.h"

namespace fathom::train {

inline constexpr int32_t kIgnore = -100;  // a target that no loss counts
inline constexpr int kReadAhead = 4;      // batches: pages are faulted in while a step computes

struct Batch {
  int64_t rows = 0, tokens = 0;    // B, T
  std::vector<int32_t> input;      // [B, T]
  std::vector<int32_t> target;     // [B, T] the next token; kIgnore where the next token begins another document
  std::vector<int32_t> document_start;  // [B, T] where in the row this token's document begins (nn::Batch)
};

// A keyed bijection of [0, n): four Feistel rounds over the next power of four, walked until inside.
class Permutation {
 public:
  Permutation(uint64_t n, uint64_t key);
  uint64_t operator()(uint64_t i) const;

 private:
  uint64_t n_, key_;
  int half_bits_;
};

struct LoaderState {
  uint64_t seed = 0;
  int64_t epoch = 0;
  int64_t position = 0;  // windows of this epoch that were handed out
  bool operator==(const LoaderState&) const = default;
  Json to_json() const;
  static LoaderState from_json(const Fields& fields);
};

// Where a loader stands that began with this seed and handed out `rows` rows.
LoaderState state_after(const data::Dataset& dataset, int64_t row_tokens, uint64_t seed, int64_t rows);

// A batch of so many rows whose tokens are 0.
Batch empty_batch(int64_t rows, int64_t tokens);
// Rows of T tokens from the given places of a split on.
Batch read_batch(const data::Dataset& dataset, std::span<const int64_t> begins, int64_t row_tokens);
// Where in its row the document of token `begin` ends.
int64_t document_end(const Batch& batch, int64_t row, int64_t begin);

// Fills row `row` of `batch` with the T + 1 tokens from `begin` on.
void fill_row(const data::Dataset& dataset, int64_t begin, Batch& batch, int64_t row);

class Loader {
 public:
  Loader(std::shared_ptr<const data::Dataset> dataset, int64_t rows, int64_t tokens, LoaderState state);
  ~Loader();
  Batch next();                       // the last window of an epoch is followed by the first of the next
  LoaderState state() const;          // after the batches that next() returned
  int64_t windows_per_epoch() const;

 private:
  struct Work;
  std::unique_ptr<Work> work_;
};

// The first tokens of the windows that evaluation reads: `tokens` of them in rows of T, spread evenly over the split.
// `part` 0 and 1 give disjoint windows (to calibrate on one and measure on the other).
std::vector<int64_t> evaluation_windows(const data::Dataset& dataset, int64_t tokens, int64_t row_tokens, int part, int parts);

}  // namespace fathom::train
