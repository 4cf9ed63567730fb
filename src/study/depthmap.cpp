#include "study/depthmap.h"

#include <algorithm>
#include <cmath>

#include "core/human.h"
#include "formats/html.h"
#include "formats/svg.h"
#include "study/page.h"

namespace fathom::study {
namespace {

constexpr int64_t kFew = 20;  // tokens below which a group's mean says nothing
constexpr int kHalf = 460;  // width of a chart that shares its line with another

using namespace formats;

Axis from_zero(const std::string& label, TickFormat format) {
  Axis axis;
  axis.label = label, axis.format = format, axis.low = 0.0, axis.zero = true;
  return axis;
}

std::string share_chart(const DepthStudy& s) {
  BarChart c;
  const bool light = std::any_of(s.routed.begin(), s.routed.end(), [](const routing::RoutedUnit& unit) { return unit.paths.light; });
  c.title = light ? "Share of tokens by path, at each routed block" : "Share of tokens that ran each routed block";
  Series full, low;
  for (size_t u = 0; u < s.routed.size(); ++u) {
    c.categories.push_back(s.routed[u].name());
    full.y.push_back(s.all.share(u)), low.y.push_back(s.all.light_share(u));
  }
  c.series = {full};
  if (light) c.series[0].name = "full", low.name = "light", c.series.push_back(low);
  c.y = from_zero("share of tokens", TickFormat::percent);
  c.values = true;
  c.width = kHalf, c.height = 290;
  return bar_chart(c);
}

std::string histogram_chart(const DepthStudy& s) {
  BarChart c;
  c.title = "Tokens by depth";
  Series share;
  for (size_t i = 0; i < s.histogram.size(); ++i) {
    c.categories.push_back(std::to_string(s.least + static_cast<int64_t>(i)));
    share.y.push_back(static_cast<double>(s.histogram[i]) / static_cast<double>(s.tokens));
  }
  c.series = {share};
  c.y = from_zero("share of tokens", TickFormat::percent);
  c.values = true;
  c.width = kHalf, c.height = 290;
  return bar_chart(c);
}

// Routed blocks run on average: a length that starts at nothing, unlike depth itself, which starts at `least`.
std::string group_chart(const DepthStudy& s, const std::string& title, const std::vector<DepthGroup>& groups) {
  BarChart c;
  c.title = title;
  c.horizontal = true;
  Series mean;
  for (const DepthGroup& g : groups) {
    if (g.tokens < kFew) continue;
    c.categories.push_back(g.name);
    mean.y.push_back(g.mean_depth(0));
  }
  c.series = {mean};
  c.y = from_zero(str("routed blocks run, of ", s.most - s.least), TickFormat::number);
  c.values = true;
  c.width = kHalf;
  return bar_chart(c);
}

std::string group_table(const DepthStudy& s, const std::string& what, const std::vector<DepthGroup>& groups) {
  std::vector<std::string> head = {what, "tokens", "mean depth"};
  for (const routing::RoutedUnit& unit : s.routed) head.push_back(unit.name());
  std::vector<std::vector<std::string>> rows;
  for (const DepthGroup& g : groups) {
    if (g.tokens < kFew) continue;
    rows.push_back({g.name, human_count(static_cast<double>(g.tokens)), fixed(g.mean_depth(s.least), 2)});
    for (size_t r = 0; r < g.ran.size(); ++r) rows.back().push_back(percent(g.share(r)));
  }
  return html_table(head, rows);
}

std::string position_map(const DepthStudy& s) {
  HeatMap m;
  m.title = "Share of tokens that ran a routed block, by position in the window";
  for (size_t r = 0; r < s.routed.size(); ++r) {
    m.rows.push_back(s.routed[r].name());
    m.cells.emplace_back();
    for (const DepthGroup& g : s.by_position) m.cells.back().push_back(g.share(r));
  }
  for (const DepthGroup& g : s.by_position) m.columns.push_back(g.name);
  m.column_label = "position in the window";
  m.format = TickFormat::percent;
  double most = 0;
  for (const auto& row : m.cells)
    for (const double share : row) most = std::isfinite(share) ? std::max(most, share) : most;
  m.low = 0.0, m.high = std::max(0.05, std::ceil(most * 20) / 20);
  return heat_map(m);
}

// On one line: a new line as a sign, runs of white space as one space.
std::string flat(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') out += "↵";
    else if (c == ' ' || c == '\t') out += out.empty() || out.back() != ' ' ? " " : "";
    else out += c;
  }
  return html_escape(out);
}

std::string examples(const DepthStudy& s, const std::vector<TokenExample>& list) {
  std::string out = "<ul class=\"examples\">";
  for (const TokenExample& e : list)
    out += str("<li><span class=\"depth\">depth ", e.depth, "</span><span class=\"near\">…", flat(e.before), "</span>",
               "<span class=\"chip s", depth_step(static_cast<double>(e.depth), s.least, s.most), "\">", flat(e.token), "</span><span class=\"near\">", flat(e.after), "…</span></li>");
  return out + "</ul>";
}

std::string chips(const DepthStudy& s, const std::vector<TokenType>& types) {
  std::string out = "<p>";
  for (const TokenType& t : types)
    out += token_chip(t.token, t.mean_depth, s.least, s.most, str("mean depth ", fixed(t.mean_depth, 2), " over ", t.count, " times")) + " ";
  return out + "</p>";
}

}  // namespace

