// Attention over pages of every type: what is stored, and that every table computes the bits of the reference, whole or in parts.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "core/float16.h"
#include "core/json.h"
#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/kv_page.h"

namespace fathom::kernels::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
constexpr KvType kTypes[] = {KvType::f32, KvType::f16, KvType::bf16, KvType::q8_0};

uint8_t* bytes(Guarded& page) { return reinterpret_cast<uint8_t*>(page.data()); }
Guarded page_of(const KvPage& layout, Random& random) {  // anything at all in it
  Guarded page(layout.bytes() / 4, static_cast<int64_t>(random.below(16)));
  for (int64_t i = 0; i < layout.bytes(); ++i) bytes(page)[i] = static_cast<uint8_t>(random.below(256));
  return page;
}

// Where a number lies, by the words of kernels/README.md; `read` gives what it stands for.
struct Place {
  const KvPage& layout;
  int64_t element(bool value, int64_t head, int64_t slot, int64_t d) const {
    const int64_t D = layout.head_dim, width = std::min<int64_t>(16, D - d / 16 * 16), four = std::min<int64_t>(4, D - d / 4 * 4);
    if (layout.type == KvType::q8_0) return start(value, head) + (value ? d / 16 * 256 + (slot / 4 * width + d % 16) * 4 + slot % 4 : d / 4 * 64 + slot * four + d % 4);
    return start(value, head) + (value ? d / 16 * 256 + slot * width + d % 16 : d * 16 + slot) * size();
  }
  int64_t scale(bool value, int64_t head, int64_t slot, int64_t d) const { return start(value, head) + 16 * layout.head_dim + (d / 32 * 16 + slot) * 2; }
  int64_t size() const { return layout.type == KvType::f32 ? 4 : layout.type == KvType::q8_0 ? 1 : 2; }
  int64_t start(bool value, int64_t head) const {
    const int64_t blocks = (layout.head_dim + 31) / 32, each = 16 * (layout.head_dim * size() + (layout.type == KvType::q8_0 ? 2 * blocks : 0));
    return (value ? layout.kv_heads + head : head) * each;
  }
  float read(const uint8_t* page, bool value, int64_t head, int64_t slot, int64_t d) const {
    const uint8_t* const at = page + element(value, head, slot, d);
    const auto half = [](const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); };
    switch (layout.type) {
      case KvType::f16: return f16_to_f32(half(at));
      case KvType::bf16: return bf16_to_f32(half(at));
      case KvType::q8_0: return static_cast<float>(value ? static_cast<int8_t>(*at) : *at - 128) * f16_to_f32(half(page + scale(value, head, slot, d)));
      case KvType::f32: break;
    }
    float x;
    std::memcpy(&x, at, 4);
    return x;
  }
};

std::string name_of_type(KvType type) { return name_of(type, kKvTypeNames); }

class PagesSimd : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& simd = kernels_for(GetParam());
  const Kernels& plain = kernels_for(Isa::reference);
  Random random{20261129};
  int64_t size(int64_t most) { return static_cast<int64_t>(random.below(static_cast<uint64_t>(most + 1))); }

  void spoil(Guarded& x) {
    const float bad[] = {kNan, kInf, -kInf, 0.0f, -0.0f, 1e-40f, 65519.996f, 65520.0f, -65504.0f, 3e-8f, 2.9802322e-8f, 5.97e-8f, 6.1e-5f, 8321039.0f, 8321040.0f, 3.4e38f,
                         std::bit_cast<float>(0x7f7f8000u), std::bit_cast<float>(0x3f808000u), std::bit_cast<float>(0x3f818000u), std::bit_cast<float>(0x7f800001u)};
    for (int64_t i = size(3); i < x.size(); i += 1 + size(20)) x[i] = bad[random.below(std::size(bad))];
  }
};

