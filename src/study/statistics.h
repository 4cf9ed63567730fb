// Intervals over units. A document is the unit that is drawn where there are enough of them: tokens of one text are far from independent.
#pragma once
#include <cmath>
#include <functional>
#include <vector>

#include "study/evaluate.h"

namespace fathom::study {

// Of an even number the mean of the two in the middle; not empty.
double median(std::vector<double> values);

// Two-sided 95 % quantile of Student's t; 1.96 for many degrees of freedom.
double t_quantile(int64_t degrees);

// Σ value / Σ weight over units with weight > 0, and the half width of its interval: the linearised variance of a
// ratio of sums (Cochran 1977, section 6.4).
Interval ratio_interval(const std::vector<UnitSum>& units, const std::function<double(const UnitSum&)>& value,
                        const std::function<double(const UnitSum&)>& weight);

// The mean of values that are drawn one by one; NaN half with fewer than 2.
Interval mean_interval(const std::vector<double>& values);

// a − b on units that both scored: nats per token, or bits per byte when `per_byte`.
Interval paired_difference(const std::vector<UnitSum>& a, const std::vector<UnitSum>& b, bool per_byte);

}  // namespace fathom::study
