// The linear map of low rank that comes nearest to what a part of a block does: reduced-rank ridge regression (Izenman 1975,
// "Reduced-rank regression for the multivariate linear model") of deltas y on inputs u, in closed form from their second moments.
//
//   minimise  Σ ‖y − U·D·u‖² + λ ‖U·D‖²   over D [r, C], U [C, r]
//
// With A = Σ u uᵀ + λ I, B = Σ y uᵀ: the map of full rank is B A⁻¹, and U are the r main eigenvectors of B A⁻¹ Bᵀ, D = Uᵀ B A⁻¹.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/thread_pool.h"

namespace fathom::convert {

class LowRankFit {
 public:
  explicit LowRankFit(int64_t width);  // C
  ~LowRankFit();
  LowRankFit(LowRankFit&&) noexcept;

  // More rows of u and y, [N, C] each. Sums are f64 over products of at most some hundred rows in f32.
  void add(std::span<const float> u, std::span<const float> y, ThreadPool& threads);
  int64_t rows() const;

  struct Map {
    std::vector<float> down;  // D [r, C]
    std::vector<float> up;    // U [C, r]
    double unexplained = 0;   // share of Σ‖y‖² that is left, of the rows it was fitted on
    // U·D·u of rows [N, C]; 0 of an empty map.
    std::vector<float> apply(std::span<const float> u, int64_t width, ThreadPool& threads) const;
  };
  // λ is `ridge` times the mean of the diagonal of Σ u uᵀ. 1 ≤ rank ≤ C. Without a row, or where every y is 0, the map is 0.
  Map solve(int64_t rank, double ridge) const;

 private:
  struct Sums;
  std::unique_ptr<Sums> sums_;
};

// The weights of a linear score w·u + b of targets t, by ridge regression on the same kind of sums. The intercept is not penalised.
class ScoreFit {
 public:
  explicit ScoreFit(int64_t width);
  ~ScoreFit();
  ScoreFit(ScoreFit&&) noexcept;
  void add(std::span<const float> u, std::span<const float> t, ThreadPool& threads);  // [N, C], [N]
  struct Score {
    std::vector<float> weight;  // [C]
    float bias = 0;
    double explained = 0;       // R² on the rows it was fitted on; 0 where every t is the same
  };
  Score solve(double ridge) const;

 private:
  struct Sums;
  std::unique_ptr<Sums> sums_;
};

}  // namespace fathom::convert
