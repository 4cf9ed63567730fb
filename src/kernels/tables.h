// The tables that chosen() picks from, and what their files share. Not for other rooms.
#pragma once
#include "kernels/layout.h"

namespace fathom::kernels {

inline constexpr int64_t kSumTile = 4096;  // log_sum_exp adds up this many in f32

inline constexpr float kLeastQuantized = 1e-30f;  // a block of smaller activations counts as zeros (127 / x stays finite)
inline constexpr float kMostStored = 65520.0f * 127.0f;  // of a block in a page: its scale would round to infinity

extern const Kernels* const kReferencePlain;
#if defined(__x86_64__)
extern const Kernels* const kReferenceFma;
extern const Kernels* const kAvx2;
extern const Kernels* const kAvx512;
extern void (*const kAvxVnniMatmul)(const QuantizedMatmul&);        // the one loop in which avxvnni differs from avx2
extern void (*const kAvx512VnniMatmul256)(const QuantizedMatmul&);  // the same in the encoding of processors with AVX-512
extern void (*const kVnniMatmul)(const QuantizedMatmul&);  // the one loop in which avx512vnni differs from avx512
extern void (*const kBf16Matmul)(const Matmul&);           // in which avx512bf16 differs from avx512vnni
#elif defined(__aarch64__)
extern const Kernels* const kNeon;
extern void (*const kDotMatmul)(const QuantizedMatmul&);   // in which neondot differs from neon
bool cpu_has_dotprod();
#endif

extern int64_t reference_count;  // multiply–adds, changed atomically

}  // namespace fathom::kernels
