// Quantised products: every SIMD table against the reference to the bit, the reference against what the formats mean.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/float16.h"
#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"

namespace fathom::kernels::test {
namespace {

// What each packing means, in words of its own.
struct Meaning {
  Packing packing;
  int codes, zero;        // how many there are, and the one that stands for 0
  int64_t shared;         // elements that share a scale
  bool minimum, two_levels;
  int least, most;        // sub-scales of two levels
};
constexpr Meaning kMeanings[] = {{Packing::q8, 256, 128, 32, false, false, 0, 0},  {Packing::q4, 16, 8, 32, false, false, 0, 0},
                                 {Packing::q4_min, 16, 0, 32, true, false, 0, 0},  {Packing::q5, 32, 16, 32, false, false, 0, 0},
                                 {Packing::q5_min, 32, 0, 32, true, false, 0, 0},  {Packing::q4_k, 16, 0, 32, true, true, 0, 63},
                                 {Packing::q5_k, 32, 0, 32, true, true, 0, 63},    {Packing::q6_k, 64, 32, 16, false, true, -128, 127}};
constexpr int kPackings = std::size(kMeanings);

// A quantised matrix as whole numbers and scales, and packed.
struct Matrix {
  Meaning means;
  int64_t outputs, inner, blocks;
  int64_t tops, subs;                            // f16 scales of a row, and whole numbers that multiply them
  std::vector<uint8_t> codes;                    // [N][K]
  std::vector<uint16_t> scale, minimum;          // [N][tops]
  std::vector<int8_t> sub_scale, sub_minimum;    // [N][subs], [N][blocks]
  PackedMatrix packed;

  Matrix(const Meaning& m, int64_t n, int64_t k, Random& random, int threads = 1)
      : means(m), outputs(n), inner(k), blocks(block_count(k)), tops(m.two_levels ? (blocks + 7) / 8 : blocks), subs(blocks * 32 / m.shared),
        codes(static_cast<size_t>(n * k)), scale(static_cast<size_t>(n * tops)), minimum(scale.size()), sub_scale(static_cast<size_t>(n * subs)), sub_minimum(static_cast<size_t>(n * blocks)) {
    const double deviation = m.two_levels ? 0.0003 : 0.01;
    for (uint8_t& code : codes) code = static_cast<uint8_t>(random.below(static_cast<uint64_t>(m.codes)));
    for (uint16_t& s : scale) s = f32_to_f16(static_cast<float>(random.normal() * deviation));
    for (uint16_t& x : minimum) x = f32_to_f16(static_cast<float>(random.normal() * deviation * 5));
    for (int8_t& s : sub_scale) s = static_cast<int8_t>(m.least + static_cast<int>(random.below(static_cast<uint64_t>(m.most - m.least + 1))));
    for (int8_t& s : sub_minimum) s = static_cast<int8_t>(random.below(64));
    if (scale.size() > 3) scale[2] = 0x0003, minimum[1] = 0x8001, scale[0] = 0;  // subnormal, and zero
    ThreadPool pool(threads);
    packed = PackedMatrix(m.packing, n, k, [this](int64_t row, const QuantizedRow& to) {
      const auto copy = [row](const auto& from, auto span, int64_t count) {
        ASSERT_TRUE(span.empty() || static_cast<int64_t>(span.size()) == count);
        std::copy_n(from.begin() + row * count, span.size(), span.begin());
      };
      copy(codes, to.codes, inner), copy(scale, to.scale, tops), copy(minimum, to.minimum, tops);
      copy(sub_scale, to.sub_scale, subs), copy(sub_minimum, to.sub_minimum, blocks);
      ASSERT_EQ(to.minimum.empty(), !means.minimum);
      ASSERT_EQ(to.sub_scale.empty(), !means.two_levels);
      ASSERT_EQ(to.sub_minimum.empty(), !(means.two_levels && means.minimum));
    }, pool);
  }
  double value(int64_t n, int64_t k) const {
    const size_t top = static_cast<size_t>(n * tops + k / (means.two_levels ? 256 : 32));
    double s = f16_to_f32(scale[top]), m = means.minimum ? f16_to_f32(minimum[top]) : 0;
    if (means.two_levels) s *= sub_scale[static_cast<size_t>(n * subs + k / means.shared)], m *= sub_minimum[static_cast<size_t>(n * blocks + k / 32)];
    return s * (codes[static_cast<size_t>(n * inner + k)] - means.zero) + m;
  }
  const char* name() const { return packing_name(means.packing); }
  QuantizedMatmul product(const QuantizedRows& x, int64_t rows, float* y, int64_t stride) const {
    return {.x = x, .rows = rows, .packing = means.packing, .packed = packed.data(), .outputs = outputs, .y = y, .y_stride = stride, .group_begin = 0,
            .group_end = packed.groups()};
  }
};

struct Input {
  std::vector<int8_t> codes;
  std::vector<float> scale;
  std::vector<int32_t> half_sum;
  QuantizedRows rows;
  Input(int64_t count, int64_t width)
      : codes(static_cast<size_t>(count * block_count(width) * kBlock) + 16, 77), scale(static_cast<size_t>(count * block_count(width)) + 1, -1.0f),
        half_sum(scale.size() * 2, -1), rows{codes.data(), scale.data(), half_sum.data(), block_count(width)} {}
};

class QuantizedSimd : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& simd = kernels_for(GetParam());
  const Kernels& plain = kernels_for(Isa::reference);
  Random random{20261127};
  int64_t size(int64_t most) { return static_cast<int64_t>(random.below(static_cast<uint64_t>(most + 1))); }
};

TEST_P(QuantizedSimd, RowsAreQuantisedAsByTheReference) {
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                       0.0f, -0.0f, 1e-40f, 3e38f, -3e38f, 1e-30f, 9e-31f};
  for (int trial = 0; trial < 300; ++trial) {
    const int64_t rows = size(5), width = 1 + size(100), stride = width + size(3);
    Guarded x = Guarded::normal(rows * stride, random, std::pow(10, random.normal() * 3));
    if (trial % 3 == 0)
      for (int64_t i = 0; i < x.size(); i += 1 + size(40)) x[i] = bad[random.below(10)];
    if (trial % 7 == 0 && x.size() > 0) std::fill_n(x.data(), x.size(), 0.0f);
    Input a(rows, width), b(rows, width);
    simd.quantize_rows(x.data(), stride, rows, width, a.rows);
    plain.quantize_rows(x.data(), stride, rows, width, b.rows);
    ASSERT_EQ(a.codes, b.codes) << rows << " x " << width;  // the guards behind the last row too
    ASSERT_EQ(a.half_sum, b.half_sum);
    for (size_t i = 0; i < a.scale.size(); ++i) ASSERT_TRUE(same_bits(a.scale[i], b.scale[i])) << i;
  }
}

