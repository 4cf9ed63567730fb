// A weight matrix [N, K] as the kernels read it: groups of 64 outputs, each [K][width] and contiguous, so that a product
// with one row is one sequential stream per group. The last group is 16, 32, 48 or 64 wide, padded with zeros.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/buffer.h"
#include "kernels/kernels.h"

namespace fathom::kernels {

// Width of the group that starts at output `first`.
constexpr int64_t group_width(int64_t outputs, int64_t first) {
  const int64_t left = outputs - first;
  return left >= kGroup ? kGroup : (left + kLanes - 1) / kLanes * kLanes;
}
constexpr int64_t group_count(int64_t outputs) { return (outputs + kGroup - 1) / kGroup; }
constexpr int64_t packed_size(int64_t outputs, int64_t inner) { return (outputs + kLanes - 1) / kLanes * kLanes * inner; }

class PackedMatrix {
 public:
  PackedMatrix() = default;
  // `rows` is [outputs, inner], row-major. `storage` holds packed_size floats and outlives the matrix: a model's matrices
  // lie in one buffer in the order of their use. Without storage the matrix owns its own.
  PackedMatrix(std::span<const float> rows, int64_t outputs, int64_t inner, float* storage = nullptr);
  int64_t outputs() const { return outputs_; }
  int64_t inner() const { return inner_; }
  int64_t groups() const { return group_count(outputs_); }
  const float* data() const { return data_; }
  int64_t bytes() const { return packed_size(outputs_, inner_) * static_cast<int64_t>(sizeof(float)); }
  void copy_row(int64_t output, float* to) const;  // [inner]: the embedding of a tied model

 private:
  int64_t outputs_ = 0, inner_ = 0;
  Buffer own_;
  const float* data_ = nullptr;
};

}  // namespace fathom::kernels
