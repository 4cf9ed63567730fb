// What items' results come to.
#include <algorithm>
#include <cmath>
#include <limits>

#include "study/statistics.h"
#include "study/task_eval.h"

namespace fathom::study {
namespace {

Mean mean_of(const std::vector<double>& values) {
  const double n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double v : values) sum += v;
  const double mean = sum / n;
  for (const double v : values) squares += (v - mean) * (v - mean);
  return {mean, values.size() > 1 ? std::sqrt(squares / (n - 1) / n) : std::nan("")};
}

Json mean_json(const Mean& m) { return {{"value", m.value}, {"standard_error", std::isfinite(m.error) ? Json(m.error) : Json()}}; }

double characters(const std::string& text) {  // code points
  return static_cast<double>(std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

Json ItemResult::to_json() const {
  return {{"log_likelihood", log_likelihood}, {"greedy", greedy}, {"cut", cut}, {"rows", rows}, {"blocks", blocks}, {"total", total},
          {"dense_blocks", dense_blocks}, {"dense_total", dense_total}};
}

ItemResult ItemResult::from_json(const Json& json, const std::string& where, int64_t choices) {
  const Fields f(json, where);
  ItemResult r;
  r.log_likelihood = f.numbers("log_likelihood", -std::numeric_limits<double>::max(), 1);  // rounding may pass 0
  if (std::ssize(r.log_likelihood) != choices) f.wrong("log_likelihood", str(r.log_likelihood.size(), " numbers"), str(choices, ", one for each choice"));
  r.greedy = f.boolean("greedy"), r.cut = f.boolean("cut");
  for (const auto& [key, to] : {std::pair{"rows", &r.rows}, {"blocks", &r.blocks}, {"total", &r.total}, {"dense_blocks", &r.dense_blocks}, {"dense_total", &r.dense_total}})
    *to = f.integer(key, 0, INT64_MAX);
  return r;
}

bool answered(const Task& task, size_t item, const ItemResult& result, bool by_length) {
  if (task.continuations) return result.greedy;
  const TaskItem& asked = task.items[item];
  std::vector<double> scores = result.log_likelihood;
  for (size_t c = 0; by_length && c < scores.size(); ++c) scores[c] /= characters(asked.choices[c]);
  return std::ranges::max_element(scores) - scores.begin() == asked.answer;
}

Mean TaskResult::accuracy() const { return mean_of({right.begin(), right.end()}); }
Mean TaskResult::accuracy_by_length() const { return mean_of({right_by_length.begin(), right_by_length.end()}); }

Mean TaskResult::perplexity() const {
  std::vector<double> values;
  for (const ItemResult& r : items) values.push_back(r.log_likelihood[0]);
  const Mean m = mean_of(values);
  return {std::exp(-m.value), std::exp(-m.value) * m.error};
}

double TaskResult::block_fraction() const {
  double spent = 0, dense = 0;
  for (const ItemResult& r : items) spent += static_cast<double>(r.blocks), dense += static_cast<double>(r.dense_blocks);
  return spent / dense;
}

double TaskResult::total_fraction() const {
  double spent = 0, dense = 0;
  for (const ItemResult& r : items) spent += static_cast<double>(r.total), dense += static_cast<double>(r.dense_total);
  return spent / dense;
}

Json TaskResult::to_json(bool with_items) const {
  double macs = 0;
  for (const ItemResult& r : items) macs += static_cast<double>(r.total);
  Json j = {{"task", name}, {"file", file}, {"hash", hash}, {"items", items.size()}, {"accuracy", mean_json(accuracy())}, {"dial", dial}, {"block_fraction", block_fraction()},
            {"total_fraction", total_fraction()}, {"flops", 2 * macs}, {"tokens_read", rows}, {"cut_items", cut}, {"items_read", read}, {"seconds", seconds}};
  if (continuations) j["perplexity"] = mean_json(perplexity());
  else j["accuracy_by_length"] = mean_json(accuracy_by_length());
  if (!with_items) return j;
  j["results"] = Json::array();
  for (size_t i = 0; i < items.size(); ++i) {
    Json result = {{"log_likelihood", items[i].log_likelihood}, {"right", right[i] == true}};
    if (!continuations) result["right_by_length"] = right_by_length[i] == true;
    j["results"].push_back(std::move(result));
  }
  return j;
}

TaskDifference task_difference(const std::vector<bool>& a, const std::vector<bool>& b) {
  FATHOM_ASSERT(a.size() == b.size() && !a.empty(), "other items");
  TaskDifference d;
  std::vector<double> differences;
  for (size_t i = 0; i < a.size(); ++i) {
    differences.push_back(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    d.gained += a[i] && !b[i], d.lost += b[i] && !a[i];
  }
  d.value = mean_interval(differences);
  return d;
}

}  // namespace fathom::study
