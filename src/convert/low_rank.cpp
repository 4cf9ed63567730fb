#include "convert/low_rank.h"

#include <algorithm>

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>

#include "core/error.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"

namespace fathom::convert {
namespace {

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int64_t kRowsInF32 = 512;  // of a product whose sums are f32
constexpr int64_t kRowsOfTask = 96;   // that one thread multiplies: they stay in its cache beside a group of columns

// sum [M, C] += aᵀ b for rows a [N, M], b [N, C], by the engine's kernels: b's columns lie as a packed matrix would, aᵀ as its inputs.
void add_product(const Eigen::Map<const Rows>& a, const Eigen::Map<const Rows>& b, MatrixXd& sum, ThreadPool& threads) {
  const kernels::Kernels& k = kernels::chosen();
  const int64_t M = a.cols(), C = b.cols(), groups = kernels::group_count(C), blocks = (M + kRowsOfTask - 1) / kRowsOfTask;
  kernels::Buffer packed(groups * kernels::kGroup * kRowsInF32);
  Rows product(M, C);
  for (int64_t row = 0; row < a.rows(); row += kRowsInF32) {
    const int64_t here = std::min(kRowsInF32, a.rows() - row);
    const Rows turned = a.middleRows(row, here).transpose();
    threads.parallel_for(groups, [&](int64_t group) {
      const int64_t first = group * kernels::kGroup, width = kernels::group_width(C, first), used = std::min(width, C - first);
      float* to = packed.data() + first * here;
      for (int64_t n = 0; n < here; ++n, to += width) {
        std::copy_n(b.data() + (row + n) * C + first, used, to);
        std::fill(to + used, to + width, 0.0f);
      }
    });
    threads.parallel_for(groups * blocks, [&](int64_t task) {
      const int64_t group = task % groups, begin = task / groups * kRowsOfTask, rows = std::min(kRowsOfTask, M - begin);
      k.matmul({.x = turned.data() + begin * here, .x_stride = here, .rows = rows, .packing = kernels::Packing::f32, .packed = reinterpret_cast<const uint8_t*>(packed.data()),
                .outputs = C, .inner = here, .y = product.data() + begin * C, .y_stride = C, .group_begin = group, .group_end = group + 1});
      const int64_t first = group * kernels::kGroup, used = std::min(kernels::kGroup, C - first);
      sum.block(begin, first, rows, used) += product.block(begin, first, rows, used).cast<double>();
    });
  }
}

Eigen::Map<const Rows> as_rows(std::span<const float> values, int64_t width) {
  FATHOM_ASSERT(static_cast<int64_t>(values.size()) % width == 0, values.size(), " numbers in rows of ", width);
  return {values.data(), static_cast<int64_t>(values.size()) / width, width};
}

// A + λ I, its factor. λ is relative to the mean of the diagonal, and to 1 where that is 0.
Eigen::LLT<MatrixXd> factor(const MatrixXd& a, double ridge) {
  const double mean = a.trace() / static_cast<double>(a.rows());
  MatrixXd with = a;
  with.diagonal().array() += ridge * (mean > 0 ? mean : 1.0);
  return Eigen::LLT<MatrixXd>(with);
}

}  // namespace

struct LowRankFit::Sums {
  MatrixXd a, b;  // Σ u uᵀ, Σ y uᵀ
  double energy = 0;
  int64_t rows = 0;
};

LowRankFit::LowRankFit(int64_t width) : sums_(new Sums{.a = MatrixXd::Zero(width, width), .b = MatrixXd::Zero(width, width)}) {}
LowRankFit::~LowRankFit() = default;
LowRankFit::LowRankFit(LowRankFit&&) noexcept = default;
int64_t LowRankFit::rows() const { return sums_->rows; }

void LowRankFit::add(std::span<const float> u, std::span<const float> y, ThreadPool& threads) {
  FATHOM_ASSERT(u.size() == y.size());
  const auto inputs = as_rows(u, sums_->a.rows()), deltas = as_rows(y, sums_->a.rows());
  add_product(inputs, inputs, sums_->a, threads);
  add_product(deltas, inputs, sums_->b, threads);
  sums_->energy += deltas.cast<double>().squaredNorm();
  sums_->rows += inputs.rows();
}

LowRankFit::Map LowRankFit::solve(int64_t rank, double ridge) const {
  const Sums& s = *sums_;
  const int64_t C = s.a.rows();
  FATHOM_ASSERT(rank >= 1 && rank <= C && ridge > 0, "rank ", rank, ", ridge ", ridge);
  Map out{.down = std::vector<float>(static_cast<size_t>(rank * C)), .up = std::vector<float>(static_cast<size_t>(rank * C)), .unexplained = 1};
  if (s.energy == 0) return out;
  const MatrixXd whole = factor(s.a, ridge).solve(s.b.transpose()).transpose();  // B A⁻¹ [C, C]
  MatrixXd fitted = whole * s.b.transpose();
  fitted = (0.5 * (fitted + fitted.transpose())).eval();
  const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(fitted);  // ascending
  MatrixXd up = eigen.eigenvectors().rightCols(rank).rowwise().reverse();
  MatrixXd down = up.transpose() * whole;
  // One product has many factorings. The two share its size, so that neither loses more when it is stored in fewer bits.
  for (int64_t i = 0; i < rank; ++i) {
    const double size = std::sqrt(down.row(i).norm());
    if (size == 0) continue;
    down.row(i) /= size;
    up.col(i) *= size;
  }
  Eigen::Map<Rows>(out.down.data(), rank, C) = down.cast<float>();
  Eigen::Map<Rows>(out.up.data(), C, rank) = up.cast<float>();
  // Σ‖y − W u‖² = Σ‖y‖² − 2 tr(W Bᵀ) + tr(W Σuuᵀ Wᵀ)
  const MatrixXd w = up * down;
  const double left = s.energy - 2 * (w.array() * s.b.array()).sum() + ((w * s.a).array() * w.array()).sum();
  out.unexplained = std::max(0.0, left / s.energy);
  return out;
}

std::vector<float> LowRankFit::Map::apply(std::span<const float> u, int64_t width, ThreadPool& threads) const {
  std::vector<float> out(u.size(), 0.0f);
  const int64_t rank = std::ssize(down) / width;
  if (rank == 0 || u.empty()) return out;
  const int64_t rows = std::ssize(u) / width;
  const kernels::PackedMatrix inner(down, rank, width), outer(up, width, rank);
  std::vector<float> low(static_cast<size_t>(rows * rank));
  threads.parallel_for((rows + kRowsOfTask - 1) / kRowsOfTask, [&](int64_t task) {
    const int64_t first = task * kRowsOfTask, here = std::min(kRowsOfTask, rows - first);
    const auto multiply = [&](const float* x, const kernels::PackedMatrix& w, float* y) {
      kernels::chosen().matmul({.x = x + first * w.inner(), .x_stride = w.inner(), .rows = here, .packing = w.packing(), .packed = w.data(), .outputs = w.outputs(), .inner = w.inner(),
                                .y = y + first * w.outputs(), .y_stride = w.outputs(), .group_begin = 0, .group_end = w.groups()});
    };
    multiply(u.data(), inner, low.data());
    multiply(low.data(), outer, out.data());
  });
  return out;
}

struct ScoreFit::Sums {
  MatrixXd a, b;  // Σ u uᵀ [C, C], Σ u t [C, 1]
  VectorXd mean;  // Σ u
  double t = 0, tt = 0;
  int64_t rows = 0;
};

ScoreFit::ScoreFit(int64_t width) : sums_(new Sums{.a = MatrixXd::Zero(width, width), .b = MatrixXd::Zero(width, 1), .mean = VectorXd::Zero(width)}) {}
ScoreFit::~ScoreFit() = default;
ScoreFit::ScoreFit(ScoreFit&&) noexcept = default;

void ScoreFit::add(std::span<const float> u, std::span<const float> t, ThreadPool& threads) {
  Sums& s = *sums_;
  const auto inputs = as_rows(u, s.a.rows());
  FATHOM_ASSERT(inputs.rows() == static_cast<int64_t>(t.size()));
  const Eigen::Map<const Rows> targets(t.data(), inputs.rows(), 1);
  add_product(inputs, inputs, s.a, threads);
  add_product(inputs, targets, s.b, threads);
  s.mean += inputs.cast<double>().colwise().sum().transpose();
  s.t += targets.cast<double>().sum();
  s.tt += targets.cast<double>().squaredNorm();
  s.rows += inputs.rows();
}

ScoreFit::Score ScoreFit::solve(double ridge) const {
  const Sums& s = *sums_;
  FATHOM_ASSERT(ridge > 0 && s.rows > 0);
  const double n = static_cast<double>(s.rows), mean = s.t / n;
  const VectorXd center = s.mean / n;
  const VectorXd covariance = s.b.col(0) - s.mean * mean;
  const VectorXd w = factor(s.a - n * center * center.transpose(), ridge).solve(covariance);
  Score out{.weight = std::vector<float>(static_cast<size_t>(w.size())), .bias = static_cast<float>(mean - w.dot(center)), .explained = 0};
  Eigen::Map<Eigen::VectorXf>(out.weight.data(), w.size()) = w.cast<float>();
  const double variance = s.tt - n * mean * mean;
  if (variance > 1e-12 * std::max(s.tt, 1e-300)) {
    const MatrixXd centered = s.a - n * center * center.transpose();
    out.explained = 1 - (variance - 2 * w.dot(covariance) + w.dot(centered * w)) / variance;
  }
  return out;
}

}  // namespace fathom::convert
