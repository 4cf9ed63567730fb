// A weight matrix [N, K] as the kernels read it: groups of 64 outputs, each one sequential stream for a product with one
// row. The last group is 16, 32, 48 or 64 wide, filled up with zeros.
//
//   plain        a group is [K][width] of f32 or f16, or [⌈K / 2⌉][width][2] of bf16, where a last one that is alone has a 0 beside it
//   quantised    a group is, per block of 32 inner elements, one record: low bits of the codes, high bits, scales, minima.
//     low bits   element 4·i + j of the block at [i][n][j] of [8][width][4] bytes; those of 4 bits at [i / 2][n][j] of
//                [4][width][4] bytes, in the low half where i is even, in the high half where it is odd
//     high bits  H bits of every code above its four low ones: [H][width][4] bytes, of which byte [·][n][j] holds those of the
//                elements 4·i + j, even i in the low half, odd i in the high half, H bits each, ascending
//     scales     [1 or 2][width], then minima [width]: f16, or i8 where there are two levels. Then a head of f16 scales
//                [width] and minima [width] stands before every eight records
//                A K that is no multiple of 32 is filled up with codes whose products with the zeros of the activations vanish.
#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "core/thread_pool.h"
#include "kernels/buffer.h"
#include "kernels/kernels.h"

namespace fathom::kernels {

// Width of the group that starts at output `first`.
constexpr int64_t group_width(int64_t outputs, int64_t first) {
  const int64_t left = outputs - first;
  return left >= kGroup ? kGroup : (left + kLanes - 1) / kLanes * kLanes;
}
constexpr int64_t group_count(int64_t outputs) { return (outputs + kGroup - 1) / kGroup; }
constexpr int64_t block_count(int64_t inner) { return (inner + kBlock - 1) / kBlock; }
int64_t packed_bytes(Packing packing, int64_t outputs, int64_t inner);
const char* packing_name(Packing packing);
double bytes_per_weight(Packing packing);  // its share of the scales with it

// One row of a quantised matrix, before it is packed. `codes` [K], one a byte, without offset (0 to 255, 63, 31 or 15).
struct QuantizedRow {
  std::span<uint8_t> codes;
  std::span<uint16_t> scale;       // f16 [⌈K / 32⌉], of two levels [⌈K / 256⌉]
  std::span<uint16_t> minimum;     // the same; empty where there are none
  std::span<int8_t> sub_scale;     // two levels only: [⌈K / 32⌉], q6_k [2 · ⌈K / 32⌉]
  std::span<int8_t> sub_minimum;   // [⌈K / 32⌉]
};

class PackedMatrix {
 public:
  PackedMatrix() = default;
  // `rows` is [outputs, inner], row-major. `storage` holds packed_bytes and outlives the matrix: a model's matrices
  // lie in one buffer in the order of their use. Without storage the matrix owns its own.
  PackedMatrix(std::span<const float> rows, int64_t outputs, int64_t inner, std::byte* storage = nullptr);
  // Plain numbers of the packing's type: `read` fills row n [inner], from several threads of `threads` at once.
  PackedMatrix(Packing packing, int64_t outputs, int64_t inner, const std::function<void(int64_t n, std::byte* row)>& read, ThreadPool& threads,
               std::byte* storage = nullptr);
  // Quantised: `read` fills row n, from several threads of `threads` at once.
  PackedMatrix(Packing packing, int64_t outputs, int64_t inner, const std::function<void(int64_t n, const QuantizedRow&)>& read,
               ThreadPool& threads, std::byte* storage = nullptr);
  Packing packing() const { return packing_; }
  int64_t outputs() const { return outputs_; }
  int64_t inner() const { return inner_; }
  int64_t groups() const { return group_count(outputs_); }
  const uint8_t* data() const { return reinterpret_cast<const uint8_t*>(data_); }
  int64_t bytes() const { return packed_bytes(packing_, outputs_, inner_); }
  void copy_row(int64_t output, float* to) const;  // [inner] as f32: the embedding of a tied model

 private:
  std::byte* place(std::byte* storage);
  void pack_plain(const std::function<void(int64_t, std::byte*)>& read, ThreadPool& threads, std::byte* storage);
  Packing packing_ = Packing::f32;
  int64_t outputs_ = 0, inner_ = 0;
  Buffer own_;
  const std::byte* data_ = nullptr;
};

}  // namespace fathom::kernels
