#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/human.h"
#include "core/limits.h"
#include "model/cost.h"
#include "routing/select.h"

namespace fathom::train {
namespace {

double half_cosine(double p) { return 0.5 - 0.5 * std::cos(std::numbers::pi * p); }

int64_t step_rows(const TrainConfig& config) { return config.batch_size * config.accumulation; }

// Tokens of a row that each routed block runs at a step.
std::vector<int64_t> picked_at(const TrainConfig& config, int64_t step, int64_t total) {
  std::vector<int64_t> out;
  for (const double capacity : capacities_at(config, step, total)) out.push_back(routing::selected_count(capacity, config.sequence_length));
  return out;
}

}  // namespace

double learning_rate_factor(const ScheduleConfig& schedule, int64_t step, int64_t total) {
  FATHOM_ASSERT(step >= 0 && step < total, step, " of ", total);
  const int64_t warmup = schedule.warmup.of(total);
  if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup);
  const double low = schedule.final_ratio;
  // p is 0 at the first step after the warm-up and would be 1 at step `total`: no step is spent at exactly the lowest
  // rate, which may be 0.
  const double p = static_cast<double>(step - warmup) / static_cast<double>(total - warmup);
  switch (schedule.kind) {
    case ScheduleKind::constant: return 1;
    case ScheduleKind::linear: return 1 - (1 - low) * p;
    case ScheduleKind::cosine: return 1 - (1 - low) * half_cosine(p);
    case ScheduleKind::wsd: {
      const int64_t decay = std::min(schedule.decay.of(total), total - warmup), begin = total - decay;
      if (step < begin) return 1;
      return 1 - (1 - low) * static_cast<double>(step - begin) / static_cast<double>(decay);
    }
  }
  FATHOM_ASSERT(false, "unknown schedule");
}

double capacity_progress(const RouterTraining& router, int64_t step, int64_t total) {
  const int64_t warmup = router.capacity_warmup.of(total);
  if (step >= warmup) return 1;
  const double p = static_cast<double>(step) / static_cast<double>(warmup);
  return router.capacity_curve == Curve::linear ? p : half_cosine(p);
}

std::vector<double> capacities_at(const TrainConfig& config, int64_t step, int64_t total) {
  const double p = capacity_progress(config.router, step, total);
  std::vector<double> out;
  for (const routing::RoutedUnit& block : config.model.routing.units)
    out.push_back(p == 1 ? block.capacity : config.router.capacity_start + p * (block.capacity - config.router.capacity_start));
  return out;
}

double step_flops(const TrainConfig& config, const std::vector<double>& capacity) {
  return static_cast<double>(step_rows(config)) * model::train_flops_per_row(config.model, config.sequence_length, capacity);
}

double spent_flops(const model::ModelConfig& model, const Batch& batch, const std::vector<nn::RoutedResult>& routed) {
  FATHOM_ASSERT(routed.size() == model.routing.units.size(), routed.size());
  std::vector<at::Tensor> selected;
  for (const nn::RoutedResult& r : routed) selected.push_back(r.selected.contiguous());
  double flops = 0;
  for (int64_t row = 0; row < batch.rows; ++row) {
    const int64_t first = row * batch.tokens;
    for (int64_t t = 0; t < batch.tokens;) {
      const auto start = [&](int64_t i) { return batch.document_start[static_cast<size_t>(first + i)]; };
      int64_t end = t + 1;
      while (end < batch.tokens && start(end) == start(t)) ++end;
      routing::Decisions decisions;
      for (const at::Tensor& s : selected) decisions.run.emplace_back(s.const_data_ptr<bool>() + first + t, s.const_data_ptr<bool>() + first + end);
      flops += 3 * model::forward_cost(model, end - t, decisions, end - t).flops();
      t = end;
    }
  }
  return flops;
}

double run_flops(const TrainConfig& config, int64_t total) {
  const int64_t warmup = config.model.routing.dense() ? 0 : config.router.capacity_warmup.of(total);
  double flops = 0;
  // Steps that pick the same number of tokens in every block cost the same. That number moves one way during the warm-up,
  // so that equal ends of a stretch mean an equal middle: a warm-up of any length is as many terms as it has numbers.
  for (int64_t step = 0; step < warmup;) {
    const std::vector<int64_t> here = picked_at(config, step, total);
    int64_t same = step, other = step + 1;
    while (other < warmup && picked_at(config, other, total) == here) other = (same = other) + std::min(other - step, warmup - other);
    while (other - same > 1) {
      const int64_t middle = same + (other - same) / 2;
      (picked_at(config, middle, total) == here ? same : other) = middle;
    }
    flops += static_cast<double>(other - step) * step_flops(config, capacities_at(config, step, total));
    step = other;
  }
  if (total > warmup) flops += static_cast<double>(total - warmup) * step_flops(config, capacities_at(config, warmup, total));
  return flops;
}

namespace {

int64_t steps_of_budget(const TrainConfig& config) {
  if (config.budget == Budget::steps) return static_cast<int64_t>(config.amount);
  if (config.budget == Budget::tokens) {
    const double tokens = static_cast<double>(step_rows(config) * config.sequence_length);
    return std::max<int64_t>(1, std::llround(config.amount / tokens));
  }
  // A step at full capacity is the dearest, one at the configured capacities the cheapest, so that the answer lies
  // between; cost grows with the number of steps, also where the warm-up is a share of them.
  const std::vector<double> full(config.model.routing.units.size(), 1.0);
  const double cheapest = std::min(step_flops(config, full), step_flops(config, capacities_at(config, INT64_MAX - 1, INT64_MAX)));
  const double most = config.amount / cheapest + 2;
  if (!(most < static_cast<double>(limits::kSteps)))
    throw UserError({"budget", "flops", str(config.amount), str("a budget of at most ", limits::kSteps, " steps"), ""});
  int64_t low = 1, high = static_cast<int64_t>(most);  // the greatest number that does not cost more than the budget
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (run_flops(config, middle) <= config.amount) low = middle;
    else high = middle - 1;
  }
  return std::abs(run_flops(config, low + 1) - config.amount) < std::abs(run_flops(config, low) - config.amount) ? low + 1 : low;
}

}  // namespace

int64_t total_steps(const TrainConfig& config) {
  const int64_t steps = steps_of_budget(config);
  const double tokens = static_cast<double>(steps) * static_cast<double>(step_rows(config)) * static_cast<double>(config.sequence_length);
  if (!(tokens <= static_cast<double>(limits::kTrainTokens)))
    throw UserError({"budget", "", str(steps, " steps, ", human_count(tokens), " tokens in all"), str("at most ", limits::kTrainTokens, " tokens"),
                     "lower the budget, batch_size, accumulation or sequence_length"});
  return steps;
}

}  // namespace fathom::train
