#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "formats/html.h"
#include "formats/svg_canvas.h"

namespace fathom::formats {
namespace {

constexpr int kLevels = 16;         // classes h0 to h15 of the page's style
constexpr size_t kTooltips = 2000;  // larger maps are drawn as runs of equal cells without tooltips

}  // namespace

std::string heat_map(const HeatMap& map) {
  const size_t rows = map.cells.size(), columns = rows ? map.cells[0].size() : 0;
  double low = INFINITY, high = -INFINITY, widest = 0;
  for (const auto& row : map.cells) {
    FATHOM_ASSERT(row.size() == columns, row.size(), " and ", columns);
    for (double v : row)
      if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  }
  FATHOM_ASSERT(map.rows.empty() || map.rows.size() == rows, map.rows.size());
  FATHOM_ASSERT(map.columns.empty() || map.columns.size() == columns, map.columns.size());
  if (!(low <= high)) low = 0, high = 1;
  low = map.low.value_or(low), high = map.high.value_or(high);
  if (!(high > low)) high = low + 1;
  const auto row_name = [&](size_t i) { return map.rows.empty() ? std::to_string(i) : map.rows[i]; };
  const auto column_name = [&](size_t j) { return map.columns.empty() ? std::to_string(j) : map.columns[j]; };
  for (size_t i = 0; i < rows; ++i) widest = std::max(widest, text_width(row_name(i)));

  const double left = std::min(widest + 12, map.width * 0.4), n = static_cast<double>(std::max<size_t>(1, columns));
  const double cell_width = map.cell_width > 0 ? map.cell_width : std::clamp((map.width - left - 14) / n, 2.0, 60.0);
  const double cell_height = map.cell_height > 0 ? map.cell_height : std::clamp(320.0 / static_cast<double>(std::max<size_t>(1, rows)), 6.0, 22.0);
  const double top = (map.title.empty() ? 8 : 34) + (map.row_label.empty() ? 0 : 20);
  const double right = left + cell_width * n, bottom = top + cell_height * static_cast<double>(rows);
  const double key = bottom + (map.column_label.empty() ? 32 : 50);
  const int width = std::max(map.width, static_cast<int>(std::ceil(right + 14)));
  Canvas canvas(width, static_cast<int>(key + 34), map.title);
  if (!map.title.empty()) canvas.text(4, 20, "title", "start", map.title);
  if (!map.row_label.empty()) canvas.text(4, top - 9, "quiet", "start", map.row_label);

  const auto level = [&](double v) { return !std::isfinite(v) ? -1 : static_cast<int>(std::clamp((v - low) / (high - low), 0.0, 1.0) * (kLevels - 1) + 0.5); };
  canvas.rect(left, top, right - left, bottom - top, "empty");
  const bool tooltips = rows * columns <= kTooltips;
  const double gap_x = cell_width > 8 ? 1 : 0, gap_y = cell_height > 8 ? 1 : 0;
  std::vector<std::string> runs(kLevels);
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < columns;) {
      const int h = level(map.cells[i][j]);
      size_t end = j + 1;
      while (!tooltips && end < columns && level(map.cells[i][end]) == h) ++end;
      const double x = left + static_cast<double>(j) * cell_width, y = top + static_cast<double>(i) * cell_height;
      const double w = static_cast<double>(end - j) * cell_width - gap_x, t = cell_height - gap_y;
      if (h >= 0 && tooltips)
        canvas.rect(x, y, w, t, str("h", h), row_name(i) + ", " + column_name(j) + ": " + value_label(map.cells[i][j], 3, map.format));
      else if (h >= 0)
        runs[static_cast<size_t>(h)] += "M" + coordinate(x) + " " + coordinate(y) + "h" + coordinate(w) + "v" + coordinate(t) + "h-" + coordinate(w) + "z";
      j = end;
    }
  for (int h = 0; h < kLevels; ++h)
    if (!runs[static_cast<size_t>(h)].empty()) canvas.path(runs[static_cast<size_t>(h)], str("h", h));

  const size_t every_row = static_cast<size_t>(std::ceil(13 / cell_height));
  for (size_t i = 0; i < rows; i += every_row) canvas.text(left - 7, top + (static_cast<double>(i) + 0.5) * cell_height + 4, "label", "end", row_name(i));
  double free_from = -1e9;
  for (size_t j = 0; j < columns; ++j) {
    const double x = left + (static_cast<double>(j) + 0.5) * cell_width, half = text_width(column_name(j)) / 2;
    if (x - half < free_from || x + half > width) continue;
    canvas.text(x, bottom + 16, "tick", "middle", column_name(j));
    free_from = x + half + 8;
  }
  if (!map.column_label.empty()) canvas.text((left + right) / 2, bottom + 34, "quiet", "middle", map.column_label);

  const double step = std::pow(10, std::floor(std::log10(high - low))) / 10;
  const std::string low_label = tick_label(low, step, map.format), high_label = tick_label(high, step, map.format);
  double x = left + text_width(low_label) + 8;
  canvas.text(left, key + 12, "tick", "start", low_label);
  for (int h = 0; h < kLevels; ++h, x += 10) canvas.rect(x, key + 2, 10, 12, str("h", h));
  canvas.text(x + 8, key + 12, "tick", "start", high_label);
  if (rows == 0 || columns == 0) canvas.text(left, top + 14, "quiet", "start", "no data");
  return canvas.finish();
}

std::string svg_file(const std::string& svg) {
  const size_t end = svg.find('>');
  FATHOM_ASSERT(svg.starts_with("<svg") && end != std::string::npos, "not a chart");
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" + svg.substr(0, end + 1) + "\n<style>" + html_chart_style() +
         "svg{background:var(--surface)}</style>" + svg.substr(end + 1) + "\n";
}

}  // namespace fathom::formats
