#include "study/curve_page.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/human.h"
#include "formats/html.h"
#include "formats/svg.h"
#include "study/page.h"

namespace fathom::study {
namespace {

using namespace formats;
using model::CurvePoint;
using model::CurveSpeed;
using model::CurveTask;
using model::DialCurve;
using model::Estimate;

constexpr int kHalf = 460;  // width of a chart that shares its line with another

std::string plain(const Estimate& e, int digits) { return fixed(e.value, digits) + (std::isfinite(e.half) ? " ± " + fixed(e.half, digits) : ""); }

std::string difference(const Estimate& e, int digits, double factor = 1) {
  if (!e.known()) return "–";
  return (e.value < 0 ? "−" : "+") + fixed(factor * std::abs(e.value), digits) + (std::isfinite(e.half) ? " ± " + fixed(factor * e.half, digits) : "");
}

std::string share(const CurveTask& t) { return percent(t.accuracy) + (std::isfinite(t.error) ? " ± " + fixed(100 * t.error, 1) : ""); }

// The rows of every table: the dials, then the dense model, then the rivals.
std::vector<const CurvePoint*> all_points(const DialCurve& c) {
  std::vector<const CurvePoint*> out;
  for (const CurvePoint& p : c.points) out.push_back(&p);
  if (c.dense) out.push_back(&*c.dense);
  for (const CurvePoint& p : c.rivals) out.push_back(&p);
  return out;
}

std::string row_name(const DialCurve& c, const CurvePoint& p) {
  if (c.dense && &p == &*c.dense) return p.name + " (dense)";
  return &p >= c.points.data() && &p < c.points.data() + c.points.size() ? "dial\u00a0" + fixed(p.dial, 3) : p.name + " (rival)";
}

// The axis of block fractions, with room around what stands on it.
Axis fractions(const DialCurve& c) {
  double low = 1, high = 1;
  for (const CurvePoint* p : all_points(c)) low = std::min(low, p->block_fraction), high = std::max(high, p->block_fraction);
  return {.label = "block fraction", .low = std::floor(20 * low - 0.2) / 20, .high = high + 0.02};
}

// Differences to dial 1 and to the dense model; nothing where a line is compared with itself.
std::string over_full(const DialCurve& c, const CurvePoint& p, const Estimate& e, int digits, double factor = 1) { return &p == &c.points[0] ? "–" : difference(e, digits, factor); }
std::string over_dense(const DialCurve& c, const CurvePoint& p, const Estimate& e, int digits, double factor = 1) { return &p == &*c.dense ? "–" : difference(e, digits, factor); }

// A chart over block fractions: the dials as a line, the rivals as dots, the dense model's value as a dashed line across.
struct Value {
  std::function<double(const CurvePoint&)> at, half = {};
};

Chart over_fractions(const DialCurve& c, const std::string& title, const std::string& label, const Value& value) {
  Chart chart{.title = title, .x = fractions(c), .y = {.label = label}, .width = kHalf, .height = 330};
  Series line{.name = c.model, .markers = true, .color = 0};
  for (const CurvePoint& p : c.points) {
    line.x.push_back(p.block_fraction), line.y.push_back(value.at(p));
    if (!value.half) continue;
    const double half = std::isfinite(value.half(p)) ? value.half(p) : 0;
    line.low.push_back(line.y.back() - half), line.high.push_back(line.y.back() + half);
  }
  chart.series.push_back(line);
  if (c.dense) {
    const double y = value.at(*c.dense);
    chart.series.push_back({.name = c.dense->name + " (dense)", .x = {*chart.x.low, *chart.x.high}, .y = {y, y}, .dashed = true, .color = 1});
  }
  int color = 2;
  for (const CurvePoint& p : c.rivals) chart.series.push_back({.name = p.name, .x = {p.block_fraction}, .y = {value.at(p)}, .markers = true, .color = color++ % 8});
  return chart;
}

std::string quality_table(const DialCurve& c) {
  std::vector<std::string> head = {"", "block fraction", "loss", "over dial 1"};
  if (c.dense) head.push_back("over dense");
  head.push_back("perplexity");
  std::vector<std::vector<std::string>> rows;
  for (const CurvePoint* p : all_points(c)) {
    rows.push_back({row_name(c, *p), fixed(p->block_fraction, 3), plain(p->loss, 4), over_full(c, *p, p->over_full, 4)});
    if (c.dense) rows.back().push_back(over_dense(c, *p, p->over_dense, 4));
    rows.back().push_back(fixed(p->perplexity(), 3));
  }
  std::string out = html_table(head, rows);
  for (const CurvePoint& p : c.rivals)
    out += "<p>" + html_escape(p.curve_minus_this.known() ? str("At the block fraction of ", p.name, ", ", fixed(p.block_fraction, 3), ", the curve, straight between its two nearest dials, is ", difference(p.curve_minus_this, 4),
                                                                 " nats per token from it, paired; below 0 the router wins.")
                                                          : str("The curve was not measured at the block fraction of ", p.name, ", ", fixed(p.block_fraction, 3), ".")) + "</p>";
  return out;
}

std::string accuracy_section(const DialCurve& c) {
  std::vector<std::string> head = {""};
  for (const CurveTask& t : c.points[0].tasks) head.push_back(t.name);
  head.insert(head.end(), {"mean", "points over dial 1"});
  if (c.dense) head.push_back("points over dense");
  std::vector<std::vector<std::string>> rows;
  for (const CurvePoint* p : all_points(c)) {
    rows.push_back({row_name(c, *p)});
    for (const CurveTask& t : p->tasks) rows.back().push_back(share(t));
    const CurveTask mean = p->mean();
    rows.back().insert(rows.back().end(), {share(mean), over_full(c, *p, mean.over_full, 2, 100)});
    if (c.dense) rows.back().push_back(over_dense(c, *p, mean.over_dense, 2, 100));
  }
  Chart chart = over_fractions(c, "Accuracy, mean of the tasks", "share of right answers", {.at = [](const CurvePoint& p) { return p.mean().accuracy; }, .half = [](const CurvePoint& p) { return p.mean().error; }});
  chart.y.format = TickFormat::percent;
  Chart each{.title = "Accuracy by task", .x = fractions(c), .y = {.label = "share of right answers", .format = TickFormat::percent}, .width = kHalf, .height = 330};
  for (size_t t = 0; t < c.points[0].tasks.size(); ++t) {
    Series s{.name = c.points[0].tasks[t].name, .markers = true};
    for (const CurvePoint& p : c.points) s.x.push_back(p.block_fraction), s.y.push_back(p.tasks[t].accuracy);
    each.series.push_back(s);
  }
  return "<div class=\"pair\">" + html_figure(line_chart(chart), "The band is one standard error to either side. Answers to the same items: the paired differences below are sharper than the band.") +
         html_figure(line_chart(each), "Every task by itself.") + "</div>" + html_table(head, rows) +
         "<p>± is the standard error of an accuracy; of a difference it is 95 %, paired over items.</p>";
}

std::string speed_section(const DialCurve& c) {
  std::string charts, tables;
  for (size_t w = 0; w < c.points[0].speeds.size(); ++w) {
    std::vector<std::string> head = {"", "FLOPs saved", "tokens/s", "× dial 1", "allowed"};
    if (c.dense) head.insert(head.end(), {"× dense", "allowed"});
    std::vector<std::vector<std::string>> rows;
    for (const CurvePoint* p : all_points(c)) {
      const CurveSpeed& s = p->speeds[w];
      rows.push_back({row_name(c, *p), percent(p->saved()), fixed(s.tokens_per_second, s.tokens_per_second < 100 ? 1 : 0), fixed(s.over_full, 2), fixed(s.full_allows, 2)});
      if (c.dense) rows.back().insert(rows.back().end(), {fixed(s.over_dense, 2), fixed(s.dense_allows, 2)});
    }
    tables += "<h3>" + html_escape(c.points[0].speeds[w].words()) + "</h3>" + html_table(head, rows);
  }
  for (const bool dense : {false, true}) {
    if (dense && !c.dense) break;
    Chart chart{.title = dense ? "Times as fast as the dense model" : "Times as fast as dial 1", .x = fractions(c), .y = {.label = "×"}, .width = kHalf, .height = 330};
    for (size_t w = 0; w < c.points[0].speeds.size(); ++w)
      for (const bool allowed : {false, true}) {
        Series s{.name = c.points[0].speeds[w].words() + (allowed ? ", allowed" : ""), .dashed = allowed, .markers = !allowed, .color = static_cast<int>(w)};
        for (const CurvePoint& p : c.points) {
          const CurveSpeed& v = p.speeds[w];
          s.x.push_back(p.block_fraction), s.y.push_back(dense ? (allowed ? v.dense_allows : v.over_dense) : allowed ? v.full_allows : v.over_full);
        }
        chart.series.push_back(s);
      }
    charts += html_figure(line_chart(chart), dense ? "The same beside the dense model, which pays no router." : "Measured, and dashed what the cost model allows: the FLOPs of a prompt, the bytes that decoding reads.");
  }
  return "<div class=\"pair\">" + charts + "</div>" + tables +
         "<p>Medians of rounds in turns in one window, on the text itself. Allowed: by the FLOPs of a prompt, by the bytes of weights, keys and values that decoding reads. "
         "A batch skips a block's weights only where all of its tokens skip.</p>";
}

std::string memory_section(const DialCurve& c) {
  Chart chart = over_fractions(c, "Keys and values of a token", "bytes per token", {.at = [](const CurvePoint& p) { return p.kv_bytes; }});
  chart.y.format = TickFormat::bytes, chart.y.zero = true, chart.width = 720, chart.height = 280;
  std::vector<std::vector<std::string>> rows;
  for (const CurvePoint* p : all_points(c))
    rows.push_back({row_name(c, *p), human_bytes(p->kv_bytes), percent(p->kv_bytes / (c.dense ? *c.dense : c.points[0]).kv_bytes), human_bytes(p->kv_bytes_expected)});
  return html_figure(line_chart(chart), "Of the slots that the cache gave out on this text, in " + html_escape(c.kv_type) + ".") +
         html_table({"", "KV bytes per token", c.dense ? "of dense" : "of dial 1", "expected"}, rows) + "<p>Expected: by the shares that the dial's table was calibrated to.</p>";
}

std::string depth_section(const DialCurve& c, const std::vector<DepthStudy>& depths) {
  std::string out;
  HeatMap heat{.title = "Share of tokens that ran a routed unit in full, at every dial", .low = 0.0, .high = 1.0, .format = TickFormat::percent};
  for (const routing::RoutedUnit& unit : depths[0].routed) heat.columns.push_back(unit.label());
  for (const CurvePoint& p : c.points) heat.rows.push_back("dial " + fixed(p.dial, 3)), heat.cells.push_back(p.full);
  heat.column_label = "block";
  out += html_figure(heat_map(heat), "On the whole text. A column that stays dark is a block that tokens need at every dial.");
  for (const DepthStudy& s : depths)
    out += "<div><h3>Dial " + fixed(s.dial, 3) + ": " + fixed(s.all.mean_depth(s.least), 1) + str(" of ", s.blocks, " blocks in full on average</h3>") + depth_legend(s.least, s.most) +
           token_map(s.passage, s.routed, s.least, s.most, s.blocks) + "</div>";
  return out;
}

std::string reading(const DialCurve& c) {
  const CurvePoint &full = c.points.front(), &low = c.points.back();
  std::string text = str("At dial ", fixed(low.dial, 3), " ", c.model, " spends ", percent(low.block_fraction), " of its blocks' FLOPs, and its loss is ", difference(low.over_full, 4), " nats per token over dial 1");
  if (c.dense) text += str(", ", difference(low.over_dense, 4), " over ", c.dense->name);
  text += ".";
  for (const CurveSpeed& s : low.speeds) text += str(" ", s.batch == 0 ? "A prompt is read" : s.batch == 1 ? "One text is decoded" : str(s.batch, " texts are decoded"), " ", fixed(c.dense ? s.over_dense : s.over_full, 2), " times as fast as ", c.dense ? c.dense->name : "at dial 1", " (", fixed(c.dense ? s.dense_allows : s.full_allows, 2), " by bytes and FLOPs).");
  return text + (c.points.size() > 1 ? "" : str(" There is one dial only, ", fixed(full.dial, 3), "."));
}

std::vector<HtmlTile> tiles(const DialCurve& c) {
  const CurvePoint &full = c.points.front(), &low = c.points.back();
  std::vector<HtmlTile> out = {{fixed(full.loss.value, 3), "nats per token at dial 1", std::isfinite(full.loss.half) ? "± " + fixed(full.loss.half, 3) : ""},
                               {fixed(low.loss.value, 3), "nats per token at dial " + fixed(low.dial, 2), difference(low.over_full, 4) + ", paired"},
                               {percent(low.saved()), "FLOPs saved there", "of the whole model, with embedding and head"}};
  for (const CurveSpeed& s : low.speeds) out.push_back({fixed(c.dense ? s.over_dense : s.over_full, 2) + " ×", s.words() + (c.dense ? " beside the dense model" : " beside dial 1"), fixed(c.dense ? s.dense_allows : s.full_allows, 2) + " × by bytes and FLOPs"});
  return out;
}

}  // namespace

std::string curve_page(const DialCurve& c, const std::vector<DepthStudy>& depths, const std::string& chosen, const std::string& command) {
  HtmlPage page;
  page.title = "Fathom: the dial of " + c.model;
  page.lead = "<p>" + html_escape(reading(c)) + "</p>";
  if (!chosen.empty()) page.lead += "<p><strong>" + html_escape(chosen) + "</strong></p>";
  page.body = html_tiles(tiles(c));
  const std::string over = c.by_stretch ? str(c.units, " stretches of text") : str(c.units, " documents");
  page.body += html_section("loss", "Loss",
                            "<div class=\"pair\">" +
                                html_figure(line_chart(over_fractions(c, "Loss against block fraction", "nats per token", {.at = [](const CurvePoint& p) { return p.loss.value; }, .half = [](const CurvePoint& p) { return p.loss.half; }})),
                                            "Under the causal rule; the band is 95 % over " + over + ".") +
                                html_figure(line_chart(over_fractions(c, "Loss over dial 1, paired", "nats per token", {.at = [](const CurvePoint& p) { return p.over_full.value; }, .half = [](const CurvePoint& p) { return p.over_full.half; }})),
                                            "The same text at both dials: most of what makes the band on the left wide is gone.") +
                                "</div>" + quality_table(c) + "<p>Fractions are of the FLOPs of the routed model with every token full, routers and light paths counted. Differences are paired, 95 % over " + over + ".</p>");
  if (!c.points[0].tasks.empty()) page.body += html_section("accuracy", "Accuracy", accuracy_section(c));
  if (!c.points[0].speeds.empty()) page.body += html_section("speed", "Speed: what was saved, and what it saves", speed_section(c));
  page.body += html_section("memory", "Memory", memory_section(c));
  if (!depths.empty()) page.body += html_section("depth", "Who goes how deep", depth_section(c, depths));
  page.style = depth_style();
  page.script = depth_script();
  page.footer = "<p>" + html_escape(str("Measured on ", c.text, ": ", human_count(static_cast<double>(c.tokens)), " tokens in windows of at most ", c.context, ". ", c.machine, ", weights ", c.weights,
                                        ", keys and values ", c.kv_type, ", ", c.date, ". Made by: ")) +
                "<code>" + html_escape(command) + "</code></p>";
  return html_page(page);
}

}  // namespace fathom::study
