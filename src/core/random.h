// Random numbers with a state of two words that a checkpoint can keep, the same on every machine.
#pragma once
#include <cmath>
#include <cstdint>
#include <string_view>

namespace fathom {

// A bijective mix of 64 bits (splitmix64's finaliser, Steele et al. 2014): also the hash for `random` routing.
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Counter-based: the n-th number is a function of (seed, n), so a state is (seed, counter) and streams can be forked
// by name without drawing.
class Random {
 public:
  explicit Random(uint64_t seed = 0, uint64_t counter = 0) : seed_(seed), counter_(counter) {}
  uint64_t bits() { return mix64(mix64(seed_ ^ 0x5851f42d4c957f2dULL) + counter_++ * 0xda942042e4dd58b5ULL); }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1.0p-53; }          // [0, 1)
  uint64_t below(uint64_t n) {                                                        // [0, n), n > 0, unbiased
    const uint64_t reject = -n % n;
    uint64_t x;
    do x = bits(); while (x < reject);
    return x % n;
  }
  double normal() {  // Box–Muller, one of the pair
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  Random fork(std::string_view name) const {
    uint64_t h = mix64(seed_);
    for (char c : name) h = mix64(h ^ static_cast<unsigned char>(c));
    return Random(h);
  }
  uint64_t seed() const { return seed_; }
  uint64_t counter() const { return counter_; }

 private:
  uint64_t seed_, counter_;
};

}  // namespace fathom
