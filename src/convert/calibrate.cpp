#include "convert/calibrate.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "infer/walk.h"
#include "model/cost.h"

namespace fathom::convert {

namespace {

constexpr double kSameDial = 1e-9;
constexpr double kFractionError = 0.003;  // of a dial that was found by moving thresholds
constexpr int kMostPasses = 8;            // over the text, for one such dial

std::vector<float> moved(std::vector<float> thresholds, double by) {
  for (float& t : thresholds) t = static_cast<float>(t + by);
  return thresholds;
}

// Dials found by moving thresholds together: the block fraction falls with the amount. What was measured for one dial brackets the next.
class Shift {
 public:
  // `measure`: the point of these thresholds.
  Shift(std::vector<float> base, std::function<routing::DialPoint(const std::vector<float>&)> measure) : base_(std::move(base)), measure_(std::move(measure)) {}

  routing::DialPoint find(double dial) {
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
      const auto place = std::ranges::upper_bound(tried_, t.amount, {}, &Tried::amount);
      const bool found = std::abs(t.point.block_fraction - dial) < kFractionError;
      tried_.insert(place, t);
      if (found) return t.point;
    }
    return std::ranges::min_element(tried_, {}, [&](const Tried& t) { return std::abs(t.point.block_fraction - dial); })->point;
  }

 private:
  struct Tried {
    double amount;
    routing::DialPoint point;
  };
  static double step(size_t tried) { return 0.5 * static_cast<double>(1 + tried); }  // scores are logarithms: half a unit is much
  std::vector<float> base_;
  std::function<routing::DialPoint(const std::vector<float>&)> measure_;
  std::vector<Tried> tried_;  // ascending by amount, so descending by block fraction
};

}  // namespace

routing::DialTable calibrate_dial(std::shared_ptr<const infer::Weights> weights, const routing::DialTable& grid, const CalibrationText& text,
                                  const CalibrationOptions& options) {
  const model::ModelConfig& config = weights->config();
  FATHOM_ASSERT(config.routing.decides(), "a model that decides nothing has no dial");
  if (config.routing.random()) return grid;
  routing::DialTable table;
  table.default_dial = grid.default_dial, table.trained_dial = grid.trained_dial;
  size_t longest = 0;
  for (const std::span<const int32_t> window : text.windows) {
    longest = std::max(longest, window.size());
    table.tokens += static_cast<int64_t>(window.size());
  }
  if (table.tokens == 0) throw UserError({text.name, "", "no token", "text to calibrate on", ""});
  table.text = str(text.name, ", ", text.windows.size(), " windows of at most ", longest, " tokens");

  const std::vector<double> trained = config.routing.capacities();
  const int64_t context = text.context > 0 ? text.context : static_cast<int64_t>(longest);
  const auto fraction = [&](const std::vector<double>& capacity) { return model::expected_block_fraction(config, context, capacity); };

  infer::BlockWalk walk(std::move(weights), text.windows, {.threads = options.threads, .kernels = nullptr, .kv_bytes = 0}, options.check);
  const auto measure = [&](std::vector<float> thresholds) {  // those that the walk has met so far, or any from its start
    const infer::BlockWalk::Figures figures = walk.finish(thresholds);
    return routing::DialPoint{.dial = 0, .block_fraction = fraction(figures.capacity), .thresholds = std::move(thresholds), .capacity = figures.capacity, .loss = figures.loss};
  };
  const auto meeting = [&](const std::vector<double>& capacity) {
    walk.restart();
    return measure(routing::calibrate(config.routing, capacity, [&](size_t u, const std::vector<float>& before) { return walk.scores(u, before); }));
  };
  const routing::DialPoint trained_point = meeting(trained);
  Shift shift(trained_point.thresholds, [&](const std::vector<float>& thresholds) {
    walk.restart();
    return measure(thresholds);
  });
  for (const routing::DialPoint& old : grid.points) {
    routing::DialPoint point;
    if (old.dial >= 1) point = meeting(std::vector<double>(trained.size(), 1.0));
    else if (std::abs(old.dial - grid.trained()) <= kSameDial) point = trained_point;
    else if (options.shift) point = shift.find(old.dial);
    else point = meeting(!old.capacity.empty() ? old.capacity : routing::capacities_for_dial(old.dial, trained, fraction));
    point.dial = old.dial;
    table.points.push_back(std::move(point));
    if (options.progress) options.progress(table.points.size(), grid.points.size());
  }
  return table;
}

}  // namespace fathom::convert
