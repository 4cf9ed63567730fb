// Products with f16 and bf16 weights: on every ISA the bits of the f32 product with the same numbers, or of the definition of bf16.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "core/float16.h"
#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"

namespace fathom::kernels::test {
namespace {

// A matrix of 16-bit numbers, packed as they are and as the f32 numbers that they stand for.
struct Halves {
  std::vector<uint16_t> bits;  // [N][K]
  std::vector<float> values;
  PackedMatrix packed, widened;

  Halves(Packing packing, int64_t outputs, int64_t inner, Random& random, bool any_bits, int threads = 1) : bits(static_cast<size_t>(outputs * inner)) {
    for (uint16_t& b : bits) {
      const float x = static_cast<float>(random.normal());
      b = any_bits ? static_cast<uint16_t>(random.below(1 << 16)) : packing == Packing::f16 ? f32_to_f16(x) : f32_to_bf16(x);
      values.push_back(packing == Packing::f16 ? f16_to_f32(b) : bf16_to_f32(b));
    }
    ThreadPool pool(threads);
    packed = PackedMatrix(packing, outputs, inner, [&](int64_t n, std::byte* row) {
      std::copy_n(std::as_bytes(std::span(bits)).data() + n * inner * 2, inner * 2, row);  // not memcpy: of an empty row there is no address
    }, pool);
    widened = PackedMatrix(values, outputs, inner);
  }
};

class PlainSimd : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& simd = kernels_for(GetParam());
  const Kernels& plain = kernels_for(Isa::reference);
  Random random{20261128};
  int64_t size(int64_t most) { return static_cast<int64_t>(random.below(static_cast<uint64_t>(most + 1))); }
};

TEST_P(PlainSimd, F16ProductsAreThoseOfTheWidenedWeights) {
  for (int trial = 0; trial < 100; ++trial) {
    const Packing packing = Packing::f16;
    const int64_t rows = trial % 10 == 0 ? 17 : size(14), outputs = 1 + size(trial % 4 ? 70 : 200), inner = size(trial % 5 ? 70 : 300);
    const Halves w(packing, outputs, inner, random, trial % 3 == 0);  // any bits: subnormal, infinite and no numbers too
    Guarded x = Guarded::normal(rows * (inner + 3), random);
    const int64_t stride = outputs + size(5);
    Guarded a(rows * stride, size(15)), b(rows * stride, size(15)), c(rows * stride, size(15));
    Matmul job{.x = x.data(), .x_stride = inner + 3, .rows = rows, .packing = packing, .packed = w.packed.data(), .outputs = outputs, .inner = inner,
               .y = a.data(), .y_stride = stride, .group_begin = 0, .group_end = w.packed.groups()};
    simd.matmul(job);
    job.y = b.data();
    plain.matmul(job);
    job.y = c.data(), job.packing = Packing::f32, job.packed = w.widened.data();
    plain.matmul(job);
    ASSERT_TRUE(a.guards_hold() && b.guards_hold());
    ASSERT_EQ(first_difference(a.data(), b.data(), rows * stride), -1) << packing_name(packing) << " " << rows << " x " << outputs << " x " << inner;
    ASSERT_EQ(first_difference(b.data(), c.data(), rows * stride), -1) << packing_name(packing) << " " << rows << " x " << outputs << " x " << inner;
  }
}

// Rows of numbers of every kind: of `kind` 0 as activations are, of 1 subnormal ones and products that are, of 2 any bits.
Guarded numbers(int64_t count, int kind, Random& random) {
  Guarded x = Guarded::normal(count, random, kind == 1 ? 2e-38 : 1);
  for (int64_t i = 0; i < count; ++i)
    if (kind == 2 || (kind == 1 && i % 3 == 0)) {
      const uint32_t bits = static_cast<uint32_t>(random.below(uint64_t{1} << 32)) & (kind == 1 ? 0x807fffffu : 0xffffffffu);
      std::memcpy(&x[i], &bits, sizeof bits);
    }
  return x;
}

uint32_t pair_at(const Guarded& pairs, int64_t i) {
  uint32_t bits;
  std::memcpy(&bits, pairs.data() + i, sizeof bits);
  return bits;
}

TEST_P(PlainSimd, RowsAreRoundedToPairsOfBf16) {
  for (int trial = 0; trial < 60; ++trial) {
    const int64_t rows = 1 + size(4), width = size(70), stride = width + size(3);
    const Guarded x = numbers(rows * stride, trial % 3, random);
    Guarded pairs(rows * pair_count(width), size(15));
    simd.round_rows(x.data(), stride, rows, width, pairs.data());
    ASSERT_TRUE(pairs.guards_hold());
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < 2 * pair_count(width); ++i) {
        const float value = i < width ? x.data()[r * stride + i] : 0.0f;
        const float kept = std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value;
        const uint32_t half = pair_at(pairs, r * pair_count(width) + i / 2) >> (i % 2 * 16) & 0xffff;
        ASSERT_EQ(half, f32_to_bf16(kept)) << value << " in row " << r << " at " << i;
      }
  }
}

