// The formats room behind a command line, for the Python tests that compare it with other implementations.
//   formats_tool safetensors-copy IN OUT          every tensor's bytes, in the order of the file
//   formats_tool safetensors-convert IN OUT DTYPE float tensors through f32 into DTYPE
//   formats_tool tensorboard FOLDER START         scalars, a histogram and a text from step START
//   formats_tool gallery FOLDER                   page.html with every chart, chart.svg as a file of its own
#include <cmath>
#include <iostream>

#include "core/error.h"
#include "core/random.h"
#include "formats/html.h"
#include "formats/safetensors.h"
#include "formats/svg.h"
#include "formats/tensorboard.h"

using namespace fathom;
using namespace fathom::formats;

namespace {

void copy(const std::string& in, const std::string& out, std::optional<Dtype> to) {
  const SafetensorsSet set(in);
  const auto is_float = [](Dtype d) { return d == Dtype::F64 || d == Dtype::F32 || d == Dtype::F16 || d == Dtype::BF16; };
  std::vector<TensorEntry> entries;
  for (const TensorView* t : set.tensors()) entries.push_back({t->name, to && is_float(t->dtype) ? *to : t->dtype, t->shape});
  SafetensorsWriter writer(out, entries, set.files()[0]->metadata());
  for (const TensorView* t : set.tensors()) {
    if (to && is_float(t->dtype)) writer.append_f32(t->to_f32());
    else writer.append(t->bytes);
  }
  writer.commit();
}

void tensorboard(const std::string& folder, int64_t start) {
  EventWriter w(folder, start);
  for (int64_t step = start; step < start + 10; ++step) {
    w.set_time(1e9 + static_cast<double>(step));
    w.scalar("loss/train", step, 10.0 / static_cast<double>(step + 1));
    w.scalar("größe", step, step == start + 3 ? NAN : static_cast<double>(step));
  }
  Random random(1);
  std::vector<float> normal(20000);
  for (float& v : normal) v = static_cast<float>(random.normal());
  normal.push_back(NAN);
  w.histogram("router/score", start, normal);
  w.histogram("nothing", start, {});
  w.text("config", start, "a **bold** word\n\n<b>& é</b>");
  w.flush();
  std::cout << w.path() << '\n';
}

// Every kind of chart with data that tries it: long names, gaps, log axes, extremes.
void gallery(const std::string& folder) {
  Random random(4);
  Chart loss{.title = "Held-out loss under the causal rule"};
  loss.x = {.label = "training FLOPs", .log = true};
  loss.y = {.label = "loss (nats per token)"};
  const char* names[] = {"MoD 12.5 %", "dense, fewer tokens", "dense, fewer blocks"};
  for (int k = 0; k < 3; ++k) {
    Series s{.name = names[k], .dashed = k == 2};
    for (int i = 0; i < 3000; ++i) {
      const double flops = 1e12 * std::pow(1.0023, i);
      s.x.push_back(flops);
      s.y.push_back(2.6 + 0.05 * k + 4.5 * std::pow(flops / 1e12, -0.25) + (k == 0 ? 0.06 : 0.02) * random.normal());
      if (k == 0) s.low.push_back(s.y.back() - 0.12), s.high.push_back(s.y.back() + 0.12);
    }
    loss.series.push_back(s);
  }
  loss.horizontal = {{3.1, "target 3.1"}};
  Chart seconds{.title = "Loss against seconds, with a gap"};
  seconds.x = {.label = "wall-clock", .format = TickFormat::seconds};
  seconds.y = {.label = "loss"};
  Series gap{.name = "run", .markers = true};
  for (int i = 0; i < 25; ++i) gap.x.push_back(i * 15), gap.y.push_back(i == 9 ? NAN : 6 / std::sqrt(i + 1.0));
  seconds.series = {gap};
  seconds.vertical = {{200, "warm-up ends"}};
  Chart rate{.title = "Learning rate <small & small>", .height = 260};
  rate.x = {.label = "step"};
  rate.y = {.label = "rate"};
  Series r;
  for (int i = 0; i <= 20000; i += 10) r.x.push_back(i), r.y.push_back(3e-4 * std::min(1.0, i / 1000.0) * (0.55 + 0.45 * std::cos(i / 20000.0 * 3.14159)));
  rate.series = {r};
  Chart scatter{.title = "Depth against frequency"};
  scatter.x = {.label = "occurrences of the token", .log = true};
  scatter.y = {.label = "mean share of blocks", .format = TickFormat::percent, .low = 0, .high = 1};
  for (int k = 0; k < 3; ++k) {
    Series s{.name = std::vector<std::string>{"words", "punctuation", "digits"}[static_cast<size_t>(k)]};
    for (int i = 0; i < 150; ++i) s.x.push_back(std::pow(10, 5 * random.uniform())), s.y.push_back(0.5 + 0.12 * random.normal() - 0.1 * k);
    scatter.series.push_back(s);
  }
  BarChart bars{.title = "Share of tokens that run each block"};
  bars.y = {.format = TickFormat::percent};
  Series full{.name = "full"}, light{.name = "light"};
  for (int i = 0; i < 8; ++i) bars.categories.push_back(str("block ", i)), full.y.push_back(i % 2 ? 0.125 : 1.0), light.y.push_back(i % 2 ? 0.3 + 0.05 * i : 0);
  bars.series = {full, light};
  BarChart signs{.title = "Change against the twin", .height = 260};
  signs.y = {.label = "nats"};
  signs.categories = {"seed 1", "seed 2", "seed 3", "seed 4", "seed 5"};
  signs.series = {Series{.y = {-0.031, -0.012, 0.004, -0.027, -0.019}}};
  signs.values = true;
  BarChart speed{.title = "Decode, tokens per second"};
  speed.categories = {"fathom MoD", "fathom dense", "a peer with a rather long name", "naive <MoD>"};
  speed.series = {Series{.y = {312, 205.5, 181, 77}}};
  speed.horizontal = speed.values = true;
  HeatMap depth{.title = "Which token runs which block"};
  depth.row_label = "block", depth.column_label = "token";
  depth.cells.resize(8);
  for (auto& row : depth.cells)
    for (int t = 0; t < 40; ++t) row.push_back(random.uniform());
  for (int t = 0; t < 40; ++t) depth.columns.push_back(t % 3 ? "of" : "words");
  depth.format = TickFormat::percent, depth.low = 0, depth.high = 1;
  HeatMap big{.title = "Ten thousand cells"};
  big.cells.resize(40);
  for (size_t i = 0; i < 40; ++i)
    for (int t = 0; t < 250; ++t) big.cells[i].push_back(t == 100 ? NAN : std::sin(t * 0.05) * std::cos(static_cast<double>(i) * 0.2));
  const std::vector<std::string> charts = {line_chart(loss), line_chart(seconds), line_chart(rate), scatter_chart(scatter), bar_chart(bars), bar_chart(signs),
                                           bar_chart(speed), heat_map(depth), heat_map(big), line_chart({.title = "Nothing"})};
  HtmlPage page{.title = "Chart gallery", .lead = "Every chart that the formats room draws, for the eye."};
  page.body = html_tiles({{"2.417", "loss, causal rule", "top-k 2.416"}, {"1.82 ×", "decode speed", "against the dense twin"}, {"0.551", "block fraction", "total 0.61"}, {"4.1 MB", "KV per 1,000 tokens", ""}});
  page.body += html_section("table", "Comparison", html_table({"model", "parameters", "loss", "tokens/s"}, {{"MoD", "6.1 M", "2.417", "312"}, {"dense, same shape", "6.1 M", "2.449", "205"}, {"dense, fewer blocks", "4.0 M", "–", "281"}}, 0));
  for (size_t i = 0; i < charts.size(); ++i) page.body += html_figure(charts[i], i % 2 ? "" : "A caption under the chart, with <code>--flags</code> in it.");
  page.footer = "Made by <code>formats_tool gallery</code>.";
  atomic_write(join_path(folder, "page.html"), html_page(page));
  atomic_write(join_path(folder, "chart.svg"), svg_file(charts[0]));
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> a(argv + 1, argv + argc);
  try {
    if (a.size() == 3 && a[0] == "safetensors-copy") copy(a[1], a[2], {});
    else if (a.size() == 4 && a[0] == "safetensors-convert") copy(a[1], a[2], dtype_from_name(a[3]));
    else if (a.size() == 3 && a[0] == "tensorboard") tensorboard(a[1], std::stoll(a[2]));
    else if (a.size() == 2 && a[0] == "gallery") gallery(a[1]);
    else return std::cerr << "see the head of formats_tool.cpp\n", 2;
  } catch (const UserError& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
}
