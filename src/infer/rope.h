// Cosines and sines of rotary position embedding (model/rope.h), as far as positions have been reached.
#pragma once
#include <cstdint>
#include <vector>

#include "model/rope.h"

namespace fathom::infer {

class RopeTable {
 public:
  RopeTable(int64_t head_dim, double theta, const model::RopeScaling& scaling = {});
  void reach(int64_t positions);  // makes sure of positions [0, positions)
  const float* cosine(int64_t position) const { return table_.data() + position * 2 * half_; }       // [D/2]
  const float* sine(int64_t position) const { return table_.data() + position * 2 * half_ + half_; }  // [D/2]

 private:
  int64_t half_, positions_ = 0;
  std::vector<float> frequency_;  // [D/2]
  float attention_factor_;
  std::vector<float> table_;      // [positions][2][D/2]
};

}  // namespace fathom::infer
