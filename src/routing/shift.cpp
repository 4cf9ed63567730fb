#include "routing/shift.h"

#include <algorithm>
#include <cmath>

namespace fathom::routing {
namespace {

constexpr double kFractionError = 0.003;
constexpr int kMostPasses = 8;
constexpr int kByScores = 3;  // passes that go where the scores say; where that was not it, between those that enclose the dial
constexpr double kFar = 64;  // scores are logarithms: further off nothing decides

double step(size_t tried) { return 0.5 * static_cast<double>(1 + tried); }  // scores are logarithms: half a unit is much

}  // namespace

std::vector<float> moved(std::vector<float> thresholds, double by) {
  for (float& t : thresholds) t = static_cast<float>(t + by);
  return thresholds;
}

double ThresholdShift::next_amount(double dial, int pass) const {
  if (tried_.empty()) return 0;
  const auto lower = std::ranges::find_if(tried_, [&](const Tried& t) { return t.point.block_fraction <= dial; });  // the first: the nearest
  const bool above = lower != tried_.begin(), below = lower != tried_.end();
  const double least = above ? std::prev(lower)->amount : -INFINITY, most = below ? lower->amount : INFINITY;
  // As the last pass's scores say, less what they were wrong about where they were measured.
  if (pass < kByScores && expected_) {
    const double wanted = dial + expected_(0) - last_fraction_;
    double low = -kFar, high = kFar;
    for (int halving = 0; halving < 40; ++halving) {
      const double middle = (low + high) / 2;
      (expected_(middle) > wanted ? low : high) = middle;
    }
    const double amount = last_amount_ + (low + high) / 2;
    if (amount > least && amount < most && std::abs(amount - last_amount_) < kFar * 0.99) return amount;
  }
  if (above && below) {
    const Tried &a = *std::prev(lower), &b = *lower;
    if (pass >= kByScores && pass % 2 == 0) return (a.amount + b.amount) / 2;  // far apart, and the fraction no line between
    return a.amount + (b.amount - a.amount) * (a.point.block_fraction - dial) / std::max(a.point.block_fraction - b.point.block_fraction, 1e-12);
  }
  return above ? tried_.back().amount + step(tried_.size()) : tried_.front().amount - step(tried_.size());
}

DialPoint ThresholdShift::find(double dial) {
  for (int pass = 0; pass < kMostPasses; ++pass) {
    const double amount = next_amount(dial, pass);
    Met met = measure_(moved(base_, amount));
    const Tried t{amount, std::move(met.point)};
    last_amount_ = amount, last_fraction_ = t.point.block_fraction, expected_ = std::move(met.expected);
    const bool found = std::abs(t.point.block_fraction - dial) < kFractionError;
    tried_.insert(std::ranges::upper_bound(tried_, t.amount, {}, &Tried::amount), t);
    if (found) return t.point;
  }
  return std::ranges::min_element(tried_, {}, [&](const Tried& t) { return std::abs(t.point.block_fraction - dial); })->point;
}

}  // namespace fathom::routing
