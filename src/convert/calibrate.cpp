#include "convert/calibrate.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "infer/walk.h"
#include "model/cost.h"
#include "routing/shift.h"

namespace fathom::convert {

constexpr double kSameDial = 1e-9;

routing::DialTable uncalibrated(const model::ModelConfig& config, int64_t context, const std::vector<double>& more) {
  const auto fraction = [&](const std::vector<double>& capacity) { return model::expected_block_fraction(config, context, capacity); };
  routing::DialTable grid;
  grid.default_dial = std::min(fraction(config.routing.capacities()), 1.0);
  std::vector<double> dials = routing::default_grid(fraction(std::vector<double>(config.routing.cuts(), 0.0)), grid.default_dial);
  dials.insert(dials.end(), more.begin(), more.end());
  std::ranges::sort(dials);
  dials.erase(std::unique(dials.begin(), dials.end(), [](double a, double b) { return b - a < kSameDial; }), dials.end());
  for (const double dial : dials) grid.points.push_back({.dial = dial, .block_fraction = dial, .thresholds = {}, .capacity = {}, .loss = 0});
  return grid;
}

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
  std::vector<float> last;  // thresholds of the walk's last pass
  routing::ThresholdShift shift(trained_point.thresholds, [&](const std::vector<float>& thresholds) {
    walk.restart();
    const auto scores = std::make_shared<std::vector<std::vector<float>>>();  // of this pass, sorted
    const std::vector<double> capacities = walk.capacity(thresholds, scores.get());
    for (std::vector<float>& of_unit : *scores) std::ranges::sort(of_unit);
    const auto expected = [&config, fraction, thresholds, scores](double by) {
      std::vector<double> capacity(thresholds.size());
      for (size_t u = 0; u < scores->size(); ++u) {
        const std::vector<float>& sorted = (*scores)[u];
        for (size_t cut = config.routing.first_cut(u); cut < config.routing.first_cut(u + 1); ++cut) {
          const auto at_least = sorted.end() - std::ranges::lower_bound(sorted, thresholds[cut] + static_cast<float>(by));
          capacity[cut] = static_cast<double>(at_least) / static_cast<double>(std::max<size_t>(sorted.size(), 1));
        }
      }
      return fraction(capacity);
    };
    return routing::ThresholdShift::Met{{.dial = 0, .block_fraction = fraction(capacities), .thresholds = last = thresholds, .capacity = capacities, .loss = 0}, expected};
  });
  for (const routing::DialPoint& old : grid.points) {
    routing::DialPoint point;
    if (old.dial >= 1) {
      point = meeting(std::vector<double>(trained.size(), 1.0));
    } else if (std::abs(old.dial - grid.trained()) <= kSameDial) {
      point = trained_point;
    } else if (options.shift) {
      last.clear();
      point = shift.find(old.dial);
      if (point.thresholds == last) {
        point.loss = walk.loss();
      } else {  // not the last that was tried
        walk.restart();
        point = measure(point.thresholds);
      }
    } else {
      point = meeting(!old.capacity.empty() ? old.capacity : routing::capacities_for_dial(old.dial, trained, fraction));
    }
    point.dial = old.dial;
    table.points.push_back(std::move(point));
    if (options.progress) options.progress(table.points.size(), grid.points.size());
  }
  return table;
}

}  // namespace fathom::convert
