#include "model/stored_tensor.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "core/error.h"

namespace fathom::model {

using formats::GgmlType;

std::span<const std::byte> StoredTensor::row(int64_t n) const {
  if (interleaved_head > 0) {
    const int64_t D = interleaved_head, in = n % D, half = D / 2;
    n = n - in + in % half * 2 + in / half;
  }
  const int64_t row_bytes = formats::ggml_bytes(type, columns());
  return bytes.subspan(static_cast<size_t>(n * row_bytes), static_cast<size_t>(row_bytes));
}

void StoredTensor::row_f32(int64_t n, float* to) const { formats::dequantize(type, row(n), to); }

std::vector<float> StoredTensor::to_f32() const {
  std::vector<float> out(static_cast<size_t>(rows() * columns()));
  for (int64_t n = 0; n < rows(); ++n) row_f32(n, out.data() + n * columns());
  return out;
}

namespace {

std::string bad_number(float value) { return std::isnan(value) ? "NaN" : value > 0 ? "infinity" : "minus infinity"; }

// The exponent of an f32, f16 or bf16 is all ones.
template <class Bits, Bits kExponent>
int64_t first_not_finite(std::span<const std::byte> bytes) {
  const int64_t count = static_cast<int64_t>(bytes.size() / sizeof(Bits));
  Bits bits, bad = 0;  // one pass without a branch over sound weights
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(&bits, bytes.data() + i * static_cast<int64_t>(sizeof bits), sizeof bits);
    bad |= static_cast<Bits>((bits & kExponent) == kExponent);
  }
  for (int64_t i = 0; bad && i < count; ++i) {
    std::memcpy(&bits, bytes.data() + i * static_cast<int64_t>(sizeof bits), sizeof bits);
    if ((bits & kExponent) == kExponent) return i;
  }
  return -1;
}

}  // namespace

void StoredTensor::refuse_not_finite(const char* hint) const {
  int64_t at = -1;
  switch (type) {
    case GgmlType::F32: at = first_not_finite<uint32_t, 0x7f800000u>(bytes); break;
    case GgmlType::F16: at = first_not_finite<uint16_t, 0x7c00u>(bytes); break;
    case GgmlType::BF16: at = first_not_finite<uint16_t, 0x7f80u>(bytes); break;
    default: {
      std::vector<float> values(static_cast<size_t>(columns()));
      const int64_t row_bytes = formats::ggml_bytes(type, columns());
      for (int64_t n = 0; n < rows() && at < 0; ++n) {
        formats::dequantize(type, bytes.subspan(static_cast<size_t>(n * row_bytes), static_cast<size_t>(row_bytes)), values.data());
        const int64_t in = first_not_finite<uint32_t, 0x7f800000u>(std::as_bytes(std::span(values)));
        if (in >= 0) at = n * columns() + in;
      }
    }
  }
  if (at < 0) return;
  std::vector<float> values(static_cast<size_t>(columns()));
  const int64_t row_bytes = formats::ggml_bytes(type, columns()), n = at / columns();
  formats::dequantize(type, bytes.subspan(static_cast<size_t>(n * row_bytes), static_cast<size_t>(row_bytes)), values.data());
  throw UserError({where, str(name, "[", at, "]"), bad_number(values[static_cast<size_t>(at % columns())]), "a finite number", hint});
}

StoredTensor stored_f32(std::string name, std::vector<int64_t> shape, std::vector<float> values) {
  const auto kept = std::make_shared<const std::vector<float>>(std::move(values));
  return {.where = {}, .name = std::move(name), .type = GgmlType::F32, .shape = std::move(shape), .bytes = std::as_bytes(std::span(*kept)),
          .interleaved_head = 0, .owner = kept};
}

}  // namespace fathom::model
