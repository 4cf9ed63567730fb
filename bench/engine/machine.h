// What this machine can do, measured: the roofline of the engine's figures.
#pragma once
#include <cstdint>

namespace fathom::bench {

// GB/s (10^9) of `threads` threads that each read their share of `bytes` again and again; the best of some passes.
double read_bandwidth(int64_t bytes, int threads);

// GFLOP/s of f32 fused multiply–adds in registers, `threads` threads, a multiply–add counted as two; 0 where
// it has no measure for the CPU.
double multiply_add_peak(int threads);

}  // namespace fathom::bench
