#include "formats/svg_canvas.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/error.h"
#include "formats/html.h"

namespace fathom::formats {

std::string coordinate(double v) {
  if (!std::isfinite(v)) v = 0;
  char out[32];
  std::snprintf(out, sizeof out, "%.1f", std::clamp(v, -1e6, 1e6));
  std::string text = out;
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

double text_width(std::string_view text, double size) {
  double n = 0;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xc0) == 0x80) continue;
    n += c >= 'A' && c <= 'Z' ? 0.7 : std::string_view("iljt.,:;|'!() ").find(c) != std::string_view::npos ? 0.36 : 0.61;
  }
  return n * size;
}

Canvas::Canvas(int width, int height, const std::string& title) {
  FATHOM_ASSERT(width > 0 && height > 0, width, " x ", height);
  const std::string name = html_escape(title);
  out_ = str("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 ", width, " ", height, "\" role=\"img\" aria-label=\"", name, "\">\n");
}

void Canvas::text(double x, double y, std::string_view css, std::string_view anchor, std::string_view text) {
  out_ += "<text x=\"" + coordinate(x) + "\" y=\"" + coordinate(y) + "\"";
  if (!css.empty()) out_ += " class=\"" + std::string(css) + "\"";
  if (anchor != "start") out_ += " text-anchor=\"" + std::string(anchor) + "\"";
  out_ += ">" + html_escape(text) + "</text>\n";
}

void Canvas::line(double x1, double y1, double x2, double y2, std::string_view css) {
  out_ += "<line x1=\"" + coordinate(x1) + "\" y1=\"" + coordinate(y1) + "\" x2=\"" + coordinate(x2) + "\" y2=\"" + coordinate(y2) + "\" class=\"" +
          std::string(css) + "\"/>\n";
}

namespace {

std::string close(const char* element, std::string_view tooltip) {
  return tooltip.empty() ? "/>\n" : "><title>" + html_escape(tooltip) + "</title></" + element + ">\n";
}

}  // namespace

void Canvas::rect(double x, double y, double width, double height, std::string_view css, std::string_view tooltip) {
  out_ += "<rect x=\"" + coordinate(x) + "\" y=\"" + coordinate(y) + "\" width=\"" + coordinate(width) + "\" height=\"" + coordinate(height) + "\" class=\"" +
          std::string(css) + "\"" + close("rect", tooltip);
}

void Canvas::circle(double x, double y, double r, std::string_view css, std::string_view tooltip) {
  out_ += "<circle cx=\"" + coordinate(x) + "\" cy=\"" + coordinate(y) + "\" r=\"" + coordinate(r) + "\" class=\"" + std::string(css) + "\"" + close("circle", tooltip);
}

void Canvas::path(std::string_view d, std::string_view css) {
  out_ += "<path d=\"" + std::string(d) + "\" class=\"" + std::string(css) + "\"/>\n";
}

std::string Canvas::finish() { return out_ + "</svg>"; }

int series_color(const Series& series, size_t position) { return series.color >= 0 ? series.color % 8 : static_cast<int>(position % 8); }

Frame draw_head(Canvas& canvas, const std::string& title, const std::vector<Series>& series, Swatch swatch, const Axis& x, const Axis& y,
                const std::vector<std::string>& y_labels, int width, int height) {
  double at = 8;
  if (!title.empty()) {
    canvas.text(4, at + 12, "title", "start", title);
    at += 26;
  }
  double column = 4;
  bool legend = false;
  for (size_t i = 0; i < series.size(); ++i) {
    const Series& s = series[i];
    if (s.name.empty()) continue;
    const double needs = 24 + text_width(s.name) + 18;
    if (legend && column + needs > width) column = 4, at += 20;
    legend = true;
    const std::string c = str("c", series_color(s, i));
    if (swatch == Swatch::line) canvas.line(column, at + 7, column + 18, at + 7, "line " + c + (s.dashed ? " dashed" : ""));
    else if (swatch == Swatch::dot) canvas.circle(column + 9, at + 7, 4, "fill " + c);
    else canvas.rect(column + 3, at + 1, 12, 12, "fill " + c);
    canvas.text(column + 24, at + 11, "", "start", s.name);
    column += needs;
  }
  if (legend) at += 22;
  if (!y.label.empty()) {
    canvas.text(4, at + 11, "quiet", "start", y.label);
    at += 20;
  }
  double widest = 0;
  for (const std::string& l : y_labels) widest = std::max(widest, text_width(l));
  return {std::min(widest + 12, width * 0.4), static_cast<double>(width) - 14, at + 6, static_cast<double>(height) - (x.label.empty() ? 26 : 46)};
}

void draw_y_axis(Canvas& canvas, const Frame& f, const Scale& y) {
  for (double t : y.ticks) {
    canvas.line(f.left, y(t), f.right, y(t), "grid");
    canvas.text(f.left - 7, y(t) + 4, "tick", "end", y.label(t));
  }
}

void draw_x_axis(Canvas& canvas, const Frame& f, const Scale& x) {
  canvas.line(f.left, f.bottom, f.right, f.bottom, "axis");
  double free_from = -1e9;
  for (double t : x.ticks) {
    const std::string label = x.label(t);
    canvas.line(x(t), f.bottom, x(t), f.bottom + 4, "axis");
    // The last label would stand out of the drawing: shift it in. Labels that would touch are left out.
    const double half = text_width(label) / 2, middle = std::min(x(t), f.right + 12 - half);
    if (middle - half < free_from) continue;
    canvas.text(middle, f.bottom + 18, "tick", "middle", label);
    free_from = middle + half + 8;
  }
}

void draw_no_data(Canvas& canvas, const Frame& f) { canvas.text((f.left + f.right) / 2, (f.top + f.bottom) / 2, "quiet", "middle", "no data"); }

}  // namespace fathom::formats
