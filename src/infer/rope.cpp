#include "infer/rope.h"

#include <cmath>

namespace fathom::infer {

RopeTable::RopeTable(int64_t head_dim, double theta) : half_(head_dim / 2) {
  for (int64_t i = 0; i < half_; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    frequency_.push_back(1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent))));
  }
}

void RopeTable::reach(int64_t positions) {
  if (positions <= positions_) return;
  constexpr int64_t kStep = 256;
  positions = (positions + kStep - 1) / kStep * kStep;
  table_.resize(static_cast<size_t>(positions * 2 * half_));
  for (int64_t position = positions_; position < positions; ++position) {
    float* const at = table_.data() + position * 2 * half_;
    for (int64_t i = 0; i < half_; ++i) {
      const float angle = static_cast<float>(position) * frequency_[static_cast<size_t>(i)];
      at[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      at[half_ + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
  positions_ = positions;
}

}  // namespace fathom::infer
