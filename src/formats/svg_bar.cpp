#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "formats/svg_canvas.h"

namespace fathom::formats {
namespace {

// As much of a label as fits, with an ellipsis.
std::string fitted(const std::string& label, double room) {
  if (text_width(label) <= room) return label;
  std::string out;
  for (size_t i = 0; i < label.size();) {
    size_t n = 1;
    while (i + n < label.size() && (static_cast<unsigned char>(label[i + n]) & 0xc0) == 0x80) ++n;
    if (text_width(out + label.substr(i, n) + "…") > room) break;
    out += label.substr(i, n);
    i += n;
  }
  return out + "…";
}

std::string upright(const BarChart& chart, Axis axis, const std::vector<double>& values) {
  const size_t n = chart.categories.size(), m = std::max<size_t>(1, chart.series.size());
  Scale y = make_scale(axis, values, std::max(3, chart.height / 65), chart.values ? 0.09 : 0.03);
  Canvas canvas(chart.width, chart.height, chart.title);
  std::vector<std::string> labels;
  for (double t : y.ticks) labels.push_back(y.label(t));
  const Frame f = draw_head(canvas, chart.title, chart.series, Swatch::box, {}, chart.y, labels, chart.width, chart.height);
  y.from = f.bottom, y.to = f.top;
  draw_y_axis(canvas, f, y);
  const double slot = (f.right - f.left) / static_cast<double>(std::max<size_t>(1, n));
  const double bar = std::min(64.0, slot * 0.8 / static_cast<double>(m)), zero = y(std::clamp(0.0, y.low, y.high));
  size_t every = 1;  // with many categories only each k-th is named
  double widest = 0;
  for (const std::string& c : chart.categories) widest = std::max(widest, text_width(c));
  while (static_cast<double>(every) * slot < std::min(widest, 120.0) + 6 && every < n) ++every;
  for (size_t i = 0; i < n; ++i) {
    const double middle = f.left + (static_cast<double>(i) + 0.5) * slot;
    for (size_t k = 0; k < chart.series.size(); ++k) {
      const double v = chart.series[k].y[i];
      if (!y.shows(v)) continue;
      const double x = middle + (static_cast<double>(k) - static_cast<double>(m) / 2) * bar, top = y(v);
      const std::string name = chart.series[k].name.empty() ? "" : chart.series[k].name + ", ";
      if (v != 0)
        canvas.rect(x + bar * 0.06, std::min(top, zero), bar * 0.88, std::max(std::abs(top - zero), 0.5), str("fill c", series_color(chart.series[k], k)),
                    name + chart.categories[i] + ": " + value_label(v, 4, axis.format));
      if (chart.values) canvas.text(x + bar / 2, v < 0 ? top + 14 : top - 5, "value", "middle", value_label(v, 4, axis.format));
    }
    if (i % every == 0) canvas.text(middle, f.bottom + 18, "tick", "middle", fitted(chart.categories[i], static_cast<double>(every) * slot - 4));
  }
  canvas.line(f.left, zero, f.right, zero, "axis");
  if (n == 0 || chart.series.empty()) draw_no_data(canvas, f);
  return canvas.finish();
}

std::string sideways(const BarChart& chart, Axis axis, const std::vector<double>& values) {
  const size_t n = chart.categories.size(), m = std::max<size_t>(1, chart.series.size());
  const double bar = m == 1 ? 18 : 14, slot = bar * static_cast<double>(m) + 10;
  // The head's height does not depend on the drawing's: draw it twice to learn it.
  Canvas trial(chart.width, 1000, chart.title);
  const Frame head = draw_head(trial, chart.title, chart.series, Swatch::box, {}, chart.y, chart.categories, chart.width, 1000);
  const int height = static_cast<int>(head.top + slot * static_cast<double>(std::max<size_t>(1, n)) + 26);
  Canvas canvas(chart.width, height, chart.title);
  Frame f = draw_head(canvas, chart.title, chart.series, Swatch::box, {}, chart.y, chart.categories, chart.width, height);
  Scale x = make_scale(axis, values, chart.width / 110, 0.02);
  if (chart.values) f.right -= 52;
  x.from = f.left, x.to = f.right;
  for (double t : x.ticks) {
    canvas.line(x(t), f.top, x(t), f.bottom, "grid");
    canvas.text(x(t), f.bottom + 18, "tick", "middle", x.label(t));
  }
  const double zero = x(std::clamp(0.0, x.low, x.high));
  for (size_t i = 0; i < n; ++i) {
    const double top = f.top + static_cast<double>(i) * slot + 5;
    canvas.text(f.left - 7, top + bar * static_cast<double>(m) / 2 + 4, "label", "end", fitted(chart.categories[i], f.left - 8));
    for (size_t k = 0; k < chart.series.size(); ++k) {
      const double v = chart.series[k].y[i];
      if (!x.shows(v)) continue;
      const double y = top + static_cast<double>(k) * bar, end = x(v);
      if (v != 0)
        canvas.rect(std::min(zero, end), y + 1, std::max(std::abs(end - zero), 0.5), bar - 2, str("fill c", series_color(chart.series[k], k)),
                    (chart.series[k].name.empty() ? "" : chart.series[k].name + ", ") + chart.categories[i] + ": " + value_label(v, 4, axis.format));
      if (chart.values) canvas.text(std::max(zero, end) + 6, y + bar / 2 + 4, "value", "start", value_label(v, 4, axis.format));
    }
  }
  canvas.line(zero, f.top, zero, f.bottom, "axis");
  if (n == 0 || chart.series.empty()) draw_no_data(canvas, f);
  return canvas.finish();
}

}  // namespace

std::string bar_chart(const BarChart& chart) {
  Axis axis = chart.y;
  axis.zero = !axis.log;  // a bar that does not begin at zero lies
  std::vector<double> values;
  for (const Series& s : chart.series) {
    FATHOM_ASSERT(s.y.size() == chart.categories.size(), s.name, ": ", s.y.size(), " values for ", chart.categories.size(), " categories");
    values.insert(values.end(), s.y.begin(), s.y.end());
  }
  return chart.horizontal ? sideways(chart, axis, values) : upright(chart, axis, values);
}

}  // namespace fathom::formats