std::string depth_sections(const DepthStudy& s) {
  std::string body = html_section("passage", "A passage, token by token",
                                  "<p>Every column is a token; the cells under it are the blocks, the first on top. The deeper a token goes, the more cells are filled.</p>" + depth_legend(s.least, s.most) +
                                      token_map(s.passage, s.routed, s.least, s.most, s.blocks));
  if (s.routed.empty()) return body + "<p>No block of this model is routed: every token runs all of them.</p>";
  body += html_section("blocks", "Blocks and depth",
                       "<div class=\"pair\">" + html_figure(share_chart(s), "How many tokens run each routed block.") +
                           html_figure(histogram_chart(s), str("How many blocks a token runs in full: ", s.least, " to ", s.most, ".")) + "</div>");
  body += html_section("position", "By position", html_figure(position_map(s), "Each row is a routed block, each column a stretch of the window. A router that looks at position alone would show vertical stripes."));
  body += html_section("kinds", "By kind of token",
                       "<div class=\"pair\">" + html_figure(group_chart(s, "By class of token", s.by_class), "White space, punctuation, digits, words.") +
                           html_figure(group_chart(s, "By frequency of the token", s.by_frequency), "How often the token stands in this text.") +
                           html_figure(group_chart(s, "By loss of the next token", s.by_difficulty), "How hard the next token was to predict: does the model spend more where it is unsure?") +
                           "</div>" + group_table(s, "class", s.by_class));
  body += html_section("extremes", "The deepest and the shallowest",
                       "<div class=\"pair\"><div><h3>Deepest in context</h3>" + examples(s, s.deepest) + "</div><div><h3>Shallowest in context</h3>" + examples(s, s.shallowest) +
                           "</div></div><h3>Tokens that go deep on average</h3>" + chips(s, s.deep_types) + "<h3>Tokens that stay shallow</h3>" + chips(s, s.shallow_types));
  return body;
}

std::string depthmap_page(const DepthStudy& s) {
  HtmlPage page;
  page.title = "Depth map of " + s.model;
  page.lead = str("<p>Which token ran which block, under the ", rule_words(s.rule), ", on ", html_escape(s.text), ".</p>");
  page.body = html_tiles({{percent(s.block_fraction), "block fraction", "FLOPs in the blocks, of every token in full"},
                          {percent(s.total_fraction), "total fraction", "the same with embedding and head"},
                          {fixed(s.all.mean_depth(s.least), 2), str("mean depth of ", s.blocks), "blocks run in full"},
                          {fixed(s.loss, 3), "loss", "nats per token"},
                          {fixed(s.bits_per_byte, 3), "bits per byte", ""},
                          {human_count(static_cast<double>(s.tokens)), "tokens", str("in windows of ", s.context)}}) +
              depth_sections(s);
  page.style = depth_style();
  page.script = depth_script();
  page.footer = str("<p>Dial ", fixed(s.dial, 3), ". Made by fathom depthmap.</p>");
  return html_page(page);
}

}  // namespace fathom::study
