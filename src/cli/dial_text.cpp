#include "cli/dial_text.h"

#include <cmath>

#include "cli/output.h"
#include "core/human.h"

namespace fathom::cli {
namespace {

using model::CurvePoint;
using model::CurveSpeed;
using model::CurveTask;
using model::DialCurve;
using model::Estimate;

std::string difference(const Estimate& e, int digits, double factor = 1) {
  if (!e.known()) return "–";
  return (e.value < 0 ? "−" : "+") + fixed(factor * std::abs(e.value), digits) + (std::isfinite(e.half) ? " ±" + fixed(factor * e.half, digits) : "");
}

// To dial 1 and to the dense model; nothing where a line is compared with itself.
std::string over_full(const DialCurve& c, const CurvePoint& p, const Estimate& e, int digits, double factor = 1) { return &p == &c.points[0] ? "–" : difference(e, digits, factor); }
std::string over_dense(const DialCurve& c, const CurvePoint& p, const Estimate& e, int digits, double factor = 1) { return &p == &*c.dense ? "–" : difference(e, digits, factor); }

std::string share(const CurveTask& t) { return percent(t.accuracy) + (std::isfinite(t.error) ? " ±" + fixed(100 * t.error, 1) : ""); }

// A table of all dials, then the dense model, then the rivals.
template <class Cells>
std::string table(const DialCurve& c, std::vector<std::string> head, const Cells& cells, const std::string& corner = "") {
  head.insert(head.begin(), corner);
  std::vector<std::vector<std::string>> rows = {head};
  const auto row = [&](const std::string& name, const CurvePoint& p) {
    rows.push_back(cells(p));
    rows.back().insert(rows.back().begin(), "  " + name);
  };
  for (const CurvePoint& p : c.points) row("dial " + fixed(p.dial, 3), p);
  if (c.dense) row(c.dense->name + " (dense)", *c.dense);
  for (const CurvePoint& p : c.rivals) row(p.name + " (rival)", p);
  return text_table(rows);
}

std::string units_text(const DialCurve& c) { return c.by_stretch ? str(c.units, " stretches of text") : str(c.units, " documents"); }

std::string quality_text(const DialCurve& c) {
  std::vector<std::string> head = {"block fraction", "total fraction", "loss", "over dial 1"};
  if (c.dense) head.push_back("over dense");
  if (!c.rivals.empty()) head.push_back("curve minus this");
  head.push_back("perplexity");
  return str("Loss in nats per token under the causal rule; ± is 95 % over ", units_text(c), ", differences are paired\n") + table(c, head, [&](const CurvePoint& p) {
           std::vector<std::string> row = {fixed(p.block_fraction, 4), fixed(p.total_fraction, 4), fixed(p.loss.value, 4) + (std::isfinite(p.loss.half) ? " ±" + fixed(p.loss.half, 4) : ""),
                                           over_full(c, p, p.over_full, 4)};
           if (c.dense) row.push_back(over_dense(c, p, p.over_dense, 4));
           if (!c.rivals.empty()) row.push_back(difference(p.curve_minus_this, 4));
           row.push_back(fixed(p.perplexity(), 3));
           return row;
         });
}

std::string accuracy_text(const DialCurve& c) {
  std::vector<std::string> head;
  for (const CurveTask& t : c.points[0].tasks) head.push_back(str(t.name, " (", t.items, ")"));
  head.insert(head.end(), {"mean", "points over dial 1"});
  if (c.dense) head.push_back("points over dense");
  return "\nAccuracy ± standard error; differences of the mean are paired over items, 95 %\n" + table(c, head, [&](const CurvePoint& p) {
           std::vector<std::string> row;
           for (const CurveTask& t : p.tasks) row.push_back(share(t));
           const CurveTask mean = p.mean();
           row.insert(row.end(), {share(mean), over_full(c, p, mean.over_full, 2, 100)});
           if (c.dense) row.push_back(over_dense(c, p, mean.over_dense, 2, 100));
           return row;
         });
}

std::string speed_text(const DialCurve& c) {
  std::string text = "\nTokens per second, medians in turns; allowed: what the FLOPs of a prompt or the bytes that decoding reads would make of it\n";
  std::vector<std::string> head = {"FLOPs saved", "tokens/s", "× dial 1", "allowed"};
  if (c.dense) head.insert(head.end(), {"× dense", "allowed"});
  for (size_t w = 0; w < c.points[0].speeds.size(); ++w)
    text += table(c, head, [&](const CurvePoint& p) {
      const CurveSpeed& s = p.speeds[w];
      std::vector<std::string> row = {percent(p.saved()), fixed(s.tokens_per_second, s.tokens_per_second < 100 ? 1 : 0), fixed(s.over_full, 2), fixed(s.full_allows, 2)};
      if (c.dense) row.insert(row.end(), {fixed(s.over_dense, 2), fixed(s.dense_allows, 2)});
      return row;
    }, "  " + c.points[0].speeds[w].words());
  return text;
}

std::string memory_text(const DialCurve& c) {
  const double whole = (c.dense ? *c.dense : c.points[0]).kv_bytes;
  return str("\nKeys and values (", c.kv_type, ") per token: slots that the cache gave out on this text, and what the dial's table expects\n") +
         table(c, {"bytes", c.dense ? "of dense" : "of dial 1", "expected"}, [&](const CurvePoint& p) {
           return std::vector<std::string>{human_bytes(p.kv_bytes), percent(p.kv_bytes / whole), human_bytes(p.kv_bytes_expected)};
         });
}

std::string measured_on(const DialCurve& c) {
  return str(printable(c.text, 200), ", ", grouped(c.tokens), " tokens in windows of at most ", c.context, "; ", printable(c.machine), ", weights ", printable(c.weights), ", ", printable(c.date));
}

}  // namespace

std::string curve_text(const DialCurve& c) {
  std::string text = str(printable(c.model), " on ", measured_on(c), "\n\n") + quality_text(c);
  if (!c.points[0].tasks.empty()) text += accuracy_text(c);
  if (!c.points[0].speeds.empty()) text += speed_text(c);
  return text + memory_text(c);
}

std::string chosen_text(const DialCurve& c, const CurvePoint& p, const std::string& bound, bool stored) {
  std::string text = str("Dial ", fixed(p.dial, 3), bound.empty() ? "" : str(" is the lowest measured one whose loss rises by at most ", bound), ": ", difference(c.dense ? p.over_dense : p.over_full, 4), " nats per token over ",
                         c.dense ? c.dense->name : "dial 1", ", ", percent(p.saved()), " of FLOPs saved");
  for (const CurveSpeed& s : p.speeds) text += str(", ", s.words(), " ", fixed(c.dense ? s.over_dense : s.over_full, 2), " ×");
  return text + (stored ? ". It is the model's default now." : ".");
}

std::string curve_summary(const DialCurve& c, bool current) {
  std::vector<std::string> head = {"  dial", "block fraction", "loss", "over dial 1"};
  const bool tasks = !c.points[0].tasks.empty();
  if (tasks) head.push_back("accuracy");
  for (const CurveSpeed& s : c.points[0].speeds) head.push_back(s.words());
  head.push_back("KV per token");
  std::vector<std::vector<std::string>> rows = {head};
  for (const CurvePoint& p : c.points) {
    rows.push_back({"  " + fixed(p.dial, 3), fixed(p.block_fraction, 3), fixed(p.loss.value, 4), over_full(c, p, p.over_full, 4)});
    if (tasks) rows.back().push_back(percent(p.mean().accuracy));
    for (const CurveSpeed& s : p.speeds) rows.back().push_back(fixed(s.tokens_per_second, s.tokens_per_second < 100 ? 1 : 0) + " (" + fixed(s.over_full, 2) + " ×)");
    rows.back().push_back(human_bytes(p.kv_bytes));
  }
  return str("\nCurve, measured on ", measured_on(c), "; speeds in tokens/s\n", current ? "" : "  (at other thresholds than the model has now: measure it again with fathom dial)\n") + text_table(rows);
}

}  // namespace fathom::cli
