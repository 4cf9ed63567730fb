// The reference kernels for any CPU.
#include "kernels/bf16.h"
#include "kernels/tables.h"

namespace fathom::kernels {

int64_t reference_count = 0;
namespace {
void count(int64_t multiply_adds) { __atomic_fetch_add(&reference_count, multiply_adds, __ATOMIC_RELAXED); }
#include "kernels/reference/loops.inl"
}  // namespace
const Kernels* const kReferencePlain = &kTable;

}  // namespace fathom::kernels
