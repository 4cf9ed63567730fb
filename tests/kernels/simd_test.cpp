// Every SIMD table against the reference, bit for bit: shapes that are multiples of nothing, no row, one row, unaligned
// inputs, guard bands, NaN and infinities.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"

namespace fathom::kernels::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

class Simd : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& simd = kernels_for(GetParam());
  const Kernels& plain = kernels_for(Isa::reference);
  Random random{20240601};
  int64_t size(int64_t most) { return static_cast<int64_t>(random.below(static_cast<uint64_t>(most + 1))); }
  // Sprinkles what breaks careless code.
  void spoil(Guarded& g) {
    const float bad[] = {kNan, kInf, -kInf, 0.0f, -0.0f, 1e-40f, -1e-40f, 3e38f};
    for (int64_t n = g.size() / 7; n > 0; --n) g[static_cast<int64_t>(random.below(g.size()))] = bad[random.below(8)];
  }
};

#define EXPECT_SAME(a, b, n)                                       \
  do {                                                             \
    const int64_t at = first_difference((a), (b), (n));            \
    EXPECT_EQ(at, -1) << "index " << at << " of " << (n) << ": "   \
                      << (at >= 0 ? (a)[at] : 0) << " and " << (at >= 0 ? (b)[at] : 0); \
  } while (0)

TEST_P(Simd, Matmul) {
  for (int trial = 0; trial < 300; ++trial) {
    const int64_t rows = trial % 10 == 0 ? trial / 10 : size(20), outputs = 1 + size(trial % 3 ? 90 : 300), inner = size(70);
    Guarded w = Guarded::normal(outputs * inner, random), x = Guarded::normal(rows * (inner + 3), random);
    if (trial % 4 == 0) spoil(w), spoil(x);
    const PackedMatrix packed({w.data(), static_cast<size_t>(outputs * inner)}, outputs, inner);
    const int64_t stride = outputs + size(5);
    Guarded a(rows * stride, size(15)), b(rows * stride, size(15));
    Matmul job{.x = x.data(), .x_stride = inner + 3, .rows = rows, .packed = packed.data(), .outputs = outputs, .inner = inner,
               .y = a.data(), .y_stride = stride, .group_begin = 0, .group_end = packed.groups()};
    simd.matmul(job);
    job.y = b.data();
    plain.matmul(job);
    ASSERT_TRUE(a.guards_hold() && b.guards_hold()) << rows << " x " << outputs << " x " << inner;
    EXPECT_SAME(a.data(), b.data(), rows * stride);  // what lies between the rows is untouched in both
    if (HasFailure()) FAIL() << rows << " x " << outputs << " x " << inner;
  }
}

TEST_P(Simd, MatmulRowsDoNotDependOnEachOther) {
  const int64_t outputs = 75, inner = 33, rows = 19;
  Guarded w = Guarded::normal(outputs * inner, random), x = Guarded::normal(rows * inner, random);
  const PackedMatrix packed({w.data(), static_cast<size_t>(outputs * inner)}, outputs, inner);
  Guarded together(rows * outputs), alone(outputs);
  Matmul job{.x = x.data(), .x_stride = inner, .rows = rows, .packed = packed.data(), .outputs = outputs, .inner = inner,
             .y = together.data(), .y_stride = outputs, .group_begin = 0, .group_end = packed.groups()};
  simd.matmul(job);
  for (int64_t r = 0; r < rows; ++r) {
    job.x = x.data() + r * inner, job.rows = 1, job.y = alone.data();
    simd.matmul(job);
    EXPECT_SAME(alone.data(), together.data() + r * outputs, outputs);
  }
}

TEST_P(Simd, Dot) {
  for (int64_t n = 0; n < 200; ++n) {
    Guarded a = Guarded::normal(n, random), b = Guarded::normal(n, random);
    if (n % 5 == 4) spoil(a);
    EXPECT_TRUE(same_bits(simd.dot(a.data(), b.data(), n), plain.dot(a.data(), b.data(), n))) << n;
  }
}

TEST_P(Simd, DotLeavesLanesAloneThatATailDoesNotReach) {  // fma(0, 0, −0) would be +0
  const std::vector<float> tiny(33, -1e-30f), small(33, 1e-30f);
  for (int64_t n : {16, 17, 31, 33}) {
    EXPECT_TRUE(std::signbit(plain.dot(tiny.data(), small.data(), n))) << n;
    EXPECT_TRUE(std::signbit(simd.dot(tiny.data(), small.data(), n))) << n;
  }
}

