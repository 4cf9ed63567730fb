// What this machine can do, measured: the roofline beside which every figure of speed stands.
#pragma once
#include <cstdint>

#include "core/thread_pool.h"
#include "kernels/buffer.h"

namespace fathom::kernels {

// GB/s (10^9) of `threads` threads that each read their share of `bytes` again and again; the best of some passes. It keeps its memory, so that
// it can be asked between the rounds of something else: a virtual machine's bandwidth changes from one second to the next.
class BandwidthMeter {
 public:
  explicit BandwidthMeter(int threads);
  // At least three passes and `volume` bytes. Of more than kMost bytes it reads kMost: no cache holds either.
  double measure(int64_t bytes, int64_t volume = int64_t{3} << 30);

 private:
  static constexpr int64_t kMost = int64_t{1} << 29;
  ThreadPool pool_;
  Buffer memory_;
};
double read_bandwidth(int64_t bytes, int threads);

enum class Arithmetic { f32, bf16, int8 };
const char* arithmetic_name(Arithmetic kind);

// Gop/s of multiply–adds in registers on `threads` threads, a multiply–add counted as two: f32 fused, bf16 pairs and int8
// quadruples added up in 32 bits. 0 where the CPU has no such instruction.
double multiply_add_peak(Arithmetic kind, int threads);

}  // namespace fathom::kernels