TEST_P(QuantizedSimd, ProductsEqualTheReference) {
  for (int trial = 0; trial < 80 * kPackings; ++trial) {
    const int64_t rows = trial % 10 == 0 ? 17 : size(14), outputs = 1 + size(trial % 4 ? 70 : 200), inner = 1 + size(trial % 5 ? 130 : 700);
    const Matrix w(kMeanings[trial % kPackings], outputs, inner, random);
    Guarded x = Guarded::normal(rows * inner, random);
    Input in(rows, inner);
    plain.quantize_rows(x.data(), inner, rows, inner, in.rows);
    if (trial % 9 == 0 && rows > 0) in.scale[0] = std::numeric_limits<float>::quiet_NaN();
    const int64_t stride = outputs + size(5);
    Guarded a(rows * stride, size(15)), b(rows * stride, size(15));
    simd.quantized_matmul(w.product(in.rows, rows, a.data(), stride));
    plain.quantized_matmul(w.product(in.rows, rows, b.data(), stride));
    ASSERT_TRUE(a.guards_hold() && b.guards_hold());
    ASSERT_EQ(first_difference(a.data(), b.data(), rows * stride), -1) << w.name() << " " << rows << " x " << outputs << " x " << inner;
  }
}

TEST_P(QuantizedSimd, RowsDoNotDependOnEachOther) {
  for (const Meaning& meaning : kMeanings) {
    const int64_t outputs = 83, inner = 352, rows = 19;
    const Matrix w(meaning, outputs, inner, random);
    Guarded x = Guarded::normal(rows * inner, random);
    Input in(rows, inner);
    simd.quantize_rows(x.data(), inner, rows, inner, in.rows);
    Guarded together(rows * outputs), alone(outputs);
    simd.quantized_matmul(w.product(in.rows, rows, together.data(), outputs));
    for (int64_t r = 0; r < rows; ++r) {
      Input one(1, inner);
      simd.quantize_rows(x.data() + r * inner, inner, 1, inner, one.rows);
      simd.quantized_matmul(w.product(one.rows, 1, alone.data(), outputs));
      EXPECT_EQ(first_difference(alone.data(), together.data() + r * outputs, outputs), -1) << w.name() << " row " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, QuantizedSimd, ::testing::ValuesIn(available()), [](const auto& i) { return isa_name(i.param); });

TEST(Quantized, ReferenceIsTheProductOfWhatTheFormatsMean) {
  const Kernels& plain = kernels_for(Isa::reference);
  Random random(5);
  for (const Meaning& meaning : kMeanings)
    for (const int64_t inner : {32, 45, 160, 512, 600}) {
      const int64_t outputs = 70, rows = 3;
      const Matrix w(meaning, outputs, inner, random);
      Guarded x = Guarded::normal(rows * inner, random);
      Input in(rows, inner);
      plain.quantize_rows(x.data(), inner, rows, inner, in.rows);
      std::vector<float> y(static_cast<size_t>(rows * outputs));
      plain.quantized_matmul(w.product(in.rows, rows, y.data(), outputs));
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t n = 0; n < outputs; ++n) {
          double quantised = 0, whole = 0, bound = 0, size = 0;
          for (int64_t k = 0; k < inner; ++k) {
            const int64_t at = r * in.rows.blocks + k / kBlock;
            const double code = in.rows.codes[at * kBlock + k % kBlock] * static_cast<double>(in.rows.scale[at]);
            quantised += w.value(n, k) * code;
            whole += w.value(n, k) * x[r * inner + k];
            bound += std::abs(w.value(n, k)) * in.rows.scale[at] * 0.5001;  // half a code of every activation
            size += std::abs(w.value(n, k) * code) + 16 * std::abs(w.value(n, k)) * in.rows.scale[at];
          }
          const double found = y[static_cast<size_t>(r * outputs + n)];
          EXPECT_NEAR(found, quantised, 1e-5 * size + 1e-7) << w.name() << " " << inner << " " << r << " " << n;
          EXPECT_LE(std::abs(found - whole), bound + 1e-5 * size + 1e-7);
        }
    }
}

TEST(Quantized, ActivationsKeepTheirSizeAndSum) {
  const Kernels& plain = kernels_for(Isa::reference);
  std::vector<float> x(40, 0.25f);
  x[3] = -2.0f, x[35] = 1e-3f;
  Input in(1, 40);
  plain.quantize_rows(x.data(), 40, 1, 40, in.rows);
  EXPECT_EQ(in.codes[3], -127);
  EXPECT_EQ(in.codes[0], 16);  // 0.25 · 127 / 2 = 15.875
  EXPECT_FLOAT_EQ(in.scale[0], 2.0f / 127);
  EXPECT_EQ(in.half_sum[0], 15 * 16 - 127);
  EXPECT_EQ(in.half_sum[1], 16 * 16);
  EXPECT_EQ(in.codes[32], 127);
  EXPECT_EQ(in.codes[40], 0) << "filled up with zeros";
  EXPECT_EQ(in.codes[64], 77) << "past the row";
}

TEST(Quantized, RowsComeBackOutOfTheirPanels) {
  Random random(9);
  for (const Meaning& meaning : kMeanings)
    for (const int64_t outputs : {1, 16, 33, 64, 150}) {
      const int64_t inner = outputs % 2 ? 77 : 300;
      const Matrix w(meaning, outputs, inner, random, 2);
      EXPECT_EQ(w.packed.bytes(), packed_bytes(meaning.packing, outputs, inner));
      std::vector<float> row(static_cast<size_t>(inner));
      for (int64_t n = 0; n < outputs; ++n) {
        w.packed.copy_row(n, row.data());
        for (int64_t k = 0; k < inner; ++k) ASSERT_FLOAT_EQ(row[static_cast<size_t>(k)], static_cast<float>(w.value(n, k))) << w.name() << " " << n << " " << k;
      }
    }
}

TEST(Quantized, AWeightTakesWhatItsBlockTakes) {
  EXPECT_EQ(bytes_per_weight(Packing::f32), 4);
  EXPECT_EQ(bytes_per_weight(Packing::bf16), 2);
  EXPECT_EQ(bytes_per_weight(Packing::f16), 2);
  EXPECT_EQ(bytes_per_weight(Packing::q8), 34.0 / 32);
  EXPECT_EQ(bytes_per_weight(Packing::q4), 18.0 / 32);
  EXPECT_EQ(bytes_per_weight(Packing::q4_min), 20.0 / 32);
  EXPECT_EQ(bytes_per_weight(Packing::q5), 22.0 / 32);
  EXPECT_EQ(bytes_per_weight(Packing::q5_min), 24.0 / 32);
  EXPECT_EQ(bytes_per_weight(Packing::q4_k), 148.0 / 256);  // a file's 144: six bits of a sub-scale take a byte
  EXPECT_EQ(bytes_per_weight(Packing::q5_k), 180.0 / 256);
  EXPECT_EQ(bytes_per_weight(Packing::q6_k), 210.0 / 256);
}

}  // namespace
}  // namespace fathom::kernels::test
