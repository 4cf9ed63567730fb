#include "kernels/pack.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/float16.h"
#include "kernels/layout.h"

namespace fathom::kernels {
namespace {

const Layout& layout_of(Packing packing) { return kLayouts[static_cast<size_t>(packing)]; }

// Where a code lies in a block of a group: the byte and shift of its low bits, and of its high ones from the record's start. Codes of
// fewer than 8 bits lie in turns of eight: the low halves of four bytes hold the first four, the high ones the others.
struct Place {
  int64_t low, high;
  int low_shift, high_shift;
  Place(const Layout& l, int64_t width, int64_t n, int64_t k) {
    const int64_t step = k / 4, turn = step / 2, byte = n * 4 + k % 4;
    const int odd = static_cast<int>(step % 2), moved = static_cast<int>(turn) * l.high_bits;
    low = l.low_bits == 8 ? step * width * 4 + byte : turn * width * 4 + byte;
    low_shift = l.low_bits == 8 ? 0 : odd * 4;
    high = l.low_bytes * width + moved / 4 * width * 4 + byte;
    high_shift = odd * 4 + moved % 4;
  }
};

// Where output n of a group finds scale `part` or the minimum (part = scales) behind the codes of a record, or in a head.
template <class T>
void put(std::byte* to, int64_t width, int64_t part, int64_t n, T value) {
  std::memcpy(to + (part * width + n) * static_cast<int64_t>(sizeof value), &value, sizeof value);
}
template <class T>
T get(const uint8_t* from, int64_t width, int64_t part, int64_t n) {
  T value;
  std::memcpy(&value, from + (part * width + n) * static_cast<int64_t>(sizeof value), sizeof value);
  return value;
}

// Four times four bytes: of a row four codes each, or four plain numbers.
using Fours [[gnu::vector_size(16)]] = uint32_t;

Fours fours(const void* from) {
  Fours v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

// to[i] holds number i of each row. In registers: bytes that are put together in memory would be loaded across the stores that wrote them.
void transpose(const Fours (&rows)[4], Fours* to) {
  const Fours a = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5), b = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
  const Fours c = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5), d = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  to[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5), to[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
  to[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5), to[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

// Codes of a block of sixteen outputs, the first of which is number `panel` of the group, four outputs at a time. No shift moves a
// code from one byte into another.
void pack_codes(const Layout& l, int64_t width, int64_t panel, const uint8_t* const (&codes)[kLanes], std::byte* record) {
  for (int64_t n = 0; n < kLanes; n += 4) {
    Fours steps[8];  // of four codes
    for (int64_t half = 0; half < 2; ++half)
      transpose({fours(codes[n] + half * 16), fours(codes[n + 1] + half * 16), fours(codes[n + 2] + half * 16), fours(codes[n + 3] + half * 16)}, steps + half * 4);
    const auto write = [&](int64_t at, Fours value) { std::memcpy(record + at, &value, sizeof value); };
    if (l.low_bits == 8) {
      for (int64_t step = 0; step < 8; ++step) write((step * width + panel + n) * 4, steps[step]);
      continue;
    }
    Fours high = {};
    for (int64_t turn = 0; turn < kBlock / 8; ++turn) {
      const Place at(l, width, panel + n, turn * 8);
      const Fours even = steps[turn * 2], odd = steps[turn * 2 + 1];
      write(at.low, (even & 0x0f0f0f0f) | (odd & 0x0f0f0f0f) << 4);
      if (l.high_bits == 0) continue;
      if (at.high_shift == 0) high = Fours{};  // the first turn of these bytes
      high |= (even >> 4 & 0x0f0f0f0f) << at.high_shift | (odd >> 4 & 0x0f0f0f0f) << (at.high_shift + 4);
      write(at.high, high);
    }
  }
}

void pack_group(const Layout& l, int64_t inner, int64_t first, int64_t used, int64_t width, const std::function<void(int64_t, const QuantizedRow&)>& read,
                std::byte* to) {
  const int64_t blocks = block_count(inner);
  const auto scales = l.two_levels ? (blocks + kSuperBlock - 1) / kSuperBlock : blocks, subs = l.two_levels ? blocks : 0;
  // Sixteen rows at a time, side by side: a row alone would touch every line of the group.
  std::vector<uint8_t> codes(static_cast<size_t>(kLanes * blocks * kBlock));
  std::vector<uint16_t> scale(static_cast<size_t>(kLanes * scales)), minimum(l.minimum ? scale.size() : 0);
  std::vector<int8_t> sub_scale(static_cast<size_t>(kLanes * subs * l.scales)), sub_minimum(static_cast<size_t>(l.minimum ? kLanes * subs : 0));
  const auto part = [](auto& all, int64_t n, int64_t count) { return std::span(all).subspan(static_cast<size_t>(all.empty() ? 0 : n * count), static_cast<size_t>(all.empty() ? 0 : count)); };
  for (int64_t panel = 0; panel < width; panel += kLanes) {
    const int64_t here = std::clamp<int64_t>(used - panel, 0, kLanes);
    if (here < kLanes)  // outputs that are not there
      std::ranges::fill(codes, 0), std::ranges::fill(scale, 0), std::ranges::fill(minimum, 0), std::ranges::fill(sub_scale, 0), std::ranges::fill(sub_minimum, 0);
    for (int64_t n = 0; n < here; ++n)
      read(first + panel + n, {part(codes, n, blocks * kBlock).first(static_cast<size_t>(inner)), part(scale, n, scales), part(minimum, n, scales), part(sub_scale, n, subs * l.scales),
                               part(sub_minimum, n, subs)});
    std::byte* at = to;
    for (int64_t b = 0; b < blocks; ++b, at += l.record_bytes * width) {
      // Value `index` of every row, where the outputs of the group find number `which` behind a record's codes or in a head.
      const auto numbers = [&](std::byte* place, int64_t which, const auto& all, int64_t count, int64_t index) {
        for (int64_t n = 0; n < kLanes; ++n) put(place, width, which, panel + n, all[static_cast<size_t>(n * count + index)]);
      };
      if (l.two_levels && b % kSuperBlock == 0) {
        numbers(at, 0, scale, scales, b / kSuperBlock);
        if (l.minimum) numbers(at, 1, minimum, scales, b / kSuperBlock);
        at += l.head_bytes * width;
      }
      const uint8_t* block[kLanes];
      for (int64_t n = 0; n < kLanes; ++n) block[n] = codes.data() + (n * blocks + b) * kBlock;
      pack_codes(l, width, panel, block, at);
      std::byte* const tail = at + l.code_bytes * width;
      if (l.two_levels) {
        for (int which = 0; which < l.scales; ++which) numbers(tail, which, sub_scale, subs * l.scales, b * l.scales + which);
        if (l.minimum) numbers(tail, l.scales, sub_minimum, subs, b);
      } else {
        numbers(tail, 0, scale, scales, b);
        if (l.minimum) numbers(tail, 1, minimum, scales, b);
      }
    }
  }
}

// T: a step of one output, a number or a pair of bf16.
template <class T>
void pack_plain_group(int64_t steps, int64_t first, int64_t used, int64_t width, const std::function<void(int64_t, std::byte*)>& read, T* group) {
  // Sixteen rows at a time: a strided store per element would touch a cache line each.
  std::vector<T> rows(static_cast<size_t>(kLanes * steps));
  for (int64_t panel = 0; panel < width; panel += kLanes) {
    const int64_t here = std::clamp<int64_t>(used - panel, 0, kLanes);
    std::ranges::fill(rows, T{0});
    for (int64_t n = 0; n < here; ++n) read(first + panel + n, reinterpret_cast<std::byte*>(rows.data() + n * steps));
    int64_t k = 0;
    if constexpr (sizeof(T) == sizeof(uint32_t))
      for (; k + 4 <= steps; k += 4)
        for (int64_t n = 0; n < kLanes; n += 4) {
          const T* const from = rows.data() + n * steps + k;
          Fours turned[4];
          transpose({fours(from), fours(from + steps), fours(from + steps * 2), fours(from + steps * 3)}, turned);
          for (int64_t i = 0; i < 4; ++i) std::memcpy(group + (k + i) * width + panel + n, &turned[i], sizeof turned[i]);
        }
    for (; k < steps; ++k)
      for (int64_t n = 0; n < kLanes; ++n) group[k * width + panel + n] = rows[static_cast<size_t>(n * steps + k)];
  }
}

}  // namespace

const char* packing_name(Packing packing) { return layout_of(packing).name; }

double bytes_per_weight(Packing packing) {
  constexpr int64_t kInner = kSuperBlock * kBlock;
  return static_cast<double>(packed_bytes(packing, kGroup, kInner)) / static_cast<double>(kGroup * kInner);
}

int64_t packed_bytes(Packing packing, int64_t outputs, int64_t inner) {
  const Layout& l = layout_of(packing);
  const int64_t padded = (outputs + kLanes - 1) / kLanes * kLanes;
  return padded * (is_plain(packing) ? plain_output_bytes(l, inner) : quantized_bytes(l, block_count(inner)));
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
  constexpr int64_t size = sizeof(float);
  // Not memcpy: of an empty row there is no address.
  pack_plain([&](int64_t n, std::byte* row) { std::copy_n(std::as_bytes(rows).data() + n * inner * size, inner * size, row); }, alone, storage);
}

PackedMatrix::PackedMatrix(Packing packing, int64_t outputs, int64_t inner, const std::function<void(int64_t, std::byte*)>& read, ThreadPool& threads,
                           std::byte* storage)
    : packing_(packing), outputs_(outputs), inner_(inner) {
  FATHOM_ASSERT(is_plain(packing), packing_name(packing));
  pack_plain(read, threads, storage);
}

void PackedMatrix::pack_plain(const std::function<void(int64_t, std::byte*)>& read, ThreadPool& threads, std::byte* storage) {
  std::byte* const to = place(storage);
  const Layout& l = layout_of(packing_);
  const int64_t steps = plain_steps(l, inner_);
  threads.parallel_for(groups(), [&](int64_t chunk) {
    const int64_t first = chunk * kGroup, width = group_width(outputs_, first), used = std::min(kGroup, outputs_ - first);
    std::byte* const group = to + first * plain_output_bytes(l, inner_);
    if (l.step * l.plain_bytes == 4) pack_plain_group(steps, first, used, width, read, reinterpret_cast<uint32_t*>(group));
    else pack_plain_group(steps, first, used, width, read, reinterpret_cast<uint16_t*>(group));
  });
}

PackedMatrix::PackedMatrix(Packing packing, int64_t outputs, int64_t inner, const std::function<void(int64_t, const QuantizedRow&)>& read,
                           ThreadPool& threads, std::byte* storage)
    : packing_(packing), outputs_(outputs), inner_(inner) {
  FATHOM_ASSERT(!is_plain(packing), packing_name(packing));
  std::byte* const to = place(storage);
  const Layout& l = layout_of(packing);
  threads.parallel_for(groups(), [&](int64_t group) {
    const int64_t first = group * kGroup;
    pack_group(l, inner, first, std::min(kGroup, outputs - first), group_width(outputs, first), read, to + first * quantized_bytes(l, block_count(inner)));
  });
}

void PackedMatrix::copy_row(int64_t output, float* to) const {
  const Layout& l = layout_of(packing_);
  const int64_t first = output / kGroup * kGroup, width = group_width(outputs_, first), n = output - first;
  if (is_plain(packing_)) {
    const uint8_t* const group = data() + first * plain_output_bytes(l, inner_);
    for (int64_t k = 0; k < inner_; ++k) {
      if (packing_ == Packing::f32) to[k] = get<float>(group, width, k, n);
      else if (packing_ == Packing::f16) to[k] = f16_to_f32(get<uint16_t>(group, width, k, n));
      else to[k] = bf16_to_f32(get<uint16_t>(group, width * 2, k / 2, n * 2 + k % 2));
    }
    return;
  }
  const uint8_t* at = data() + first * quantized_bytes(l, block_count(inner_));
  float top_scale = 1, top_minimum = 1;
  for (int64_t b = 0; b < block_count(inner_); ++b, at += l.record_bytes * width) {
    if (l.two_levels && b % kSuperBlock == 0) {
      top_scale = f16_to_f32(get<uint16_t>(at, width, 0, n));
      if (l.minimum) top_minimum = f16_to_f32(get<uint16_t>(at, width, 1, n));
      at += l.head_bytes * width;
    }
    const uint8_t* const tail = at + l.code_bytes * width;
    const auto number = [&](int64_t part) { return l.two_levels ? static_cast<float>(get<int8_t>(tail, width, part, n)) : f16_to_f32(get<uint16_t>(tail, width, part, n)); };
    const float minimum = l.minimum ? top_minimum * number(l.scales) : 0;
    for (int64_t k = 0; k < std::min(kBlock, inner_ - b * kBlock); ++k) {
      const Place place(l, width, n, k);
      const int low = l.low_bits == 8 ? at[place.low] : at[place.low] >> place.low_shift & 15;
      const int high = l.high_bits > 0 ? at[place.high] >> place.high_shift & ((1 << l.high_bits) - 1) : 0;
      const float value = top_scale * number(k * l.scales / kBlock) * static_cast<float>((high << 4 | low) - l.offset);
      to[b * kBlock + k] = l.minimum ? value + minimum : value;
    }
  }
}

}  // namespace fathom::kernels
