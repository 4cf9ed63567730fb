// The reference kernels for x86 CPUs with fused multiply–add: the same loops, the same bits, many times faster.
#include "kernels/bf16.h"
#include "kernels/tables.h"

namespace fathom::kernels {
namespace {
void count(int64_t multiply_adds) { __atomic_fetch_add(&reference_count, multiply_adds, __ATOMIC_RELAXED); }
#include "kernels/reference/loops.inl"
}  // namespace
const Kernels* const kReferenceFma = &kTable;

}  // namespace fathom::kernels
