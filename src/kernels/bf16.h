// bf16 arithmetic as README.md defines it, for the kernels' files. Internal linkage: a shared copy could be one that was compiled for
// another CPU.
#pragma once
#include <cstdint>

namespace fathom::kernels {

// The nearest bf16 to an f32, both as bits: ties to even, a NaN stays one.
static inline uint32_t nearest_bf16(uint32_t f32) {
  return (f32 & 0x7fffffffu) > 0x7f800000u ? f32 >> 16 | 0x40u : (f32 + 0x7fffu + (f32 >> 16 & 1u)) >> 16;
}
// The same for a product, in which subnormals count as zeros.
static inline uint32_t product_bf16(uint32_t f32) { return (f32 & 0x7f800000u) == 0 ? f32 >> 16 & 0x8000u : nearest_bf16(f32); }

namespace {
// While it lives, this thread's f32 arithmetic takes subnormals for zeros and gives zeros for them, as instructions for bf16 do.
// The arithmetic must be in a function that is not inlined beside it: a compiler knows nothing of this.
class FlushSubnormals {
 public:
#if defined(__x86_64__)
  FlushSubnormals() : before_(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(before_ | 0x8040u); }
  ~FlushSubnormals() { __builtin_ia32_ldmxcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  FlushSubnormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    __asm__ volatile("msr fpcr, %0" ::"r"(before_ | uint64_t{1} << 24));
  }
  ~FlushSubnormals() { __asm__ volatile("msr fpcr, %0" ::"r"(before_)); }

 private:
  uint64_t before_;
#else
  FlushSubnormals() {}
  ~FlushSubnormals() {}
#endif
};
}  // namespace

}  // namespace fathom::kernels
