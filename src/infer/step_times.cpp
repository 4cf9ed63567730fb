#include "infer/step_times.h"

#include <algorithm>
#include <functional>

namespace fathom::infer {
namespace {

// Before anything is known: weights come from memory once for all rows, arithmetic grows with them. SmolLM2 in 4 bits takes 0.3 of a step for a
// row more on one thread of a Zen 4, llama-1b in 8 bits 0.03 on two.
double unlearned(int64_t rows) { return 1 + 0.25 * static_cast<double>(rows - 1); }

constexpr int64_t kForgotten = 512;  // steps after which a number of rows that did not occur may be tried anew
constexpr double kSlowest = 1.0 / 16;  // share of a new step in what is known
constexpr double kFirst = 3, kLater = 1.25;  // how far off what was expected a step may count: one that the machine interrupted says little

}  // namespace

bool StepTimes::known(int64_t rows) const {
  const Seen& s = seen_[static_cast<size_t>(rows)];
  return s.times > 0 && steps_ - s.last <= kForgotten;
}

double StepTimes::of(int64_t rows) const {
  const int64_t most = std::min(rows, kMost);
  int64_t below = most, above = most + 1;
  while (below > 0 && !known(below)) --below;
  while (above <= kMost && !known(above)) ++above;
  const auto cost = [&](int64_t r) { return seen_[static_cast<size_t>(r)].cost; };
  if (below == rows) return cost(rows);
  if (below == 0 && above > kMost) return unlearned(rows);
  if (below == 0) return cost(above) * unlearned(rows) / unlearned(above);
  if (above > kMost) return cost(below) * unlearned(rows) / unlearned(below);
  // Between what is known, but never less than fewer rows take.
  const double part = static_cast<double>(rows - below) / static_cast<double>(above - below);
  return cost(below) + std::max(0.0, cost(above) - cost(below)) * part;
}

double StepTimes::took(double seconds, double expected) const {
  return unit_ > 0 && seconds > 0 ? std::clamp(seconds / unit_, expected / 2, expected * 2) : expected;
}

void StepTimes::saw(int64_t rows, double seconds) {
  if (rows < 1 || rows > kMost || !(seconds > 0)) return;
  ++steps_;
  const double expected = of(rows);
  Seen& s = seen_[static_cast<size_t>(rows)];
  if (!known(rows)) s = {.cost = expected, .times = 0, .last = 0};
  const double far = s.times == 0 ? kFirst : kLater;
  ++s.times;
  if (unit_ > 0) s.cost += (std::clamp(seconds / unit_, expected / far, expected * far) - s.cost) * std::max(1.0 / static_cast<double>(s.times), kSlowest);
  s.last = steps_;
  // The median follows a slow spell within some steps and does not see a single slow one.
  late_[static_cast<size_t>(steps_) % late_.size()] = seconds / s.cost;
  std::array<double, 8> sorted = late_;
  const auto known_of = std::min<int64_t>(steps_, std::ssize(late_));
  if (known_of < std::ssize(late_)) std::ranges::sort(sorted, std::greater<>());  // those that are not there yet are 0
  else std::ranges::sort(sorted);
  unit_ = sorted[static_cast<size_t>(known_of / 2)];
}

}  // namespace fathom::infer
