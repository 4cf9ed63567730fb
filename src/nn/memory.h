// Memory of tensors, kept between steps. A training step allocates and frees the same hundreds of megabytes every time; from
// the C library each large block comes as fresh pages that the kernel clears on first touch (7 % of a step's time at the
// benchmark's shape). Freed blocks are kept and given out again; what is held stays below 4/3 of
// the most that was in use at once.
#pragma once
#include <cstdint>

namespace fathom::nn {

// Makes it the process's allocator of CPU tensors; the first Transformer does. Safe to call again.
void use_kept_memory();

struct MemoryUse {
  int64_t in_use = 0, peak = 0, kept = 0;  // bytes of large blocks: out, most ever out, free and kept
};
MemoryUse memory_use();
void release_kept_memory();  // gives the free blocks back to the system

}  // namespace fathom::nn
