// The head: final norm and output projection of the rows that somebody asked for.
#include <algorithm>
#include <limits>

#include "infer/step.h"
#include "kernels/pack.h"

namespace fathom::infer {
namespace {

constexpr int64_t kTileFloats = 1 << 22;  // 16 MiB of logits that only a loss needs

// logits [rows, V] of rows of step.x
void project(Step& step, std::span<const int64_t> rows, float* logits) {
  const int64_t C = step.config.hidden_size, n = static_cast<int64_t>(rows.size());
  step.head.grow(n * C);
  float* const u = step.head.data();
  over_rows(step, n, C, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      step.kernels.rms_norm(step.x.data() + rows[i] * C, C, 1, C, step.weights.final_norm().data(),
                            static_cast<float>(step.config.rms_norm_eps), u + i * C, C);
  });
  const Product job{u, n, &step.weights.head(), logits};
  products(step, {&job, 1});
}

struct Target {
  int64_t row;
  int32_t id;
};

}  // namespace

int64_t run_head(Step& step, StepResult& result) {
  const int64_t V = step.config.vocab_size, N = step.row_count();
  result.vocab = V;
  result.nll.clear();
  result.best.clear();

  // Rows whose logits are kept, and rows whose loss alone is wanted.
  std::vector<int64_t> kept, lost;
  std::vector<Target> kept_target, lost_target;  // id −1: none
  bool targets = false;
  for (size_t i = 0; i < step.items.size(); ++i) {
    const WorkItem& item = step.items[i];
    StepResult::Item& slot = result.items[i];
    slot.first_logits = static_cast<int64_t>(kept.size());
    targets |= !item.targets.empty();
    for (int64_t t = 0; t < slot.rows; ++t) {
      const bool keep = item.logits == Logits::all || (item.logits == Logits::last && t + 1 == slot.rows);
      const int32_t id = item.targets.empty() ? -1 : item.targets[t];
      if (keep) kept.push_back(slot.first_row + t), kept_target.push_back({slot.first_row + t, id});
      else if (id >= 0) lost.push_back(slot.first_row + t), lost_target.push_back({slot.first_row + t, id});
    }
    slot.logits_rows = static_cast<int64_t>(kept.size()) - slot.first_logits;
  }
  if (targets) {
    result.nll.assign(N, std::numeric_limits<float>::quiet_NaN());
    result.best.assign(N, -1);
  }
  const auto losses = [&](std::span<const Target> rows, const float* logits) {
    over_rows(step, static_cast<int64_t>(rows.size()), V, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        if (rows[i].id < 0) continue;
        const float* const row = logits + i * V;
        result.nll[rows[i].row] = static_cast<float>(step.kernels.log_sum_exp(row, V) - row[rows[i].id]);
        result.best[rows[i].row] = static_cast<int32_t>(step.kernels.argmax(row, V));
      }
    });
  };

  result.logits.resize(kept.size() * V);
  project(step, kept, result.logits.data());
  if (targets) losses(kept_target, result.logits.data());

  const int64_t tile = std::max<int64_t>(1, kTileFloats / V);
  for (size_t first = 0; first < lost.size(); first += tile) {
    const size_t count = std::min<size_t>(tile, lost.size() - first);
    step.logits.grow(static_cast<int64_t>(count) * V);
    project(step, std::span(lost).subspan(first, count), step.logits.data());
    losses(std::span(lost_target).subspan(first, count), step.logits.data());
  }
  return static_cast<int64_t>(kept.size() + lost.size());
}

}  // namespace fathom::infer
