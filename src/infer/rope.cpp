#include "infer/rope.h"

namespace fathom::infer {

RopeTable::RopeTable(int64_t head_dim, double theta, const model::RopeScaling& scaling)
    : half_(head_dim / 2), frequency_(model::rope_frequencies(head_dim, theta, scaling)), attention_factor_(static_cast<float>(scaling.attention_factor)) {}

void RopeTable::reach(int64_t positions) {
  if (positions <= positions_) return;
  constexpr int64_t kStep = 256;
  positions = (positions + kStep - 1) / kStep * kStep;
  table_.resize(static_cast<size_t>(positions * 2 * half_));
  for (int64_t position = positions_; position < positions; ++position) {
    float* const at = table_.data() + position * 2 * half_;
    model::rope_row(position, frequency_, at, at + half_, attention_factor_);
  }
  positions_ = positions;
}

}  // namespace fathom::infer
