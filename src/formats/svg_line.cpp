#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/file.h"
#include "formats/svg_canvas.h"

namespace fathom::formats {
namespace {

constexpr size_t kTooltips = 600;  // more points than this carry none

struct Point {
  double x, y;
};

// Of the points that share a column of the drawing keeps the first, the lowest, the highest and the last: the drawing is
// the same, and its size no longer grows with the series.
std::vector<Point> thinned(const std::vector<Point>& points) {
  if (points.size() < 1500) return points;
  std::vector<Point> out;
  for (size_t i = 0; i < points.size();) {
    size_t end = i, low = i, high = i;
    for (; end < points.size() && std::floor(points[end].x) == std::floor(points[i].x); ++end) {
      if (points[end].y < points[low].y) low = end;
      if (points[end].y > points[high].y) high = end;
    }
    size_t keep[] = {i, std::min(low, high), std::max(low, high), end - 1};
    for (size_t k = 0; k < 4; ++k)
      if (k == 0 || keep[k] != keep[k - 1]) out.push_back(points[keep[k]]);
    i = end;
  }
  return out;
}

std::string polyline(const std::vector<Point>& points) {
  std::string d;
  for (const Point& p : thinned(points)) d += (d.empty() ? "M" : "L") + coordinate(p.x) + " " + coordinate(p.y);
  return d;
}

struct Plot {
  Canvas canvas;
  Frame frame;
  Scale x, y;
  bool empty;
};

Plot begin(const Chart& chart, Swatch swatch, double x_margin) {
  std::vector<double> xs, ys;
  for (const Series& s : chart.series) {
    FATHOM_ASSERT(s.x.size() == s.y.size(), s.name, ": ", s.x.size(), " and ", s.y.size());
    FATHOM_ASSERT(s.low.size() == s.high.size() && (s.low.empty() || s.low.size() == s.x.size()), s.name);
    for (size_t i = 0; i < s.x.size(); ++i) {
      if (!std::isfinite(s.x[i]) || (chart.x.log && !(s.x[i] > 0))) continue;
      xs.push_back(s.x[i]);
      ys.push_back(s.y[i]);
      if (!s.low.empty()) ys.insert(ys.end(), {s.low[i], s.high[i]});
    }
  }
  const bool empty = xs.empty();
  for (const ReferenceLine& r : chart.horizontal) ys.push_back(r.value);
  for (const ReferenceLine& r : chart.vertical) xs.push_back(r.value);
  Plot p{Canvas(chart.width, chart.height, chart.title), {}, make_scale(chart.x, xs, chart.width / 90, x_margin),
         make_scale(chart.y, ys, std::max(3, chart.height / 65), 0.04), empty};
  std::vector<std::string> labels;
  for (double t : p.y.ticks) labels.push_back(p.y.label(t));
  p.frame = draw_head(p.canvas, chart.title, chart.series, swatch, chart.x, chart.y, labels, chart.width, chart.height);
  p.x.from = p.frame.left, p.x.to = p.frame.right;
  p.y.from = p.frame.bottom, p.y.to = p.frame.top;
  draw_y_axis(p.canvas, p.frame, p.y);
  draw_x_axis(p.canvas, p.frame, p.x);
  if (!chart.x.label.empty()) p.canvas.text((p.frame.left + p.frame.right) / 2, chart.height - 8, "quiet", "middle", chart.x.label);
  for (const ReferenceLine& r : chart.horizontal) {
    if (!p.y.shows(r.value)) continue;
    p.canvas.line(p.frame.left, p.y(r.value), p.frame.right, p.y(r.value), "reference");
    p.canvas.text(p.frame.right - 4, p.y(r.value) - 5, "quiet", "end", r.label);
  }
  for (const ReferenceLine& r : chart.vertical) {
    if (!p.x.shows(r.value)) continue;
    p.canvas.line(p.x(r.value), p.frame.bottom, p.x(r.value), p.frame.top, "reference");
    p.canvas.text(p.x(r.value) + 5, p.frame.top + 10, "quiet", "start", r.label);
  }
  if (empty) draw_no_data(p.canvas, p.frame);
  return p;
}

std::string tooltip(const Plot& p, const Series& s, size_t i) {
  return (s.name.empty() ? "" : s.name + ": ") + value_label(s.y[i], 4, p.y.format) + " at " + value_label(s.x[i], 4, p.x.format);
}

}  // namespace

std::string line_chart(const Chart& chart) {
  Plot p = begin(chart, Swatch::line, 0.0);
  // What lies outside fixed ends of an axis is clipped at the frame.
  // Ids are of the whole page: two charts of one size must not share one.
  const std::string id = str("clip", hash_bytes(chart.title).substr(0, 8), "-", chart.width, "x", coordinate(p.frame.left), "x", coordinate(p.frame.top), "x", coordinate(p.frame.bottom));
  p.canvas.raw(str("<clipPath id=\"", id, "\"><rect x=\"", coordinate(p.frame.left - 5), "\" y=\"", coordinate(p.frame.top - 4), "\" width=\"",
                   coordinate(p.frame.right - p.frame.left + 10), "\" height=\"", coordinate(p.frame.bottom - p.frame.top + 5), "\"/></clipPath>\n<g clip-path=\"url(#", id, ")\">\n"));
  for (size_t k = 0; k < chart.series.size(); ++k) {
    const Series& s = chart.series[k];
    if (s.low.empty()) continue;
    std::vector<Point> upper, lower;
    for (size_t i = 0; i < s.x.size(); ++i) {
      if (!p.x.shows(s.x[i]) || !p.y.shows(s.low[i]) || !p.y.shows(s.high[i])) continue;
      upper.push_back({p.x(s.x[i]), p.y(s.high[i])});
      lower.push_back({p.x(s.x[i]), p.y(s.low[i])});
    }
    if (upper.size() < 2) continue;
    upper = thinned(upper), lower = thinned(lower);
    upper.insert(upper.end(), lower.rbegin(), lower.rend());
    std::string d;
    for (const Point& q : upper) d += (d.empty() ? "M" : "L") + coordinate(q.x) + " " + coordinate(q.y);
    p.canvas.path(d + "Z", str("band c", series_color(s, k)));
  }
  for (size_t k = 0; k < chart.series.size(); ++k) {
    const Series& s = chart.series[k];
    const std::string c = str("c", series_color(s, k));
    std::string d;
    std::vector<Point> run;
    const auto end_run = [&] {
      if (run.size() == 1 && !s.markers) p.canvas.circle(run[0].x, run[0].y, 2.5, "fill " + c);
      if (run.size() > 1) d += polyline(run);
      run.clear();
    };
    for (size_t i = 0; i < s.x.size(); ++i) {
      if (p.x.shows(s.x[i]) && p.y.shows(s.y[i])) run.push_back({p.x(s.x[i]), p.y(s.y[i])});
      else end_run();
    }
    end_run();
    if (!d.empty()) p.canvas.path(d, "line " + c + (s.dashed ? " dashed" : ""));
    if (!s.markers) continue;
    for (size_t i = 0; i < s.x.size(); ++i)
      if (p.x.shows(s.x[i]) && p.y.shows(s.y[i])) p.canvas.circle(p.x(s.x[i]), p.y(s.y[i]), 3.5, "fill dot " + c, s.x.size() <= kTooltips ? tooltip(p, s, i) : "");
  }
  p.canvas.raw("</g>\n");
  return p.canvas.finish();
}

std::string scatter_chart(const Chart& chart) {
  Plot p = begin(chart, Swatch::dot, 0.03);
  size_t points = 0;
  for (const Series& s : chart.series) points += s.x.size();
  for (size_t k = 0; k < chart.series.size(); ++k) {
    const Series& s = chart.series[k];
    for (size_t i = 0; i < s.x.size(); ++i) {
      if (!p.x.shows(s.x[i]) || !p.y.shows(s.y[i])) continue;
      if (s.x[i] < p.x.low || s.x[i] > p.x.high || s.y[i] < p.y.low || s.y[i] > p.y.high) continue;
      p.canvas.circle(p.x(s.x[i]), p.y(s.y[i]), points > 2000 ? 2 : 3.5, str("fill dot see-through c", series_color(s, k)), points <= kTooltips ? tooltip(p, s, i) : "");
    }
  }
  return p.canvas.finish();
}

}  // namespace fathom::formats