TEST_P(PagesSimd, SlotsAreStoredAsByTheReference) {
  for (int trial = 0; trial < 400; ++trial) {
    const KvPage layout{.type = kTypes[trial % 4], .kv_heads = 1 + size(2), .head_dim = 2 * (1 + size(trial % 3 ? 40 : 80))};
    const int64_t n = layout.kv_heads * layout.head_dim;
    Guarded key = Guarded::normal(n, random, std::pow(10, random.normal() * 2)), value = Guarded::normal(n, random);
    if (trial % 3 == 0) spoil(key), spoil(value);
    if (trial % 11 == 0) std::fill_n(value.data(), n, trial % 2 ? 0.0f : 1e-31f);
    Guarded a = page_of(layout, random), b = a;
    StoreSlot job{.type = layout.type, .key = key.data(), .value = value.data(), .kv_heads = layout.kv_heads, .head_dim = layout.head_dim, .slot = size(15), .page = bytes(a)};
    simd.store_slot(job);
    job.page = bytes(b);
    plain.store_slot(job);
    ASSERT_TRUE(a.guards_hold() && b.guards_hold());
    for (int64_t i = 0; i < layout.bytes(); ++i) ASSERT_EQ(bytes(a)[i], bytes(b)[i]) << name_of_type(layout.type) << " D " << layout.head_dim << " byte " << i;
  }
}

// Pages of two heads, written slot by slot; what no query may see is NaN where the type has one.
struct Text {
  KvPage layout;
  std::vector<Guarded> memory, widened;  // in its type, and the same numbers in f32
  std::vector<const uint8_t*> pages, wide_pages;

  Text(KvType type, int64_t D, int64_t slots, Random& random, bool infinite) : layout{.type = type, .kv_heads = 2, .head_dim = D} {
    const KvPage wide{.type = KvType::f32, .kv_heads = 2, .head_dim = D};
    for (int64_t first = 0; first < slots + 16; first += 16) {
      memory.push_back(page_of(layout, random)), widened.push_back(page_of(wide, random));
      for (int64_t slot = 0; slot < 16; ++slot) {
        Guarded key = Guarded::normal(2 * D, random), value = Guarded::normal(2 * D, random, 2);
        if (infinite && random.below(40) == 0) value[static_cast<int64_t>(random.below(static_cast<uint64_t>(2 * D)))] = random.below(2) ? kInf : kNan;
        if (first + slot >= slots) std::fill_n(key.data(), 2 * D, kNan), std::fill_n(value.data(), 2 * D, kNan);
        kernels_for(Isa::reference).store_slot({.type = type, .key = key.data(), .value = value.data(), .kv_heads = 2, .head_dim = D, .slot = slot, .page = bytes(memory.back())});
        for (int64_t i = 0; i < 2 * D; ++i) {
          const Place at{layout};
          key[i] = at.read(bytes(memory.back()), false, i / D, slot, i % D), value[i] = at.read(bytes(memory.back()), true, i / D, slot, i % D);
        }
        kernels_for(Isa::reference).store_slot({.type = KvType::f32, .key = key.data(), .value = value.data(), .kv_heads = 2, .head_dim = D, .slot = slot, .page = bytes(widened.back())});
      }
    }
    for (Guarded& m : memory) pages.push_back(bytes(m));
    for (Guarded& m : widened) wide_pages.push_back(bytes(m));
  }
};

// Queries over a text, each with its output.
struct Queries {
  std::vector<int64_t> visible;
  Guarded q, out;
  std::vector<const float*> from;
  std::vector<float*> to;
  Guarded scores, inverse;
  int64_t D;

  Queries(const std::vector<int64_t>& visible, int64_t D, const Guarded& q)
      : visible(visible), q(q), out(q.size(), 3), scores(std::ssize(visible) * ((visible.back() + 15) / 16 * 16), 5), inverse(std::ssize(visible)), D(D) {
    for (size_t i = 0; i < visible.size(); ++i) from.push_back(this->q.data() + static_cast<int64_t>(i) * D), to.push_back(out.data() + static_cast<int64_t>(i) * D);
  }
  Attend job(const KvPage& layout, const std::vector<const uint8_t*>& pages, int64_t head) {
    return {.type = layout.type, .pages = pages.data(), .key_offset = layout.keys(head), .value_offset = layout.values(head), .head_dim = D, .scale = 0.37f,
            .queries = from.data(), .outputs = to.data(), .visible = visible.data(), .count = std::ssize(visible), .scores = scores.data(), .inverse = inverse.data()};
  }
  bool guards_hold() const { return out.guards_hold() && scores.guards_hold() && inverse.guards_hold(); }
};

void whole(const Kernels& table, const Attend& a) {
  attend_scores(table, a, 0, (a.visible[a.count - 1] + 15) / 16);
  table.attend_softmax(a, 0, a.count);
  attend_values(table, a, 0, a.head_dim);
}

