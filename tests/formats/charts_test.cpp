#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "formats/html.h"
#include "formats/svg.h"
#include "formats/svg_axis.h"

namespace fathom::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

std::vector<std::string> labels(const Scale& s) {
  std::vector<std::string> out;
  for (double t : s.ticks) out.push_back(s.label(t));
  return out;
}

TEST(Axis, TicksAreRoundAndInside) {
  EXPECT_THAT(axis_ticks(0, 10, 5), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(axis_ticks(-0.031, 0.004, 3), ElementsAre(-0.02, 0));
  EXPECT_THAT(axis_ticks(1, 1000, 5, true), ElementsAre(1, 10, 100, 1000));
  EXPECT_THAT(axis_ticks(2, 7, 4, true), ElementsAre(2, 4, 6)) << "less than a decade";
  EXPECT_THAT(axis_ticks(3, 40, 4, true), ElementsAre(3, 10, 30));
  EXPECT_THAT(axis_ticks(5, 5, 4), ElementsAre(5));
  for (double low : {-1e9, -3.7, 0.0, 1e-9, 123456.0})
    for (double span : {1e-7, 0.3, 17.0, 1e12})
      for (int about : {2, 5, 9}) {
        const auto t = axis_ticks(low, low + span, about);
        EXPECT_GE(t.size(), 1u);
        EXPECT_LE(t.size(), static_cast<size_t>(about) + 2) << low << " " << span;
        for (double v : t) EXPECT_TRUE(v >= low - span * 1e-6 && v <= low + span * (1 + 1e-6)) << v;
      }
}

TEST(Axis, LabelsReadWell) {
  EXPECT_EQ(tick_label(0.25, 0.25, TickFormat::number), "0.25");
  EXPECT_EQ(tick_label(0.5, 0.25, TickFormat::number), "0.50");
  EXPECT_EQ(tick_label(-2, 1, TickFormat::number), "−2");
  EXPECT_EQ(tick_label(1500, 500, TickFormat::number), "1,500");
  EXPECT_EQ(tick_label(-1500, 500, TickFormat::number), "−1,500");
  EXPECT_EQ(tick_label(1.5e6, 5e5, TickFormat::number), "1.5M");
  EXPECT_EQ(tick_label(3e-4, 1e-4, TickFormat::number), "3e−4");
  EXPECT_EQ(tick_label(0.125, 0.125, TickFormat::percent), "12.5\u00a0%");
  EXPECT_EQ(tick_label(1.5e6, 5e5, TickFormat::bytes), "1.5 MB");
  EXPECT_EQ(tick_label(300, 60, TickFormat::seconds), "5 min");
  EXPECT_EQ(tick_label(5400, 1800, TickFormat::seconds), "90 min");
  EXPECT_EQ(tick_label(7200, 3600, TickFormat::seconds), "2 h");
  EXPECT_EQ(tick_label(0.05, 0.01, TickFormat::seconds), "50 ms");
  EXPECT_EQ(tick_label(NAN, 1, TickFormat::number), "–");
  EXPECT_EQ(value_label(0.00412, 3, TickFormat::number), "0.00412");
  EXPECT_EQ(value_label(312.0, 4, TickFormat::number), "312");
  EXPECT_THAT(labels(make_scale({}, {0, 20000}, 8)), ElementsAre("0", "2.5k", "5k", "7.5k", "10k", "12.5k", "15k", "17.5k", "20k"));
  EXPECT_THAT(labels(make_scale({.format = TickFormat::seconds}, {0, 360}, 7)), ElementsAre("0", "60 s", "2 min", "3 min", "4 min", "5 min", "6 min"));
  EXPECT_THAT(labels(make_scale({.log = true}, {1e-3, 1e5}, 8)), ElementsAre("0.001", "0.01", "0.1", "1", "10", "100", "1k", "10k", "100k"));
}

TEST(Axis, RangesOfOddData) {
  for (const bool log : {false, true})
    for (const std::vector<double>& values : {std::vector<double>{}, {5}, {0, 0}, {-1, -1}, {NAN, INFINITY}, {1e300, 1e-300}, {-1.7e308, 1.7e308}, {5e-324}, {-5, 5}}) {
      const Scale s = make_scale({.log = log}, values, 5, 0.05);
      EXPECT_TRUE(std::isfinite(s.low) && s.high > s.low);
      for (double v : values)
        EXPECT_TRUE(!s.shows(v) || (s(v) >= -1e-9 && s(v) <= 1 + 1e-9)) << v;
    }
}

Chart chart_of(std::vector<double> x, std::vector<double> y) {
  Chart c{.title = "A <title>"};
  c.series = {{.name = "one & two", .x = std::move(x), .y = std::move(y)}};
  return c;
}

TEST(Charts, BreakLinesAtGapsAndEscape) {
  const std::string svg = line_chart(chart_of({0, 1, 2, 3, 4, 5}, {1, 2, NAN, 3, 4, 5}));
  EXPECT_EQ(count(svg.substr(svg.find("<path")), "M"), 2u) << "two runs of points";
  EXPECT_THAT(svg, HasSubstr("A &lt;title&gt;"));
  EXPECT_THAT(svg, HasSubstr("one &amp; two"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, HasSubstr("aria-label=\"A &lt;title&gt;\""));
}

TEST(Charts, OddDataDrawsNoOddNumbers) {
  for (const std::vector<double>& y : {std::vector<double>{}, {1}, {NAN, NAN}, {0, 0, 0}, {INFINITY, 1}, {-1e300, 1e300}, {1e-300, 2e-300}})
    for (const bool log : {false, true}) {
      std::vector<double> x;
      for (size_t i = 0; i < y.size(); ++i) x.push_back(static_cast<double>(i));
      Chart c = chart_of(x, y);
      c.x.log = c.y.log = log;
      c.series[0].markers = true;
      BarChart b{.series = {{.y = y}}, .values = true};
      for (size_t i = 0; i < y.size(); ++i) b.categories.push_back("c");
      b.y.log = log;
      BarChart h = b;
      h.horizontal = true;
      for (const std::string& svg : {line_chart(c), scatter_chart(c), bar_chart(b), bar_chart(h), heat_map({.cells = {y, y}}), heat_map({})}) {
        EXPECT_THAT(svg, Not(HasSubstr("nan")));
        EXPECT_THAT(svg, Not(HasSubstr("inf")));
        EXPECT_EQ(svg.substr(svg.size() - 6), "</svg>");
      }
    }
}

TEST(Charts, ManyPointsStaySmall) {
  Chart c = chart_of({}, {});
  for (int i = 0; i < 200'000; ++i) c.series[0].x.push_back(i), c.series[0].y.push_back(std::sin(i * 0.37) + i * 1e-5);
  const std::string svg = line_chart(c);
  EXPECT_LT(svg.size(), 60'000u);
  HeatMap m;
  m.cells.assign(16, std::vector<double>(5000, 0.5));
  EXPECT_LT(heat_map(m).size(), 60'000u);
}

TEST(Charts, HeatMapLevels) {
  const std::string svg = heat_map({.cells = {{0, 0.5, 1, NAN}}, .low = 0, .high = 1});
  EXPECT_EQ(count(svg, "<title>"), 3u) << "an empty cell is not drawn";
  EXPECT_THAT(svg, HasSubstr("class=\"h0\"><title>0, 0: 0</title>"));
  EXPECT_THAT(svg, HasSubstr("class=\"h15\"><title>0, 2: 1</title>"));
}

TEST(Html, Escapes) {
  EXPECT_EQ(html_escape("<a href=\"x\">'&'</a>"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
  EXPECT_EQ(html_escape(std::string("a\0\x1b\n\t\x7fé\xff", 9)), "a\ufffd\ufffd\n\t\ufffdé\ufffd");
}

TEST(Html, TablesSetColumnsOfFiguresToTheRight) {
  const std::string t = html_table({"name", "n"}, {{"a", "−0.5"}, {"<b>", "–"}, {"7", "x"}}, 1);
  EXPECT_THAT(t, HasSubstr("<th>name</th><th class=\"n\">n</th>"));
  EXPECT_THAT(t, HasSubstr("<tr class=\"strong\"><td>&lt;b&gt;</td><td class=\"n\">–</td></tr>"));
  EXPECT_THAT(t, HasSubstr("<td>7</td><td class=\"n\">x</td>"));
}

TEST(Html, PageHasEverythingInside) {
  const std::string page = html_page({.title = "T <1>", .lead = "<b>lead</b>", .body = "BODY", .style = ".x{}", .script = "var y", .footer = "foot"});
  for (const char* part : {"<title>T &lt;1&gt;</title>", "<b>lead</b>", "BODY", ".x{}", "<script>var y</script>", "foot", "prefers-color-scheme:dark", "name=\"viewport\"", "--c0:", "--h15:"})
    EXPECT_THAT(page, HasSubstr(part));
  EXPECT_THAT(page, Not(HasSubstr("http")));
  EXPECT_THAT(svg_file(line_chart({})), HasSubstr("<style>:root{--surface"));
}

}  // namespace
}  // namespace fathom::formats
