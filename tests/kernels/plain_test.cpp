// Products with bf16 and f16 weights: on every ISA the bits of the f32 product with the same numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
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

TEST_P(PlainSimd, ProductsAreThoseOfTheWidenedWeights) {
  for (int trial = 0; trial < 200; ++trial) {
    const Packing packing = trial % 2 ? Packing::f16 : Packing::bf16;
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

TEST_P(PlainSimd, RowsDoNotDependOnEachOther) {
  for (const Packing packing : {Packing::bf16, Packing::f16}) {
    const int64_t outputs = 75, inner = 33, rows = 19;
    const Halves w(packing, outputs, inner, random, false);
    Guarded x = Guarded::normal(rows * inner, random), together(rows * outputs), alone(outputs);
    Matmul job{.x = x.data(), .x_stride = inner, .rows = rows, .packing = packing, .packed = w.packed.data(), .outputs = outputs, .inner = inner,
               .y = together.data(), .y_stride = outputs, .group_begin = 0, .group_end = w.packed.groups()};
    simd.matmul(job);
    for (int64_t r = 0; r < rows; ++r) {
      job.x = x.data() + r * inner, job.rows = 1, job.y = alone.data();
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
      EXPECT_EQ(w.packed.bytes(), (outputs + 15) / 16 * 16 * inner * 2);
      std::vector<float> row(static_cast<size_t>(inner));
      for (int64_t n = 0; n < outputs; ++n) {
        w.packed.copy_row(n, row.data());
        EXPECT_EQ(first_difference(row.data(), w.values.data() + n * inner, inner), -1) << packing_name(packing) << " " << outputs << " " << n;
      }
    }
}

}  // namespace
}  // namespace fathom::kernels::test
