#include "kernels/pack.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/float16.h"
#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

bool four_bits(Packing packing) { return packing == Packing::q4 || packing == Packing::q4_min; }

struct Record {  // of one block of a group
  int64_t codes, bytes;
  Record(Packing packing, int64_t width)
      : codes(width * (four_bits(packing) ? kBlock / 2 : kBlock)), bytes(codes + width * (packing == Packing::q4_min ? 4 : 2)) {}
};

// Where element k of a block of output n lies, and whether in the high half of its byte.
struct Place {
  int64_t byte;
  bool high;
};
Place place_of(Packing packing, int64_t width, int64_t n, int64_t k) {
  const int64_t step = k / 4, in = n * 4 + k % 4;
  if (!four_bits(packing)) return {step * width * 4 + in, false};
  return {step / 2 * width * 4 + in, step % 2 == 1};
}

void pack_group(Packing packing, int64_t inner, int64_t first, int64_t used, int64_t width, const std::function<void(int64_t, const QuantizedRow&)>& read,
                std::byte* to) {
  const int64_t blocks = block_count(inner);
  const Record record(packing, width);
  std::memset(to, 0, static_cast<size_t>(blocks * record.bytes));
  std::vector<uint8_t> codes(static_cast<size_t>(blocks * kBlock));
  std::vector<uint16_t> scale(static_cast<size_t>(blocks)), minimum(packing == Packing::q4_min ? scale.size() : 0);
  const QuantizedRow row{std::span(codes).first(static_cast<size_t>(inner)), scale, minimum};
  for (int64_t n = 0; n < used; ++n) {
    read(first + n, row);
    for (int64_t b = 0; b < blocks; ++b) {
      std::byte* const block = to + b * record.bytes;
      const uint8_t* const from = codes.data() + b * kBlock;
      for (int64_t step = 0; step < 8; ++step) {
        if (!four_bits(packing)) {
          std::memcpy(block + (step * width + n) * 4, from + step * 4, 4);
          continue;
        }
        std::byte* const at = block + (step / 2 * width + n) * 4;
        for (int64_t j = 0; j < 4; ++j) at[j] |= static_cast<std::byte>((from[step * 4 + j] & 15) << (step % 2 ? 4 : 0));
      }
      std::memcpy(block + record.codes + n * 2, &scale[static_cast<size_t>(b)], 2);
      if (packing == Packing::q4_min) std::memcpy(block + record.codes + (width + n) * 2, &minimum[static_cast<size_t>(b)], 2);
    }
  }
}

}  // namespace

const char* packing_name(Packing packing) {
  switch (packing) {
    case Packing::f32: return "f32";
    case Packing::q8: return "q8";
    case Packing::q4: return "q4";
    case Packing::q4_min: return "q4_min";
  }
  return "";
}

double bytes_per_weight(Packing packing) {
  return static_cast<double>(packed_bytes(packing, kGroup, kBlock)) / static_cast<double>(kGroup * kBlock);
}

int64_t packed_bytes(Packing packing, int64_t outputs, int64_t inner) {
  const int64_t padded = (outputs + kLanes - 1) / kLanes * kLanes;
  if (packing == Packing::f32) return padded * inner * static_cast<int64_t>(sizeof(float));
  return quantized_group_offset(packing, padded, block_count(inner));
}

std::byte* PackedMatrix::place(std::byte* storage) {
  if (!storage) {
    own_ = Buffer((bytes() + static_cast<int64_t>(sizeof(float)) - 1) / static_cast<int64_t>(sizeof(float)));
    storage = reinterpret_cast<std::byte*>(own_.data());
  }
  data_ = storage;
  return storage;
}

PackedMatrix::PackedMatrix(std::span<const float> rows, int64_t outputs, int64_t inner, std::byte* storage)
    : outputs_(outputs), inner_(inner) {
  FATHOM_ASSERT(static_cast<int64_t>(rows.size()) == outputs * inner, rows.size(), " elements for ", outputs, " x ", inner);
  ThreadPool alone(1);
  pack_f32([&](int64_t n, float* row) { std::copy_n(rows.data() + n * inner, inner, row); }, alone, storage);
}

PackedMatrix::PackedMatrix(int64_t outputs, int64_t inner, const std::function<void(int64_t, float*)>& read, ThreadPool& threads, std::byte* storage)
    : outputs_(outputs), inner_(inner) {
  pack_f32(read, threads, storage);
}

void PackedMatrix::pack_f32(const std::function<void(int64_t, float*)>& read, ThreadPool& threads, std::byte* storage) {
  float* const to = reinterpret_cast<float*>(place(storage));
  threads.parallel_for(groups(), [&](int64_t chunk) {
    const int64_t first = chunk * kGroup, width = group_width(outputs_, first), used = std::min(kGroup, outputs_ - first);
    // Sixteen rows at a time: a strided store per element would touch a cache line each.
    std::vector<float> rows(static_cast<size_t>(kLanes * inner_));
    float* const group = to + first * inner_;
    for (int64_t panel = 0; panel < width; panel += kLanes) {
      const int64_t here = std::clamp<int64_t>(used - panel, 0, kLanes);
      for (int64_t n = 0; n < here; ++n) read(first + panel + n, rows.data() + n * inner_);
      std::fill(rows.begin() + here * inner_, rows.end(), 0.0f);
      for (int64_t k = 0; k < inner_; ++k)
        for (int64_t n = 0; n < kLanes; ++n) group[k * width + panel + n] = rows[static_cast<size_t>(n * inner_ + k)];
    }
  });
}

PackedMatrix::PackedMatrix(Packing packing, int64_t outputs, int64_t inner, const std::function<void(int64_t, const QuantizedRow&)>& read,
                           ThreadPool& threads, std::byte* storage)
    : packing_(packing), outputs_(outputs), inner_(inner) {
  FATHOM_ASSERT(packing != Packing::f32);
  std::byte* const to = place(storage);
  threads.parallel_for(groups(), [&](int64_t group) {
    const int64_t first = group * kGroup;
    pack_group(packing, inner, first, std::min(kGroup, outputs - first), group_width(outputs, first), read,
               to + quantized_group_offset(packing, first, block_count(inner)));
  });
}

void PackedMatrix::copy_row(int64_t output, float* to) const {
  const int64_t first = output / kGroup * kGroup, width = group_width(outputs_, first), n = output - first;
  if (packing_ == Packing::f32) {
    const float* const from = data() + first * inner_ + n;
    for (int64_t k = 0; k < inner_; ++k) to[k] = from[k * width];
    return;
  }
  const Record record(packing_, width);
  const uint8_t* const group = records() + quantized_group_offset(packing_, first, block_count(inner_));
  const auto half = [](const uint8_t* from) {
    uint16_t bits;
    std::memcpy(&bits, from, 2);
    return f16_to_f32(bits);
  };
  const int offset = packing_ == Packing::q8 ? 128 : packing_ == Packing::q4 ? 8 : 0;
  for (int64_t k = 0; k < inner_; ++k) {
    const uint8_t* const block = group + k / kBlock * record.bytes;
    const Place at = place_of(packing_, width, n, k % kBlock);
    const int code = !four_bits(packing_) ? block[at.byte] : at.high ? block[at.byte] >> 4 : block[at.byte] & 15;
    const float value = half(block + record.codes + n * 2) * static_cast<float>(code - offset);
    to[k] = packing_ == Packing::q4_min ? value + half(block + record.codes + (width + n) * 2) : value;
  }
}

}  // namespace fathom::kernels
