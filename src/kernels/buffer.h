// Memory for weights, pages and activations: aligned to a cache line, on huge pages when large (a matrix streamed through
// 4 KiB pages loses bandwidth to address translation). Not initialised.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

namespace fathom::kernels {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t floats);  // throws std::bad_alloc
  ~Buffer();
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  float* data() { return data_; }
  const float* data() const { return data_; }
  int64_t size() const { return size_; }  // floats
  // At least `floats`; contents are lost when it grows.
  void grow(int64_t floats);

 private:
  float* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace fathom::kernels
