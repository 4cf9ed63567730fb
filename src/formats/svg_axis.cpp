#include "formats/svg_axis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace fathom::formats {
namespace {

std::string print(const char* pattern, int decimals, double value) {
  char out[64];
  std::snprintf(out, sizeof out, pattern, decimals, value);
  return out;
}

// A proper minus sign, as wide as a figure.
std::string with_minus(std::string text) {
  if (!text.empty() && text[0] == '-') text.replace(0, 1, "\xe2\x88\x92");
  return text;
}

int decimals_of(double step) {
  if (!(step > 0)) return 2;
  for (int d = 0; d < 9; ++d) {
    const double scaled = step * std::pow(10, d);
    if (std::abs(scaled - std::round(scaled)) < 1e-6 * scaled) return d;
  }
  return 9;
}

std::string without_zeros(std::string text) {
  if (text.find('.') == std::string::npos) return text;
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text;
}

std::string with_suffix(double value, double step, const std::vector<const char*>& suffixes) {
  size_t i = 0;
  double unit = 1;
  while (i + 1 < suffixes.size() && std::abs(value) >= unit * 999.9995) unit *= 1000, ++i;
  return without_zeros(print("%.*f", std::min(3, decimals_of(step / unit)), value / unit)) + suffixes[i];
}

const std::vector<const char*> kSuffixes = {"", "k", "M", "G", "T", "P", "E"};
constexpr double kLargest = 1e300;  // of a value that is drawn: sums and ratios of two stay finite
constexpr double kSecondSteps[] = {1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 4 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 48 * 3600};

double nice_step(double rough, TickFormat format) {
  if (format == TickFormat::seconds && rough > 0.7)
    for (double s : kSecondSteps)
      if (s >= rough * 0.999) return s;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (double m : {1.0, 2.0, 2.5, 5.0})
    if (m * power >= rough * 0.999) return m * power;
  return 10 * power;
}

std::vector<double> linear_ticks(double low, double high, int about, TickFormat format) {
  const double step = nice_step((high - low) / std::max(1, about), format);
  std::vector<double> ticks;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && ticks.size() < 100; ++i) ticks.push_back(i == 0 ? 0 : i * step);
  return ticks;
}

std::vector<double> log_ticks(double low, double high, int about) {
  const double first = std::floor(std::log10(low)), last = std::ceil(std::log10(high));
  const auto collect = [&](const std::vector<double>& mantissas, double every) {
    std::vector<double> ticks;
    for (double e = first; e <= last; e += every)
      for (double m : mantissas)
        if (const double v = m * std::pow(10, e); v >= low * 0.999999 && v <= high * 1.000001) ticks.push_back(v);
    return ticks;
  };
  const double every = std::max(1.0, std::ceil((last - first) / std::max(1, about)));
  std::vector<double> ticks = collect({1}, every);
  if (ticks.size() < 3) ticks = collect({1, 3}, 1);
  if (ticks.size() < 3) ticks = collect({1, 2, 5}, 1);
  if (ticks.size() < 3) ticks = linear_ticks(low, high, about, TickFormat::number);
  return ticks;
}

}  // namespace

std::vector<double> axis_ticks(double low, double high, int about, bool log) {
  if (!(high - low > std::abs(low) * 1e-9) || !std::isfinite(high - low)) return {low};
  return log && low > 0 ? log_ticks(low, high, about) : linear_ticks(low, high, about, TickFormat::number);
}

std::string tick_label(double value, double step, TickFormat format) {
  if (!std::isfinite(value)) return "–";
  switch (format) {
    case TickFormat::percent: return with_minus(without_zeros(print("%.*f", std::min(4, decimals_of(step * 100)), value * 100))) + "\xc2\xa0%";
    case TickFormat::bytes: return with_minus(with_suffix(value, step, {" B", " KB", " MB", " GB", " TB", " PB"}));
    case TickFormat::seconds: {
      const double a = std::abs(value);
      if (a == 0) return "0";
      if (a < 1) return with_minus(without_zeros(print("%.*f", std::min(3, decimals_of(step * 1000)), value * 1000))) + " ms";
      const auto [unit, name] = a < 120 ? std::pair(1.0, " s") : a < 7200 ? std::pair(60.0, " min") : std::pair(3600.0, " h");
      return with_minus(without_zeros(print("%.*f", std::min(2, decimals_of(step / unit)), value / unit))) + name;
    }
    case TickFormat::number: break;
  }
  const double a = std::abs(value);
  if (a == 0) return "0";
  if (a >= 10000) return with_minus(with_suffix(value, step, kSuffixes));
  if (a < 1e-3 || (step > 0 && step < 1e-4)) {
    const int e = static_cast<int>(std::floor(std::log10(a) + 1e-9));
    if (e <= -4) return with_minus(without_zeros(print("%.*f", 2, value / std::pow(10, e))) + "e" + with_minus(std::to_string(e)));
  }
  const std::string text = print("%.*f", decimals_of(step), value);
  if (a >= 1000) return with_minus(text.substr(0, text.find('.') == std::string::npos ? text.size() : text.find('.')).insert(value < 0 ? 2 : 1, ","));
  return with_minus(text);
}

