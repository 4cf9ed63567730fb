// HTML for reports: escaping, and one self-contained page (no network) with light and dark themes that follow the
// reader's system or a button, readable on a phone. The page's style also colours the charts of formats/svg.h.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace fathom::formats {

// Safe as text and inside a quoted attribute. Broken UTF-8 becomes U+FFFD; control bytes except tab and line feed too.
std::string html_escape(std::string_view text);

struct HtmlPage {
  std::string title = {};
  std::string lead = {};      // HTML: a sentence or two under the title
  std::string body = {};      // HTML
  std::string style = {};     // more CSS
  std::string script = {};    // more JavaScript, run after the body
  std::string footer = {};    // HTML: how the page was made
};
std::string html_page(const HtmlPage& page);

// `<section>` with a heading that links to itself by its id.
std::string html_section(std::string_view id, std::string_view heading, std::string_view html);

// A table that scrolls sideways on a narrow screen. Cells are text, escaped; a cell that begins with a digit, a sign or
// "–" is set in figures and to the right. `strong_row` is emphasised (-1: none).
std::string html_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows, int strong_row = -1);

// A figure with a caption around a chart: `caption` is HTML.
std::string html_figure(std::string_view svg, std::string_view caption);

// A row of large numbers: {"value", "what it is"} each.
struct HtmlTile {
  std::string value = {}, label = {}, note = {};
};
std::string html_tiles(const std::vector<HtmlTile>& tiles);

// The CSS of colours and charts alone, as html_page() has it (svg_file() embeds it).
const std::string& html_chart_style();

}  // namespace fathom::formats