TEST_P(Simd, RmsNorm) {
  for (int trial = 0; trial < 200; ++trial) {
    const int64_t rows = size(5), width = 1 + size(70), stride = width + size(3);
    Guarded x = Guarded::normal(rows * stride, random, 3), w = Guarded::normal(width, random);
    if (trial % 5 == 0) spoil(x);
    Guarded a(rows * stride, size(15)), b(rows * stride, size(15));
    const float* const weight = trial % 3 ? w.data() : nullptr;
    simd.rms_norm(x.data(), stride, rows, width, weight, 1e-5f, a.data(), stride);
    plain.rms_norm(x.data(), stride, rows, width, weight, 1e-5f, b.data(), stride);
    ASSERT_TRUE(a.guards_hold());
    EXPECT_SAME(a.data(), b.data(), rows * stride);
    simd.rms_norm(x.data(), stride, rows, width, weight, 1e-5f, x.data(), stride);  // in place
    for (int64_t r = 0; r < rows; ++r) EXPECT_SAME(x.data() + r * stride, b.data() + r * stride, width);
  }
}

TEST_P(Simd, Rope) {
  for (int64_t half = 1; half < 70; ++half) {
    const int64_t heads = size(4), D = 2 * half;
    Guarded c = Guarded::normal(half, random), s = Guarded::normal(half, random), a = Guarded::normal(heads * D, random);
    if (half % 5 == 0 && heads > 0) spoil(a);
    Guarded b = a;
    simd.rope(a.data(), heads, D, c.data(), s.data());
    plain.rope(b.data(), heads, D, c.data(), s.data());
    ASSERT_TRUE(a.guards_hold());
    EXPECT_SAME(a.data(), b.data(), heads * D);
  }
}

TEST_P(Simd, Elementwise) {
  for (int64_t n = 0; n < 120; ++n) {
    Guarded x = Guarded::normal(n, random, n % 2 ? 2 : 60), a = Guarded::normal(n, random);
    if (n % 3 == 0 && n > 0) spoil(x), spoil(a);
    const float g = static_cast<float>(random.normal());
    const auto both = [&](auto call) {
      Guarded y(n, size(15)), z(n, size(15));
      call(simd, y.data());
      call(plain, z.data());
      ASSERT_TRUE(y.guards_hold()) << n;
      EXPECT_SAME(y.data(), z.data(), n);
    };
    both([&](const Kernels& k, float* y) { k.silu_mul(x.data(), a.data(), n, y); });
    both([&](const Kernels& k, float* y) { k.silu(x.data(), a.data(), n, y); });
    both([&](const Kernels& k, float* y) { k.add(x.data(), a.data(), n, y); });
    both([&](const Kernels& k, float* y) { k.scaled_add(x.data(), a.data(), g, n, y); });
    both([&](const Kernels& k, float* y) { k.exp_shifted(x.data(), g, n, y); });
  }
}

TEST_P(Simd, ExpOverItsWholeRange) {
  std::vector<float> x, y, z;
  for (double v = -120; v < 100; v += 0.00371) x.push_back(static_cast<float>(v));
  for (float v : {-87.33654f, std::nextafter(-87.33654f, -100.0f), 88.72283f, std::nextafter(88.72283f, 100.0f), kInf, -kInf,
                  kNan, 0.0f, -0.0f, 1e-45f})
    x.push_back(v);
  y.resize(x.size()), z.resize(x.size());
  simd.exp_shifted(x.data(), 0, static_cast<int64_t>(x.size()), y.data());
  plain.exp_shifted(x.data(), 0, static_cast<int64_t>(x.size()), z.data());
  EXPECT_SAME(y.data(), z.data(), static_cast<int64_t>(x.size()));
}

TEST_P(Simd, LogSumExpAndArgmax) {
  for (int trial = 0; trial < 300; ++trial) {
    const int64_t n = trial < 100 ? trial : trial < 290 ? size(300) : 4000 + size(9000);
    Guarded x = Guarded::normal(n, random, 4);
    if (trial % 4 == 0 && n > 0) spoil(x);
    const double a = simd.log_sum_exp(x.data(), n), b = plain.log_sum_exp(x.data(), n);
    EXPECT_TRUE(a == b || (std::isnan(a) && std::isnan(b))) << n << ": " << a << " and " << b;
    EXPECT_EQ(simd.argmax(x.data(), n), plain.argmax(x.data(), n)) << n;
  }
}

TEST_P(Simd, ArgmaxTiesGoToTheLowestIndex) {
  for (int trial = 0; trial < 300; ++trial) {
    const int64_t n = 1 + size(100);
    Guarded x(n, size(15));
    for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(random.below(3));
    EXPECT_EQ(simd.argmax(x.data(), n), plain.argmax(x.data(), n));
  }
  const std::vector<float> none(37, -kInf), nan(37, kNan);
  EXPECT_EQ(simd.argmax(none.data(), 37), 0);
  EXPECT_EQ(simd.argmax(nan.data(), 37), 0);
}

std::vector<Isa> simd_isas() {
  std::vector<Isa> all = available();
  all.erase(all.begin());
  return all;
}

INSTANTIATE_TEST_SUITE_P(Isa, Simd, ::testing::ValuesIn(simd_isas()), [](const auto& info) { return isa_name(info.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Simd);

}  // namespace
}  // namespace fathom::kernels::test
