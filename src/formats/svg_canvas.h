// Inside the charts: SVG elements appended to one string, and the frame (title, legend, axes, grid) that line, scatter and
// bar charts share.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "formats/svg.h"
#include "formats/svg_axis.h"

namespace fathom::formats {

std::string coordinate(double v);           // one decimal, no ".0"
double text_width(std::string_view text, double size = 12);  // an estimate for a sans-serif font

class Canvas {
 public:
  Canvas(int width, int height, const std::string& title);
  void text(double x, double y, std::string_view css, std::string_view anchor, std::string_view text);
  void line(double x1, double y1, double x2, double y2, std::string_view css);
  void rect(double x, double y, double width, double height, std::string_view css, std::string_view tooltip = "");
  void circle(double x, double y, double r, std::string_view css, std::string_view tooltip = "");
  void path(std::string_view d, std::string_view css);
  void raw(std::string_view svg) { out_ += svg; }
  std::string finish();

 private:
  std::string out_;
};

struct Frame {
  double left = 0, right = 0, top = 0, bottom = 0;  // of the plotting area
};

enum class Swatch { line, dot, box };

// Draws title and legend and settles the plotting area; `y_labels` and `x_labels` are what stands at the axes.
Frame draw_head(Canvas& canvas, const std::string& title, const std::vector<Series>& series, Swatch swatch, const Axis& x, const Axis& y,
                const std::vector<std::string>& y_labels, int width, int height);
void draw_y_axis(Canvas& canvas, const Frame& frame, const Scale& y);
void draw_x_axis(Canvas& canvas, const Frame& frame, const Scale& x);
void draw_no_data(Canvas& canvas, const Frame& frame);

int series_color(const Series& series, size_t position);  // 0 to 7

}  // namespace fathom::formats
