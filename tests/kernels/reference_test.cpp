// The reference kernels against the definition in double precision, their count of multiply–adds, packing, and the choice
// of a table.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"
#include "kernels/tables.h"

namespace fathom::kernels::test {
namespace {

const Kernels& reference() { return kernels_for(Isa::reference); }

TEST(Pack, GroupsAreWhereTheLayoutSays) {
  Random random(1);
  for (int64_t outputs : {1, 15, 16, 17, 64, 65, 100, 130, 192}) {
    const int64_t inner = 7;
    Guarded w = Guarded::normal(outputs * inner, random);
    const PackedMatrix packed({w.data(), static_cast<size_t>(outputs * inner)}, outputs, inner);
    EXPECT_EQ(packed.bytes(), (outputs + 15) / 16 * 16 * inner * 4);
    std::vector<float> row(inner);
    for (int64_t n = 0; n < outputs; ++n) {
      packed.copy_row(n, row.data());
      EXPECT_EQ(first_difference(row.data(), w.data() + n * inner, inner), -1) << outputs << " " << n;
    }
    // One group: [K][width]
    const auto at = [&](int64_t i) {
      float value;
      std::memcpy(&value, packed.data() + i * 4, sizeof value);
      return value;
    };
    EXPECT_EQ(at(3 * group_width(outputs, 0)), w[3]);
    for (int64_t n = outputs; n < (outputs + 15) / 16 * 16; ++n) {  // padding
      const int64_t first = n / 64 * 64;
      EXPECT_EQ(at(first * inner + 2 * group_width(outputs, first) + n - first), 0.0f);
    }
  }
}

TEST(Reference, MatmulIsTheProduct) {
  Random random(2);
  for (int trial = 0; trial < 50; ++trial) {
    const int64_t rows = 1 + random.below(5), outputs = 1 + random.below(90), inner = 1 + random.below(60);
    Guarded w = Guarded::normal(outputs * inner, random), x = Guarded::normal(rows * inner, random), y(rows * outputs);
    const PackedMatrix packed({w.data(), static_cast<size_t>(outputs * inner)}, outputs, inner);
    const int64_t before = reference_multiply_adds();
    reference().matmul({.x = x.data(), .x_stride = inner, .rows = rows, .packed = packed.data(), .outputs = outputs,
                        .inner = inner, .y = y.data(), .y_stride = outputs, .group_begin = 0, .group_end = packed.groups()});
    EXPECT_EQ(reference_multiply_adds() - before, rows * outputs * inner);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t n = 0; n < outputs; ++n) {
        double sum = 0, size = 0;
        for (int64_t k = 0; k < inner; ++k) {
          const double term = static_cast<double>(x[r * inner + k]) * w[n * inner + k];
          sum += term, size += std::abs(term);
        }
        ASSERT_NEAR(y[r * outputs + n], sum, 6e-8 * inner * size);
      }
  }
}

TEST(Reference, ExpIsWithinTwoUnitsInTheLastPlace) {
  for (double v = -87.3; v < 88.7; v += 0.00113) {
    const float x = static_cast<float>(v);
    float y;
    reference().exp_shifted(&x, 0, 1, &y);
    const double exact = std::exp(static_cast<double>(x));
    const float near = static_cast<float>(exact);
    const double unit = static_cast<double>(std::nextafter(near, std::numeric_limits<float>::infinity())) - near;
    ASSERT_LE(std::abs(y - exact), 2 * unit) << x;
  }
  const float zero = 0;
  float one;
  reference().exp_shifted(&zero, 0, 1, &one);
  EXPECT_EQ(one, 1.0f);
}

TEST(Reference, NormRopeSiluAreTheirFormulas) {
  Random random(3);
  const int64_t C = 45, D = 10;
  Guarded x = Guarded::normal(C, random, 2), w = Guarded::normal(C, random), y(C), u = Guarded::normal(C, random);
  reference().rms_norm(x.data(), C, 1, C, w.data(), 1e-3f, y.data(), C);
  double squares = 0;
  for (int64_t i = 0; i < C; ++i) squares += static_cast<double>(x[i]) * x[i];
  for (int64_t i = 0; i < C; ++i) EXPECT_NEAR(y[i], x[i] / std::sqrt(squares / C + 1e-3) * w[i], 1e-6);

  reference().silu_mul(x.data(), u.data(), C, y.data());
  for (int64_t i = 0; i < C; ++i) EXPECT_NEAR(y[i], x[i] / (1 + std::exp(-static_cast<double>(x[i]))) * u[i], 2e-6);
  reference().silu(x.data(), u.data(), C, y.data());
  for (int64_t i = 0; i < C; ++i) {
    const double s = static_cast<double>(x[i]) + u[i];
    EXPECT_NEAR(y[i], s / (1 + std::exp(-s)), 2e-6);
  }

  // Halves of a head turn as one complex number.
  Guarded head = Guarded::normal(D, random), turned = head;
  std::vector<float> c(D / 2), s(D / 2);
  for (int64_t i = 0; i < D / 2; ++i) c[i] = std::cos(0.3f * static_cast<float>(i + 1)), s[i] = std::sin(0.3f * static_cast<float>(i + 1));
  reference().rope(turned.data(), 1, D, c.data(), s.data());
  for (int64_t i = 0; i < D / 2; ++i) {
    EXPECT_NEAR(turned[i], head[i] * c[i] - head[i + D / 2] * s[i], 1e-6);
    EXPECT_NEAR(turned[i + D / 2], head[i + D / 2] * c[i] + head[i] * s[i], 1e-6);
  }
}

TEST(Reference, GateOneIsThePlainResidual) {
  Random random(4);
  for (int64_t i = 0; i < 10000; ++i) {
    const float x = static_cast<float>(random.normal()), a = static_cast<float>(random.normal()), m = static_cast<float>(random.normal());
    float gated, h, sum;
    reference().scaled_add(&x, &a, 1.0f, 1, &gated);
    reference().scaled_add(&gated, &m, 1.0f, 1, &gated);
    reference().add(&x, &a, 1, &h);
    reference().add(&h, &m, 1, &sum);
    ASSERT_TRUE(same_bits(gated, sum));
  }
}

TEST(Reference, LogSumExpOfALargeVocabulary) {
  Random random(6);
  Guarded x = Guarded::normal(150001, random, 3);
  double total = 0;
  for (int64_t i = 0; i < x.size(); ++i) total += std::exp(static_cast<double>(x[i]));
  EXPECT_NEAR(reference().log_sum_exp(x.data(), x.size()), std::log(total), 1e-6);
}

#if defined(__x86_64__)
TEST(Reference, BothBuildsComputeTheSameBits) {
  if (available().size() == 1) GTEST_SKIP() << "this machine has no fused multiply-add";
  Random random(7);
  Guarded x = Guarded::normal(5000, random, 5), w = Guarded::normal(5000, random), a(5000), b(5000);
  EXPECT_TRUE(same_bits(kReferencePlain->dot(x.data(), w.data(), 4999), kReferenceFma->dot(x.data(), w.data(), 4999)));
  kReferencePlain->silu_mul(x.data(), w.data(), 5000, a.data());
  kReferenceFma->silu_mul(x.data(), w.data(), 5000, b.data());
  EXPECT_EQ(first_difference(a.data(), b.data(), 5000), -1);
  const PackedMatrix packed({w.data(), 5000}, 50, 100);
  Matmul job{.x = x.data(), .x_stride = 100, .rows = 50, .packed = packed.data(), .outputs = 50, .inner = 100, .y = a.data(),
             .y_stride = 50, .group_begin = 0, .group_end = 1};
  kReferencePlain->matmul(job);
  job.y = b.data();
  kReferenceFma->matmul(job);
  EXPECT_EQ(first_difference(a.data(), b.data(), 2500), -1);
}
#endif

TEST(Choice, NamesAndErrors) {
  EXPECT_EQ(available().front(), Isa::reference);
  for (Isa isa : available()) EXPECT_EQ(kernels_named(isa_name(isa)).isa, isa);
  try {
    kernels_named("sse9");
    FAIL();
  } catch (const UserError& e) {
    EXPECT_EQ(e.parts().where, "FATHOM_ISA");
    EXPECT_NE(e.parts().expected.find("reference"), std::string::npos);
  }
  const std::vector<Isa> here = available();
  for (Isa isa : {Isa::avx2, Isa::avxvnni, Isa::avx512, Isa::avx512vnni, Isa::avx512bf16, Isa::neon, Isa::neondot}) {
    const bool runs = std::find(here.begin(), here.end(), isa) != here.end();
    if (!runs) {
      EXPECT_THROW(kernels_for(isa), UserError) << isa_name(isa);
    }
  }
}

// In a process of its own, since the choice is made once.
int choose_with(const char* isa) {
  ::setenv("FATHOM_ISA", isa, 1);
  try {
    return static_cast<int>(chosen().isa);
  } catch (const UserError&) {
    return 42;
  }
}

TEST(ChoiceDeathTest, TheEnvironmentForcesOne) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(std::exit(choose_with("reference")), ::testing::ExitedWithCode(static_cast<int>(Isa::reference)), "");
  EXPECT_EXIT(std::exit(choose_with("abacus")), ::testing::ExitedWithCode(42), "");
  EXPECT_EXIT(std::exit(choose_with("")), ::testing::ExitedWithCode(static_cast<int>(available().back())), "");
}

}  // namespace
}  // namespace fathom::kernels::test
