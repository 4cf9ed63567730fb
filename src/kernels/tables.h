// The tables that chosen() picks from, and what their files share. Not for other rooms.
#pragma once
#include "core/limits.h"
#include "kernels/layout.h"

namespace fathom::kernels {

inline constexpr int64_t kSumTile = 4096;  // log_sum_exp adds up this many in f32

inline constexpr float kLeastQuantized = 1e-30f;  // a block of smaller activations counts as zeros (127 / x stays finite)
inline constexpr float kMostStored = 65520.0f * 127.0f;  // of a block in a page: its scale would round to infinity

// A q8_0 cache is read with whole numbers of 14 bits: these stand for the greatest number of a query's block, and for the greatest
// weight of kWeightSlots slots.
inline constexpr float kQueryCodes = 8127, kWeightCodes = 16383;
inline constexpr int64_t kWeightSlots = 64;

// The loops over codes, in which avxvnni differs from avx2, avx512vnni from avx512 and neondot from neon.
struct CodeLoops {
  void (*quantized_matmul)(const QuantizedMatmul&);
  void (*attend_scores)(const Attend&, int64_t page_begin, int64_t page_end);  // of a q8_0 cache
  void (*attend_values)(const Attend&, int64_t first, int64_t last);
};

extern const Kernels* const kReferencePlain;
#if defined(__x86_64__)
extern const Kernels* const kReferenceFma;
extern const Kernels* const kAvx2;
extern const Kernels* const kAvx512;
extern const CodeLoops kAvxVnniLoops;
extern const CodeLoops kAvx512VnniLoops256;  // the same in the encoding of processors with AVX-512
extern const CodeLoops kVnniLoops;
extern void (*const kBf16Matmul)(const Matmul&);  // in which avx512bf16 differs from avx512vnni
#elif defined(__aarch64__)
extern const Kernels* const kNeon;
extern const CodeLoops kDotLoops;
bool cpu_has_dotprod();
#endif

extern int64_t reference_count;  // multiply–adds, changed atomically

}  // namespace fathom::kernels
