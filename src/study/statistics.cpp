#include "study/statistics.h"

#include <algorithm>
#include <array>

namespace fathom::study {
namespace {

Interval of_pairs(const std::vector<std::pair<double, double>>& pairs) {  // value, weight
  double values = 0, weights = 0;
  for (const auto& [v, w] : pairs) values += v, weights += w;
  const int64_t n = static_cast<int64_t>(pairs.size());
  Interval i{weights > 0 ? values / weights : std::nan(""), std::nan(""), n};
  if (n < 2) return i;
  double squares = 0;
  for (const auto& [v, w] : pairs) squares += (v - i.value * w) * (v - i.value * w);
  const double count = static_cast<double>(n);
  i.half = t_quantile(n - 1) * std::sqrt(count / (count - 1) * squares) / weights;
  return i;
}

}  // namespace

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.size() % 2 ? v[v.size() / 2] : 0.5 * (v[v.size() / 2 - 1] + v[v.size() / 2]);
}

double t_quantile(int64_t degrees) {
  static constexpr std::array<double, 31> table = {NAN,   12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                                                   2.201, 2.179,  2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080,
                                                   2.074, 2.069,  2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
  if (degrees < 1) return std::nan("");
  if (degrees <= 30) return table[static_cast<size_t>(degrees)];
  return 1.95996 + 2.4 / static_cast<double>(degrees);  // within 0.003 of the table's continuation
}

Interval ratio_interval(const std::vector<UnitSum>& units, const std::function<double(const UnitSum&)>& value,
                        const std::function<double(const UnitSum&)>& weight) {
  std::vector<std::pair<double, double>> pairs;
  for (const UnitSum& d : units)
    if (weight(d) > 0) pairs.emplace_back(value(d), weight(d));
  return of_pairs(pairs);
}

Interval mean_interval(const std::vector<double>& values) {
  std::vector<std::pair<double, double>> pairs;
  for (const double v : values) pairs.emplace_back(v, 1.0);
  return of_pairs(pairs);
}

Interval paired_difference(const std::vector<UnitSum>& a, const std::vector<UnitSum>& b, bool per_byte) {
  FATHOM_ASSERT(a.size() == b.size(), "evaluations of different texts");
  std::vector<std::pair<double, double>> pairs;
  for (size_t d = 0; d < a.size(); ++d) {
    if (a[d].tokens == 0 || b[d].tokens == 0) continue;
    if (per_byte && a[d].bytes > 0) pairs.emplace_back((a[d].nll - b[d].nll) / std::log(2.0), static_cast<double>(a[d].bytes));
    if (!per_byte) pairs.emplace_back(a[d].nll - b[d].nll, static_cast<double>(a[d].tokens));
  }
  return of_pairs(pairs);
}

}  // namespace fathom::study
