#include "cli/task_text.h"

#include <algorithm>
#include <cmath>

#include "cli/output.h"
#include "core/human.h"

namespace fathom::cli {
namespace {

using study::Mean;
using study::TaskDifference;
using study::TaskResult;

std::string share(const Mean& m) { return percent(m.value, 2) + (std::isfinite(m.error) ? " ±" + fixed(100 * m.error, 2) : ""); }

std::string results_table(const TaskReport& report, size_t subject) {
  std::vector<std::vector<std::string>> rows = {{"", "items", "accuracy", "by length", "perplexity", "block fraction", "FLOPs saved", "items/s"}};
  for (const TaskResult& r : report.results[subject]) {
    const Mean p = r.continuations ? r.perplexity() : Mean{};
    rows.push_back({"  " + r.name, grouped(std::ssize(r.items)), share(r.accuracy()), r.continuations ? "–" : share(r.accuracy_by_length()),
                    r.continuations ? fixed(p.value, 3) + (std::isfinite(p.error) ? " ±" + fixed(p.error, 3) : "") : "–", fixed(r.block_fraction(), 4), percent(1 - r.total_fraction()),
                    r.read > 0 && r.seconds > 0 ? fixed(static_cast<double>(r.read) / r.seconds, 1) : "–"});
  }
  const std::string how = report.dense[subject] ? "dense" : str("causal rule, dial ", fixed(report.results[subject][0].dial, 3));
  return str(report.names[subject], " (", how, ")\n", text_table(rows), "\n");
}

std::vector<std::string> difference_row(const std::string& label, const TaskDifference& d) {
  const double half = d.value.half;
  return {label, (d.value.value < 0 ? "−" : "+") + fixed(100 * std::abs(d.value.value), 2) + (std::isfinite(half) ? " ±" + fixed(100 * half, 2) : ""), grouped(d.gained), grouped(d.lost)};
}

Json difference_json(const TaskDifference& d) {
  return {{"value", d.value.value}, {"ci95", std::isfinite(d.value.half) ? Json(d.value.half) : Json()}, {"right_only_in_model", d.gained}, {"right_only_in_other", d.lost}};
}

}  // namespace

std::string task_text(const TaskReport& report) {
  std::string text = "Log-likelihood tasks; ± is the standard error. By length: log-likelihood over the choice's characters\n\n";
  for (size_t s = 0; s < report.names.size(); ++s) text += results_table(report, s);
  if (report.names.size() < 2) return text;
  std::vector<std::vector<std::string>> rows = {{"", "points", "right here alone", "right there alone"}};
  for (size_t t = 0; t < report.results[0].size(); ++t) {
    const TaskResult &a = report.results[0][t], &b = report.results[1][t];
    rows.push_back(difference_row("  " + a.name, study::task_difference(a.right, b.right)));
    if (!a.continuations) rows.push_back(difference_row("  " + a.name + ", by length", study::task_difference(a.right_by_length, b.right_by_length)));
  }
  return text + str(report.names[0], " − ", report.names[1], ", paired, 95 % over items\n", text_table(rows));
}

Json task_json(const TaskReport& report, bool with_items) {
  Json j = {{"models", Json::array()}};
  for (size_t s = 0; s < report.names.size(); ++s) {
    Json tasks = Json::array();
    for (const TaskResult& r : report.results[s]) tasks.push_back(r.to_json(with_items));
    j["models"].push_back({{"name", report.names[s]}, {"dense", report.dense[s] == true}, {"tasks", tasks}});
  }
  if (report.names.size() < 2) return j;
  j["model_minus_other"] = Json::array();
  for (size_t t = 0; t < report.results[0].size(); ++t) {
    const TaskResult &a = report.results[0][t], &b = report.results[1][t];
    Json d = {{"task", a.name}, {"accuracy", difference_json(study::task_difference(a.right, b.right))}};
    if (!a.continuations) d["accuracy_by_length"] = difference_json(study::task_difference(a.right_by_length, b.right_by_length));
    j["model_minus_other"].push_back(std::move(d));
  }
  return j;
}

}  // namespace fathom::cli
