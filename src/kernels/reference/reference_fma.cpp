// The reference kernels for CPUs with fused multiply–add: the same loops, the same bits, many times faster.
#include "kernels/tables.h"

namespace fathom::kernels {

#if defined(__FMA__)
namespace {
void count(int64_t multiply_adds) { __atomic_fetch_add(&reference_count, multiply_adds, __ATOMIC_RELAXED); }
#include "kernels/reference/loops.inl"
}  // namespace
const Kernels* const kReferenceFma = &kTable;
#else
const Kernels* const kReferenceFma = nullptr;
#endif

}  // namespace fathom::kernels
