#include "model/stored_tensor.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/error.h"

namespace fathom::model {

using formats::GgmlType;

int64_t interleaved(int64_t n, int64_t head_dim) {
  const int64_t in = n % head_dim, half = head_dim / 2;
  return n - in + in % half * 2 + in / half;
}

int64_t not_interleaved(int64_t n, int64_t head_dim) {
  const int64_t in = n % head_dim;
  return n - in + in % 2 * (head_dim / 2) + in / 2;
}

std::span<const std::byte> StoredTensor::row(int64_t n) const {
  FATHOM_ASSERT(n >= 0 && n < rows(), name, " has no row ", n);
  if (interleaved_head > 0 && shape.size() > 1) n = interleaved(n, interleaved_head);
  const int64_t row_bytes = formats::ggml_bytes(type, columns());
  return bytes.subspan(static_cast<size_t>(n * row_bytes), static_cast<size_t>(row_bytes));
}

void StoredTensor::row_f32(int64_t n, float* to) const {
  formats::dequantize(type, row(n), to);
  if (interleaved_head == 0 || shape.size() > 1) return;
  const std::vector<float> file(to, to + columns());
  for (int64_t i = 0; i < columns(); ++i) to[i] = file[static_cast<size_t>(interleaved(i, interleaved_head))];
}

std::vector<float> StoredTensor::to_f32() const {
  std::vector<float> out(static_cast<size_t>(rows() * columns()));
  for (int64_t n = 0; n < rows(); ++n) row_f32(n, out.data() + n * columns());
  return out;
}

bool all_finite(std::span<const float> values) {
  uint32_t bad = 0;  // without a branch: weights are sound
  for (const float v : values) bad |= (std::bit_cast<uint32_t>(v) & 0x7f800000u) == 0x7f800000u;
  return !bad;
}

void refuse_not_finite(std::span<const float> values, const std::string& where, const std::string& name, const std::string& hint, int64_t first) {
  if (all_finite(values)) return;
  const auto it = std::ranges::find_if(values, [](float v) { return !std::isfinite(v); });
  throw UserError({where, str(name, "[", first + (it - values.begin()), "]"), std::isnan(*it) ? "NaN" : *it > 0 ? "infinity" : "minus infinity",
                   "a finite number", hint});
}

void StoredTensor::refuse_not_finite() const {
  std::vector<float> values(static_cast<size_t>(columns()));
  const size_t row_bytes = static_cast<size_t>(formats::ggml_bytes(type, columns()));
  for (int64_t n = 0; n < rows(); ++n) {  // in the order of the file
    formats::dequantize(type, bytes.subspan(static_cast<size_t>(n) * row_bytes, row_bytes), values.data());
    model::refuse_not_finite(values, where, name, "the file is damaged or its training diverged", n * columns());
  }
}

StoredTensor stored_f32(std::string name, std::vector<int64_t> shape, std::vector<float> values) {
  const auto kept = std::make_shared<const std::vector<float>>(std::move(values));
  return {.where = {}, .name = std::move(name), .type = GgmlType::F32, .shape = std::move(shape), .bytes = std::as_bytes(std::span(*kept)),
          .interleaved_head = 0, .owner = kept};
}

}  // namespace fathom::model
