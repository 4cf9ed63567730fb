#include "cli/evaluation_text.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "cli/common.h"
#include "cli/output.h"
#include "core/human.h"

namespace fathom::cli {
namespace {

using study::Evaluation;
using study::Interval;

std::string with_interval(const Interval& i, int digits) {
  return fixed(i.value, digits) + (std::isfinite(i.half) ? " ±" + fixed(i.half, digits) : "");
}

std::string words(infer::Rule rule) {
  return rule == infer::Rule::topk ? "teacher's view (top-k, looks into the future)" : study::rule_words(rule);
}

Json interval_json(const Interval& i) {
  return {{"value", std::isfinite(i.value) ? Json(i.value) : Json()}, {"ci95", std::isfinite(i.half) ? Json(i.half) : Json()}, {"units", i.units}};
}

}  // namespace

std::string evaluation_text(const EvaluationReport& report) {
  const Evaluation& first = report.results[0];
  std::string text = str(report.text.name, ": ", grouped(first.tokens), " tokens predicted, ", grouped(first.bytes), " bytes, ", first.windows, " of ",
                         report.text.all_windows, " windows of at most ", first.context, " tokens, from ", report.text.documents.size(),
                         report.text.documents.size() == 1 ? " document" : " documents", "; intervals are 95 % over ",
                         study::units_text(first, study::loss_interval(first).units), "\n\n");
  std::vector<std::vector<std::string>> rows = {{""}};
  for (const std::string& name : report.names) rows[0].push_back(name);
  const auto row = [&](const std::string& label, const std::function<std::string(const Evaluation&)>& value) {
    rows.push_back({"  " + label});
    for (const Evaluation& e : report.results) rows.back().push_back(value(e));
  };
  row("rule", [&](const Evaluation& e) { return e.blocks.empty() ? "dense" : name_of(e.rule, infer::kRuleNames); });
  row("loss, nats per token", [](const Evaluation& e) { return with_interval(loss_interval(e), 4); });
  row("perplexity", [](const Evaluation& e) { return fixed(e.perplexity(), 3); });
  row("bits per byte", [](const Evaluation& e) { return with_interval(bits_interval(e), 4); });
  row("tokens guessed right", [](const Evaluation& e) { return percent(static_cast<double>(e.correct) / static_cast<double>(e.tokens)); });
  row("block fraction", [](const Evaluation& e) { return fixed(e.block_fraction(), 4); });
  row("total fraction", [](const Evaluation& e) { return fixed(e.total_fraction(), 4); });
  row("forward FLOPs per token", [](const Evaluation& e) { return human_count(e.spent.flops() / static_cast<double>(e.tokens + e.windows)); });
  row("tokens per second", [](const Evaluation& e) { return e.seconds > 0 ? grouped(static_cast<int64_t>(static_cast<double>(e.tokens) / e.seconds)) : "–"; });
  text += text_table(rows);
  if (!first.blocks.empty()) text += str("\n", report.names[0], ": ", words(first.rule), ", dial ", fixed(first.dial, 3), "\n");

  if (report.teacher) {
    const Interval d = loss_difference(first, *report.teacher);
    text += str("Teacher's view (top-k looks into the future; no measure of quality): loss ", fixed(report.teacher->loss(), 4),
                ", the causal rule loses ", with_interval(d, 4), " nats to it\n");
  }
  for (size_t i = 1; i < report.results.size(); ++i)
    text += str(report.names[0], " − ", report.names[i], ", paired: ", with_interval(loss_difference(first, report.results[i]), 4),
                " nats per token, ", with_interval(bits_difference(first, report.results[i]), 4), " bits per byte\n");
  if (!first.blocks.empty()) {
    const bool light = std::ranges::any_of(first.blocks, [](const study::BlockAgreement& b) { return b.unit.paths.light; });
    rows = {{"\n  routed block", "capacity", "realised"}};
    if (light) rows[0].push_back("light");
    if (report.teacher) rows[0].insert(rows[0].end(), {"agreement", "precision", "recall"});
    for (const study::BlockAgreement& b : first.blocks) {
      rows.push_back({"  " + b.unit.label(), percent(b.capacity), percent(b.realised)});
      if (light) rows.back().push_back(b.unit.paths.light ? percent(b.light) : "–");
      if (report.teacher) rows.back().insert(rows.back().end(), {percent(b.agreement()), percent(b.precision()), percent(b.recall())});
    }
    text += text_table(rows);
  }
  return text;
}

Json evaluation_json(const EvaluationReport& report) {
  Json j = {{"text", {{"name", report.text.name}, {"documents", report.text.documents.size()}, {"windows", report.text.windows.size()},
                      {"all_windows", report.text.all_windows}}},
            {"model", report.results[0].to_json()}};
  j["model"]["name"] = report.names[0];
  j["teacher"] = report.teacher ? report.teacher->to_json() : Json();
  if (report.teacher) j["teacher"]["note"] = "teacher's view: top-k looks into the future";
  j["twins"] = Json::array();
  for (size_t i = 1; i < report.results.size(); ++i) {
    Json twin = report.results[i].to_json();
    twin["name"] = report.names[i];
    twin["model_minus_twin"] = {{"loss", interval_json(loss_difference(report.results[0], report.results[i]))},
                                {"bits_per_byte", interval_json(bits_difference(report.results[0], report.results[i]))}};
    j["twins"].push_back(twin);
  }
  return j;
}

}  // namespace fathom::cli
