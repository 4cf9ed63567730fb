#include "kernels/pack.h"

#include <algorithm>

#include "core/error.h"

namespace fathom::kernels {

PackedMatrix::PackedMatrix(std::span<const float> rows, int64_t outputs, int64_t inner, float* storage)
    : outputs_(outputs), inner_(inner) {
  FATHOM_ASSERT(static_cast<int64_t>(rows.size()) == outputs * inner, rows.size(), " elements for ", outputs, " x ", inner);
  if (!storage) {
    own_ = Buffer(packed_size(outputs, inner));
    storage = own_.data();
  }
  data_ = storage;
  for (int64_t first = 0; first < outputs; first += kGroup) {
    const int64_t width = group_width(outputs, first), used = std::min(kGroup, outputs - first);
    float* const group = storage + first * inner;
    for (int64_t n = 0; n < width; ++n) {
      if (n < used)
        for (int64_t k = 0; k < inner; ++k) group[k * width + n] = rows[(first + n) * inner + k];
      else
        for (int64_t k = 0; k < inner; ++k) group[k * width + n] = 0;
    }
  }
}

void PackedMatrix::copy_row(int64_t output, float* to) const {
  const int64_t first = output / kGroup * kGroup, width = group_width(outputs_, first);
  const float* const from = data_ + first * inner_ + (output - first);
  for (int64_t k = 0; k < inner_; ++k) to[k] = from[k * width];
}

}  // namespace fathom::kernels
