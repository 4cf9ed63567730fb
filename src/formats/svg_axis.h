// Inside the charts: an axis with its range, ticks and labels settled, and the map from values to the drawing.
#pragma once
#include <string>
#include <vector>

#include "formats/svg.h"

namespace fathom::formats {

struct Scale {
  double low = 0, high = 1;      // of the values
  bool log = false;
  TickFormat format = TickFormat::number;
  std::vector<double> ticks;
  double from = 0, to = 1;       // in the drawing; to < from for an upward axis

  bool shows(double value) const;  // finite, and above 0 on a log axis
  double operator()(double value) const;
  std::string label(double tick) const;
};

// A value of `digits` significant figures, for tooltips and bars.
std::string value_label(double value, int digits, TickFormat format);

// The range of `values` (with the axis' own ends and round numbers at the borders) and about `about` ticks.
// `margin` is the share of the range left free at both ends when the axis has no ends of its own.
Scale make_scale(const Axis& axis, const std::vector<double>& values, int about, double margin = 0.0);

}  // namespace fathom::formats
