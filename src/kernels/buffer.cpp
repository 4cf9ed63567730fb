#include "kernels/buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace fathom::kernels {

Buffer::Buffer(int64_t floats) : size_(floats) {
  if (floats == 0) return;
  constexpr size_t kHugePage = size_t{2} << 20;
  const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
  const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  data_ = static_cast<float*>(std::aligned_alloc(alignment, rounded));
  if (!data_) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (alignment == kHugePage) (void)::madvise(data_, rounded, MADV_HUGEPAGE);  // a wish: nothing depends on it
#endif
}

Buffer::~Buffer() { std::free(data_); }

void Buffer::grow(int64_t floats) {
  if (floats <= size_) return;
  *this = Buffer();
  *this = Buffer(floats);
}

}  // namespace fathom::kernels
