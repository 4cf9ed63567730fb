// Dials found by moving thresholds together: the block fraction falls with the amount. For routers whose scores share one scale.
#pragma once
#include <functional>
#include <vector>

#include "routing/dial.h"

namespace fathom::routing {

std::vector<float> moved(std::vector<float> thresholds, double by);

class ThresholdShift {
 public:
  struct Met {
    DialPoint point;
    // What its block fraction would be with thresholds moved by so much more, if no score changed by that. Absent: unknown.
    std::function<double(double by)> expected = {};
  };
  // `measure` gives the point of thresholds [cuts]: its block fraction is what is read here.
  ThresholdShift(std::vector<float> base, std::function<Met(const std::vector<float>&)> measure) : base_(std::move(base)), measure_(std::move(measure)) {}

  // The point whose block fraction is the dial, to 0.003, or after some passes the nearest that was met. What was measured for one dial brackets the next,
  // and its last pass says where to look.
  DialPoint find(double dial);

 private:
  struct Tried {
    double amount;
    DialPoint point;
  };
  double next_amount(double dial, int pass) const;
  std::vector<float> base_;
  std::function<Met(const std::vector<float>&)> measure_;
  std::vector<Tried> tried_;  // ascending by amount, so descending by block fraction
  // Of the last pass: `expected` may hold all of its scores, so only one is kept.
  double last_amount_ = 0, last_fraction_ = 0;
  std::function<double(double)> expected_;
};

}  // namespace fathom::routing
