// Which tokens of a batch run a routed block, as flat row numbers b·T + t, ascending. Plain loops over scores: a selection
// is a decision, not a differentiable thing. top_k here and routing::top_k are held equal by a test.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace fathom::nn {

// The shape of a batch as plain numbers, shared by all blocks of one forward.
struct Rows {
  int64_t batch = 0, tokens = 0;              // B, T
  std::vector<int64_t> length;                // [B] unpadded tokens
  std::vector<int32_t> document_start;        // [B·T]
  std::vector<int32_t> position;              // [B·T] within the document
  bool one_document = true;                   // every document_start is 0
  int64_t token_count() const;                // unpadded, over all rows
};

// The rows that run, one sequence after the other.
struct Selected {
  std::vector<int64_t> rows;      // [N] flat, ascending
  std::vector<int64_t> begin;     // [B + 1] offsets into `rows`
  bool all = false;               // every row of the batch, padding included: nothing to gather
};

template <class Real>
Selected select_top_k(std::span<const Real> scores, const Rows& rows, double capacity, int64_t forced);
template <class Real>
Selected select_threshold(std::span<const Real> scores, const Rows& rows, float threshold, int64_t forced);
// By position in the document, the same in every row: the control's causal rule. With `first_row`, the number in the whole
// run of the batch's first row, every row draws anew: the control's training, where one mask for all steps would teach each
// block certain positions only.
Selected select_random(const Rows& rows, uint64_t seed, int64_t block, double capacity, int64_t forced, std::optional<int64_t> first_row = {});
Selected select_imposed(std::span<const bool> run, const Rows& rows);  // [B·T]; padding never
Selected select_everyone(const Rows& rows);                            // but padding
Selected without(const Selected& all, const Selected& some);           // `some` is within `all`

}  // namespace fathom::nn
