#include "model/rope.h"

#include <cmath>

namespace fathom::model {

std::vector<float> rope_frequencies(int64_t head_dim, double theta) {
  std::vector<float> out;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    out.push_back(1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent))));
  }
  return out;
}

void rope_row(int64_t position, std::span<const float> frequency, float* cosine, float* sine) {
  for (size_t i = 0; i < frequency.size(); ++i) {
    const float angle = static_cast<float>(position) * frequency[i];
    cosine[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
    sine[i] = static_cast<float>(std::sin(static_cast<double>(angle)));
  }
}

}  // namespace fathom::model
