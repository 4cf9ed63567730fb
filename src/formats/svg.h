// Charts as SVG text for reports: lines, scatter, bars, heat maps. Colours come from CSS classes (formats/html.h has the
// style for light and dark), texts are escaped, numbers are rounded so that a chart of 100,000 points stays small. Values
// that are not finite, and values not above 0 on a log axis, are left out and break a line.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fathom::formats {

enum class TickFormat {
  number,   // 0.25, 1,500, 2M
  percent,  // the value 0.25 as 25 %
  seconds,  // 30 s, 5 min, 2 h
  bytes,    // 1.5 MB (powers of 1000)
};

struct Axis {
  std::string label = {};
  bool log = false;
  TickFormat format = TickFormat::number;
  std::optional<double> low = {}, high = {};  // fixed ends; else from the data
  bool zero = false;                // include 0 (linear axes)
};

struct Series {
  std::string name = {};             // in the legend; "" = not there
  std::vector<double> x = {}, y = {};  // equally many
  std::vector<double> low = {}, high = {};  // a band around a line, as many as x, or empty
  bool dashed = false;
  bool markers = false;              // dots on the line's points
  int color = -1;                    // 0 to 7 of the palette; -1: by position
};

struct ReferenceLine {
  double value = 0;
  std::string label = {};
};

struct Chart {
  std::string title = {};             // for readers that do not see it, too
  Axis x = {}, y = {};
  std::vector<Series> series = {};
  std::vector<ReferenceLine> horizontal = {}, vertical = {};
  int width = 720, height = 400;      // of the drawing's own coordinates: it scales to the page
};
std::string line_chart(const Chart& chart);
std::string scatter_chart(const Chart& chart);

struct BarChart {
  std::string title = {};
  std::vector<std::string> categories = {};
  Axis y = {};
  std::vector<Series> series = {};     // y used: one value per category, side by side
  bool horizontal = false;             // bars to the right: for long category names
  bool values = false;                 // print the value at each bar
  int width = 720, height = 360;       // horizontal bars choose their own height
};
std::string bar_chart(const BarChart& chart);

struct HeatMap {
  std::string title = {};
  std::vector<std::vector<double>> cells = {};  // rows of equally many values; not finite = empty
  std::vector<std::string> rows = {}, columns = {};  // labels; empty = the indices
  std::string row_label = {}, column_label = {};
  std::optional<double> low = {}, high = {};  // ends of the colour scale
  TickFormat format = TickFormat::number;
  int cell_width = 0, cell_height = 0;      // 0 = chosen
  int width = 720;
};
std::string heat_map(const HeatMap& map);

// A chart as a file of its own: with the style inside, light or dark by the viewer's system.
std::string svg_file(const std::string& svg);

// Round ticks for [low, high], about `about` of them. On a log axis powers of ten, with 2 and 5 between when few.
std::vector<double> axis_ticks(double low, double high, int about, bool log = false);
std::string tick_label(double value, double step, TickFormat format);

}  // namespace fathom::formats
