#include "convert/calibrate.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "infer/walk.h"
#include "model/cost.h"

namespace fathom::convert {

constexpr double kSameDial = 1e-9;

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
  for (const routing::DialPoint& old : grid.points) {
    routing::DialPoint point;
    point.dial = old.dial;
    std::vector<double> capacity = trained;
    if (old.dial >= 1) capacity.assign(trained.size(), 1.0);
    else if (std::abs(old.dial - grid.trained()) > kSameDial) capacity = routing::capacities_for_dial(old.dial, trained, fraction);
    walk.restart();
    point.thresholds = routing::calibrate(config.routing, capacity, [&](size_t u, const std::vector<float>& before) { return walk.scores(u, before); });
    const infer::BlockWalk::Figures figures = walk.finish(point.thresholds);
    point.loss = figures.loss;
    point.capacity = figures.capacity;
    point.block_fraction = fraction(figures.capacity);
    table.points.push_back(std::move(point));
    if (options.progress) options.progress(table.points.size(), grid.points.size());
  }
  return table;
}

}  // namespace fathom::convert