TEST_P(PlainSimd, Bf16ProductsAreTheDefinition) {
  int64_t flushed = 0;
  for (int trial = 0; trial < 150; ++trial) {
    const int kind = trial % 3;
    const int64_t rows = trial % 10 == 0 ? 17 : size(14), outputs = 1 + size(trial % 4 ? 70 : 200), inner = size(trial % 5 ? 70 : 300);
    const Halves w(Packing::bf16, outputs, inner, random, kind == 2);
    const Guarded x = numbers(rows * inner, kind, random);
    const int64_t pairs = pair_count(inner), x_stride = pairs + size(3), stride = outputs + size(5);
    Guarded rounded(rows * x_stride), a(rows * stride, size(15)), b(rows * stride, size(15));
    for (int64_t r = 0; r < rows; ++r) plain.round_rows(x.data() + r * inner, inner, 1, inner, rounded.data() + r * x_stride);
    Matmul job{.x = rounded.data(), .x_stride = x_stride, .rows = rows, .packing = Packing::bf16, .packed = w.packed.data(), .outputs = outputs, .inner = inner,
               .y = a.data(), .y_stride = stride, .group_begin = 0, .group_end = w.packed.groups()};
    simd.matmul(job);
    job.y = b.data();
    plain.matmul(job);
    ASSERT_TRUE(a.guards_hold() && b.guards_hold());
    ASSERT_EQ(first_difference(a.data(), b.data(), rows * stride), -1) << rows << " x " << outputs << " x " << inner << ", kind " << kind;
    const auto flush = [](float v) { return std::fpclassify(v) == FP_SUBNORMAL ? std::copysign(0.0f, v) : v; };
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t n = 0; n < outputs; ++n) {
        float acc = 0, unflushed = 0;
        const auto add = [&](int64_t k) {
          const float xk = k < inner ? bf16_to_f32(f32_to_bf16(flush(x.data()[r * inner + k]))) : 0.0f, wk = k < inner ? w.values[static_cast<size_t>(n * inner + k)] : 0.0f;
          acc = flush(std::fma(flush(xk), flush(wk), acc)), unflushed = std::fma(xk, wk, unflushed);
        };
        for (int64_t pair = 0; pair < pairs; ++pair) add(2 * pair + 1), add(2 * pair);
        ASSERT_TRUE(same_bits(acc, b[r * stride + n])) << acc << " and " << b[r * stride + n] << ", kind " << kind << ", row " << r << ", output " << n;
        flushed += !same_bits(acc, unflushed);
      }
  }
  EXPECT_GT(flushed, 100);  // else subnormals did not matter
}

TEST_P(PlainSimd, RowsDoNotDependOnEachOther) {
  for (const Packing packing : {Packing::bf16, Packing::f16}) {
    const int64_t outputs = 75, inner = 33, rows = 19;
    const Halves w(packing, outputs, inner, random, false);
    Guarded x = Guarded::normal(rows * inner, random), together(rows * outputs), alone(outputs);
    int64_t x_stride = inner;
    if (packing == Packing::bf16) {
      x_stride = pair_count(inner);
      Guarded rounded(rows * x_stride);
      simd.round_rows(x.data(), inner, rows, inner, rounded.data());
      x = std::move(rounded);
    }
    Matmul job{.x = x.data(), .x_stride = x_stride, .rows = rows, .packing = packing, .packed = w.packed.data(), .outputs = outputs, .inner = inner,
               .y = together.data(), .y_stride = outputs, .group_begin = 0, .group_end = w.packed.groups()};
    simd.matmul(job);
    for (int64_t r = 0; r < rows; ++r) {
      job.x = x.data() + r * x_stride, job.rows = 1, job.y = alone.data();
      simd.matmul(job);
      EXPECT_EQ(first_difference(alone.data(), together.data() + r * outputs, outputs), -1) << packing_name(packing) << " row " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, PlainSimd, ::testing::ValuesIn(available()), [](const auto& i) { return isa_name(i.param); });

TEST(Plain, RowsComeBackOutOfTheirPanels) {
  Random random(3);
  for (const Packing packing : {Packing::bf16, Packing::f16})
    for (const int64_t outputs : {1, 16, 33, 64, 150}) {
      const int64_t inner = 9;
      const Halves w(packing, outputs, inner, random, true, 2);
      EXPECT_EQ(w.packed.bytes(), (outputs + 15) / 16 * 16 * (packing == Packing::bf16 ? inner + 1 : inner) * 2);
      std::vector<float> row(static_cast<size_t>(inner));
      for (int64_t n = 0; n < outputs; ++n) {
        w.packed.copy_row(n, row.data());
        EXPECT_EQ(first_difference(row.data(), w.values.data() + n * inner, inner), -1) << packing_name(packing) << " " << outputs << " " << n;
      }
    }
}

}  // namespace
}  // namespace fathom::kernels::test
