// What this machine can do, measured: the roofline beside which every figure of speed stands.
#pragma once
#include <cstdint>

namespace fathom::kernels {

// GB/s (10^9) of `threads` threads that each read their share of `bytes` again and again; the best of some passes.
double read_bandwidth(int64_t bytes, int threads);

enum class Arithmetic { f32, bf16, int8 };
const char* arithmetic_name(Arithmetic kind);

// Gop/s of multiply–adds in registers on `threads` threads, a multiply–add counted as two: f32 fused, bf16 pairs and int8
// quadruples added up in 32 bits. 0 where the CPU has no such instruction.
double multiply_add_peak(Arithmetic kind, int threads);

}  // namespace fathom::kernels