void in_parts(const Kernels& table, const Attend& a, Random& random) {
  const auto cut = [&](int64_t size, int64_t multiple, auto body) {
    for (int64_t at = 0; at < size;) {
      const int64_t next = std::min(size, at + multiple * (1 + static_cast<int64_t>(random.below(4))));
      body(at, next);
      at = next;
    }
  };
  cut((a.visible[a.count - 1] + 15) / 16, 1, [&](int64_t from, int64_t to) { attend_scores(table, a, from, to); });
  cut(a.count, 1, [&](int64_t from, int64_t to) { table.attend_softmax(a, from, to); });
  cut(a.head_dim, 16, [&](int64_t from, int64_t to) { attend_values(table, a, from, to); });
}

TEST_P(PagesSimd, AttentionEqualsTheReferenceWholeAndInParts) {
  for (int trial = 0; trial < 320; ++trial) {
    const KvType type = kTypes[trial % 4];
    const int64_t D = trial % 53 == 3 ? 1024 : trial % 5 == 0 ? 64 * (1 + size(1)) : 2 * (1 + size(40)), count = 1 + size(7), most = 1 + size(trial % 10 == 0 ? 700 : 60), head = size(1);
    std::vector<int64_t> visible(static_cast<size_t>(count));
    const bool alike = trial % 3 == 0;  // a decode step's queries see the same
    for (auto& v : visible) v = alike ? most : 1 + size(most - 1);
    std::ranges::sort(visible);
    const bool infinite = trial % 7 == 0;
    Text text(type, D, visible.back(), random, infinite);
    Guarded q = Guarded::normal(count * D, random);
    if (trial % 21 == 7) spoil(q);  // of these trials what is compared may be NaN
    if (trial % 13 == 0) std::fill_n(q.data() + size(count - 1) * D, D, trial % 2 ? 0.0f : 1e-31f);
    Queries a(visible, D, q), b(visible, D, q), c(visible, D, q), d(visible, D, q);
    whole(simd, a.job(text.layout, text.pages, head));
    whole(plain, b.job(text.layout, text.pages, head));
    in_parts(simd, c.job(text.layout, text.pages, head), random);
    // The f32 formula on the numbers that are stored.
    const KvPage wide{.type = KvType::f32, .kv_heads = 2, .head_dim = D};
    whole(simd, d.job(wide, text.wide_pages, head));
    const std::string what = str(name_of_type(type), " D ", D, " count ", count, " slots ", visible.back());
    ASSERT_TRUE(a.guards_hold() && b.guards_hold() && c.guards_hold()) << what;
    ASSERT_EQ(first_difference(a.out.data(), b.out.data(), count * D), -1) << what;
    ASSERT_EQ(first_difference(a.out.data(), c.out.data(), count * D), -1) << what << ", in parts";
    for (int64_t i = 0; i < count * D; ++i) {
      if (type == KvType::q8_0) ASSERT_TRUE(infinite || std::abs(a.out[i] - d.out[i]) <= 4e-3f) << what << ", as f32: " << a.out[i] - d.out[i];  // scores of queries of 14 bits, by values of up to 8
      else ASSERT_TRUE(same_bits(a.out[i], d.out[i])) << what << ", as f32";
    }
    for (int64_t i = 0; i < count * D; ++i) ASSERT_TRUE(infinite || !std::isnan(a.out[i])) << what << ": saw what it must not";
    for (Queries* own : {&a, &c})  // each query alone, in place
      for (int64_t i = 0; i < count; ++i) {
        Guarded query(D, 7);
        std::copy_n(q.data() + i * D, D, query.data());
        const float* from = query.data();
        float* to = query.data();
        Attend job = own->job(text.layout, text.pages, head);
        job.queries = &from, job.outputs = &to, job.visible = &visible[static_cast<size_t>(i)], job.count = 1;
        own == &a ? whole(simd, job) : in_parts(plain, job, random);
        ASSERT_EQ(first_difference(query.data(), b.out.data() + i * D, D), -1) << what << ", query " << i << " alone";
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, PagesSimd, ::testing::ValuesIn(available()), [](const auto& i) { return isa_name(i.param); });

TEST(Pages, HoldTheNearestNumbersOfTheirType) {
  Random random(8);
  for (const KvType type : kTypes)
    for (int trial = 0; trial < 50; ++trial) {
      const KvPage layout{.type = type, .kv_heads = 2, .head_dim = 2 + 2 * static_cast<int64_t>(random.below(60))};
      const int64_t D = layout.head_dim, slot = static_cast<int64_t>(random.below(16));
      Guarded key = Guarded::normal(2 * D, random), value = Guarded::normal(2 * D, random, 30), page = page_of(layout, random), before = page;
      kernels_for(Isa::reference).store_slot({.type = type, .key = key.data(), .value = value.data(), .kv_heads = 2, .head_dim = D, .slot = slot, .page = bytes(page)});
      const Place at{layout};
      EXPECT_EQ(at.start(true, 2), layout.bytes());
      EXPECT_EQ(layout.slot_bytes() * 16, layout.bytes());
      for (const bool is_value : {false, true})
        for (int64_t i = 0; i < 2 * D; ++i) {
          const Guarded& from = is_value ? value : key;
          const float x = from.data()[i], found = at.read(bytes(page), is_value, i / D, slot, i % D);
          if (type != KvType::q8_0) {
            ASSERT_EQ(found, type == KvType::f32 ? x : type == KvType::f16 ? f16_to_f32(f32_to_f16(x)) : bf16_to_f32(f32_to_bf16(x)));
            continue;
          }
          float most = 0;
          for (int64_t j = i % D / 32 * 32; j < std::min(D, i % D / 32 * 32 + 32); ++j) most = std::max(most, std::abs(from.data()[i / D * D + j]));
          const float scale = f16_to_f32(f32_to_f16(most / 127.0f));
          ASSERT_EQ(found, std::nearbyint(x * (127.0f / most)) * scale) << D << " " << i;
          ASSERT_LE(std::abs(found - x), 0.57f * most / 127.0f);  // half a step, and the scale's own rounding of up to 127 steps
        }
      // The other slots are as they were.
      for (int64_t other = 0; other < 16; ++other)
        for (int64_t i = 0; i < 2 * D && other != slot; ++i)
          for (const bool is_value : {false, true})
            ASSERT_TRUE(same_bits(at.read(bytes(page), is_value, i / D, other, i % D), at.read(bytes(before), is_value, i / D, other, i % D)));
    }
}

TEST(Pages, WhatNoScaleHoldsIsNaN) {
  for (const float bad : {kNan, kInf, -kInf, 8321040.0f}) {
    const KvPage layout{.type = KvType::q8_0, .kv_heads = 1, .head_dim = 64};
    Random random(9);
    Guarded key = Guarded::normal(64, random), value = key, page = page_of(layout, random);
    key[40] = bad;
    for (const Isa isa : available()) {
      kernels_for(isa).store_slot({.type = KvType::q8_0, .key = key.data(), .value = value.data(), .kv_heads = 1, .head_dim = 64, .slot = 3, .page = bytes(page)});
      for (int64_t d = 0; d < 64; ++d) EXPECT_EQ(std::isnan(Place{layout}.read(bytes(page), false, 0, 3, d)), d >= 32) << bad << " " << d;
      EXPECT_FALSE(std::isnan(Place{layout}.read(bytes(page), true, 0, 3, 40)));
    }
  }
}

TEST(Pages, SlotsFromOneOnAreCleared) {
  Random random(10);
  for (const KvType type : kTypes)
    for (int64_t first = 0; first <= 16; ++first) {
      const KvPage layout{.type = type, .kv_heads = 2, .head_dim = 2 + 2 * static_cast<int64_t>(random.below(40))};
      Guarded page = page_of(layout, random), before = page;
      clear_slots(layout, first, bytes(page));
      ASSERT_TRUE(page.guards_hold());
      int64_t zeros = 0;
      for (int64_t i = 0; i < layout.bytes(); ++i) {
        zeros += bytes(page)[i] == 0;
        ASSERT_TRUE(bytes(page)[i] == 0 || bytes(page)[i] == bytes(before)[i]);
      }
      EXPECT_GE(zeros, (16 - first) * layout.slot_bytes());
      const Place at{layout};
      for (int64_t slot = 0; slot < 16; ++slot)
        for (int64_t i = 0; i < 2 * layout.head_dim; ++i)
          for (const bool value : {false, true}) {
            const float x = at.read(bytes(page), value, i / layout.head_dim, slot, i % layout.head_dim);
            ASSERT_TRUE(slot >= first ? x == 0 : same_bits(x, at.read(bytes(before), value, i / layout.head_dim, slot, i % layout.head_dim)));
          }
    }
}

TEST(Reference, AttentionIsSoftmaxOfScores) {
  Random random(5);
  const int64_t D = 6, visible = 21;
  Text text(KvType::f32, D, visible, random, false);
  Queries queries({visible}, D, Guarded::normal(D, random));
  const int64_t before = reference_multiply_adds();
  whole(kernels_for(Isa::reference), queries.job(text.layout, text.pages, 1));
  EXPECT_EQ(reference_multiply_adds() - before, 2 * D * visible);
  const Place at{text.layout};
  std::vector<double> p(visible), expected(D);
  double total = 0;
  for (int64_t j = 0; j < visible; ++j) {
    for (int64_t d = 0; d < D; ++d) p[static_cast<size_t>(j)] += static_cast<double>(queries.q[d]) * at.read(text.pages[static_cast<size_t>(j / 16)], false, 1, j % 16, d);
    total += p[static_cast<size_t>(j)] = std::exp(0.37 * p[static_cast<size_t>(j)]);
  }
  for (int64_t d = 0; d < D; ++d) {
    for (int64_t j = 0; j < visible; ++j) expected[static_cast<size_t>(d)] += p[static_cast<size_t>(j)] / total * at.read(text.pages[static_cast<size_t>(j / 16)], true, 1, j % 16, d);
    EXPECT_NEAR(queries.out[d], expected[static_cast<size_t>(d)], 1e-6);
  }
}

// What README.md says of a q8_0 cache, in plain words: a head of 40 numbers has two blocks, 70 slots have two.
TEST(Reference, AttentionOverCodesIsWhatItsDefinitionSays) {
  Random random(6);
  const int64_t D = 40, visible = 70;
  Text text(KvType::q8_0, D, visible, random, false);
  Queries queries({visible}, D, Guarded::normal(D, random));
  whole(kernels_for(Isa::reference), queries.job(text.layout, text.pages, 1));
  const Place at{text.layout};
  const auto code = [&](bool value, int64_t slot, int64_t d) {
    const uint8_t byte = text.pages[static_cast<size_t>(slot / 16)][at.element(value, 1, slot % 16, d)];
    return value ? static_cast<int>(static_cast<int8_t>(byte)) : byte - 128;
  };
  const auto scale = [&](bool value, int64_t slot, int64_t d) {
    const uint8_t* const p = text.pages[static_cast<size_t>(slot / 16)] + at.scale(value, 1, slot % 16, d);
    return f16_to_f32(static_cast<uint16_t>(p[0] | p[1] << 8));
  };
  const auto whole_numbers = [](const std::vector<float>& x, float codes, float& one) {
    float most = 0;
    for (const float v : x) most = std::max(most, std::abs(v));
    std::vector<int> found;
    for (const float v : x) found.push_back(static_cast<int>(std::nearbyint(v * (codes / most))));
    one = most / codes;
    return found;
  };
  std::vector<float> p(visible), out(D);
  for (int64_t j = 0; j < visible; ++j) {
    float acc = 0;
    for (const auto& [first, last] : {std::pair<int64_t, int64_t>{0, 32}, {32, 40}}) {
      float one;
      const std::vector<int> query = whole_numbers({queries.q.data() + first, queries.q.data() + last}, 8127, one);
      int part = 0;
      for (int64_t d = first; d < last; ++d) part += query[static_cast<size_t>(d - first)] * code(false, j, d);
      acc = std::fma(static_cast<float>(part), scale(false, j, first) * one, acc);
    }
    p[static_cast<size_t>(j)] = acc * 0.37f;
  }
  const float most = *std::ranges::max_element(p);
  double total = 0;
  for (float& x : p) total += x = static_cast<float>(std::exp(static_cast<double>(x - most)));
  for (int64_t d = 0; d < D; ++d)
    for (const auto& [first, last] : {std::pair<int64_t, int64_t>{0, 64}, {64, 70}}) {
      std::vector<float> weight;
      for (int64_t j = first; j < last; ++j) weight.push_back(p[static_cast<size_t>(j)] * scale(true, j, d));
      float one;
      const std::vector<int> codes = whole_numbers(weight, 16383, one);
      int part = 0;
      for (int64_t j = first; j < last; ++j) part += codes[static_cast<size_t>(j - first)] * code(true, j, d);
      out[static_cast<size_t>(d)] = std::fma(static_cast<float>(part), one, out[static_cast<size_t>(d)]);
    }
  for (int64_t d = 0; d < D; ++d) EXPECT_NEAR(queries.out[d], out[static_cast<size_t>(d)] / total, 1e-6) << d;
}

}  // namespace
}  // namespace fathom::kernels::test
