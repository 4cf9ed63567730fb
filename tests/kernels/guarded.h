// Arrays for kernel tests: random contents at an odd offset (so that nothing is aligned), with bands of a known pattern
// on both sides that a kernel must not touch.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/random.h"

namespace fathom::kernels::test {

class Guarded {
 public:
  explicit Guarded(int64_t size, int64_t offset = 1) : size_(size), offset_(kBand + offset), memory_(size + 2 * kBand + 16, kGuard) {}
  static Guarded normal(int64_t size, Random& random, double deviation = 1) {
    Guarded g(size, static_cast<int64_t>(random.below(16)));
    for (int64_t i = 0; i < size; ++i) g.data()[i] = static_cast<float>(deviation * random.normal());
    return g;
  }
  float* data() { return memory_.data() + offset_; }
  const float* data() const { return memory_.data() + offset_; }
  int64_t size() const { return size_; }
  float& operator[](int64_t i) { return data()[i]; }
  bool guards_hold() const {
    for (int64_t i = 0; i < static_cast<int64_t>(memory_.size()); ++i)
      if ((i < offset_ || i >= offset_ + size_) && std::memcmp(&memory_[i], &kGuard, 4) != 0) return false;
    return true;
  }

 private:
  static constexpr int64_t kBand = 80;
  static constexpr float kGuard = -3.0517578e-05f;
  int64_t size_, offset_;
  std::vector<float> memory_;
};

// Equal bits, where all NaN are one.
inline bool same_bits(float a, float b) {
  return (a != a && b != b) || std::memcmp(&a, &b, sizeof a) == 0;
}
// Index of the first difference, −1 when there is none.
inline int64_t first_difference(const float* a, const float* b, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (!same_bits(a[i], b[i])) return i;
  return -1;
}

}  // namespace fathom::kernels::test