bool Scale::shows(double value) const { return std::abs(value) <= kLargest && (!log || value >= 1 / kLargest); }

double Scale::operator()(double value) const {
  const double share = log ? (std::log(value) - std::log(low)) / (std::log(high) - std::log(low)) : (value - low) / (high - low);
  return from + (to - from) * share;
}

std::string Scale::label(double tick) const {
  if (log) {
    // Each tick by its own size: 0.1, 1, 10, 100k.
    if (format == TickFormat::number && ticks.back() >= 10000 && tick >= 1000) return with_suffix(tick, tick / 10, kSuffixes);
    const double power = std::pow(10, std::floor(std::log10(tick) + 1e-9));
    return tick_label(tick, decimals_of(tick / power) > 0 ? power / 10 : power, format);
  }
  double step = 0;
  for (size_t i = 1; i < ticks.size(); ++i) step = step == 0 ? ticks[i] - ticks[i - 1] : std::min(step, ticks[i] - ticks[i - 1]);
  // One style on one axis: 5k beside 10k, not 5,000.
  const double largest = ticks.empty() ? 0 : std::max(std::abs(ticks.front()), std::abs(ticks.back()));
  if (format == TickFormat::number && largest >= 10000 && std::abs(tick) >= 1000) return with_minus(with_suffix(tick, step, kSuffixes));
  return tick_label(tick, step, format);
}

std::string value_label(double value, int digits, TickFormat format) {
  if (!std::isfinite(value)) return "–";
  // Shares stand side by side: 12.7 % beside 13.0 %, not 12.7 % beside 13.04 %.
  if (format == TickFormat::percent && std::abs(value) >= 5e-4) return with_minus(print("%.*f", 1, value * 100)) + "\xc2\xa0%";
  const double step = std::pow(10, std::floor(std::log10(std::max(std::abs(value), 1e-300)) + 1e-9) + 1 - digits);
  const std::string text = tick_label(value, step, format);
  return format == TickFormat::number && std::abs(value) < 1000 && text.find('e') == std::string::npos ? without_zeros(text) : text;
}

Scale make_scale(const Axis& axis, const std::vector<double>& values, int about, double margin) {
  Scale s;
  s.log = axis.log;
  s.format = axis.format;
  double low = INFINITY, high = -INFINITY;
  for (double v : values)
    if (s.shows(v)) low = std::min(low, v), high = std::max(high, v);
  if (axis.zero && !axis.log) low = std::min(low, 0.0), high = std::max(high, 0.0);
  if (!(low <= high)) low = axis.log ? 1 : 0, high = axis.log ? 10 : 1;
  if (high - low <= std::abs(low) * 1e-9) {  // one value, or ticks that no label could tell apart
    if (axis.log) low /= 2, high *= 2;
    else if (low == 0) high = 1;
    else low -= std::abs(low) * 0.1, high += std::abs(low) * 0.1;
  }
  if (axis.log) {
    const double room = (std::log(high) - std::log(low)) * margin;
    s.low = std::max(1 / kLargest, std::exp(std::log(low) - room)), s.high = std::min(kLargest, std::exp(std::log(high) + room));
  } else {
    const double room = (high - low) * margin;
    s.low = axis.zero && low == 0 ? 0 : low - room;
    s.high = axis.zero && high == 0 ? 0 : high + room;
  }
  if (axis.low && s.shows(*axis.low)) s.low = *axis.low;
  if (axis.high && s.shows(*axis.high)) s.high = *axis.high;
  if (!(s.high > s.low)) s.high = s.log ? s.low * 10 : s.low + 1;
  s.ticks = s.log ? log_ticks(s.low, s.high, about) : linear_ticks(s.low, s.high, about, s.format);
  return s;
}

}  // namespace fathom::formats
