// What loops over blocks of 32 numbers share, over V16 and each ISA's greatest_magnitude.

constexpr int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static_assert(kBlock == kKvBlock);
struct Block {
  V16 lo, hi;
};
// Up to 32 numbers, zeros behind them.
inline Block load_block(const float* x, int64_t n) {
  return {n >= kLanes ? load(x) : load_first(x, n), n >= kBlock ? load(x + kLanes) : n > kLanes ? load_first(x + kLanes, n - kLanes) : zero()};
}
// As bits, so that NaN is above infinity and both above numbers.
inline float from_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}
inline float greatest_in(const Block& b) { return from_bits(greatest_magnitude(b.lo, b.hi)); }
