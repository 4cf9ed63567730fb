#include "routing/shift.h"

#include <algorithm>
#include <cmath>

namespace fathom::routing {
namespace {

constexpr double kFractionError = 0.003;
constexpr int kMostPasses = 8;

double step(size_t tried) { return 0.5 * static_cast<double>(1 + tried); }  // scores are logarithms: half a unit is much

}  // namespace

std::vector<float> moved(std::vector<float> thresholds, double by) {
  for (float& t : thresholds) t = static_cast<float>(t + by);
  return thresholds;
}

DialPoint ThresholdShift::find(double dial) {
  for (int pass = 0; pass < kMostPasses; ++pass) {
    const auto lower = std::ranges::find_if(tried_, [&](const Tried& t) { return t.point.block_fraction <= dial; });  // the first: the nearest
    const bool above = lower != tried_.begin(), below = lower != tried_.end();
    double amount = 0;
    if (above && below) {
      const Tried &a = *std::prev(lower), &b = *lower;
      amount = a.amount + (b.amount - a.amount) * (a.point.block_fraction - dial) / std::max(a.point.block_fraction - b.point.block_fraction, 1e-12);
    } else if (above) {
      amount = tried_.back().amount + step(tried_.size());
    } else if (below) {
      amount = tried_.front().amount - step(tried_.size());
    }
    Tried t{amount, measure_(moved(base_, amount))};
    const bool found = std::abs(t.point.block_fraction - dial) < kFractionError;
    tried_.insert(std::ranges::upper_bound(tried_, t.amount, {}, &Tried::amount), t);
    if (found) return t.point;
  }
  return std::ranges::min_element(tried_, {}, [&](const Tried& t) { return std::abs(t.point.block_fraction - dial); })->point;
}

}  // namespace fathom::routing
