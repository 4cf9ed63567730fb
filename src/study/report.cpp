#include "study/report.h"

#include <algorithm>
#include <functional>

#include "core/human.h"
#include "formats/html.h"
#include "formats/svg.h"
#include "study/depthmap.h"
#include "study/page.h"

namespace fathom::study {
namespace {

using namespace formats;

std::string with_interval(const Interval& i, int digits) {
  return fixed(i.value, digits) + (std::isfinite(i.half) ? " ± " + fixed(i.half, digits) : "");
}

std::string signed_interval(const Interval& i, int digits) {
  return (i.value > 0 ? "+" : i.value < 0 ? "−" : "") + fixed(std::abs(i.value), digits) + (std::isfinite(i.half) ? " ± " + fixed(i.half, digits) : "");
}

std::string count(double n) { return std::isfinite(n) ? human_count(n) : "–"; }

// Of the others the one with the least loss, as an index into models; 0 when there is none.
size_t best_other(const Report& r) {
  size_t best = 0;
  for (size_t i = 1; i < r.models.size(); ++i)
    if (best == 0 || r.models[i].quality.loss() < r.models[best].quality.loss()) best = i;
  return best;
}

bool dense(const ReportModel& m) { return m.quality.blocks.empty(); }
bool dense_twins(const Report& r) { return r.models.size() > 1 && std::all_of(r.models.begin() + 1, r.models.end(), dense); }

// "its dense twin, NAME", "the better twin, NAME", "the best of the other models, NAME".
std::string best_words(const Report& r, size_t best) {
  const char* const words[2][3] = {{"the other model", "the better of the other models", "the best of the other models"},
                                   {"its dense twin", "the better twin", "the best twin"}};
  return str(words[dense_twins(r)][std::min<size_t>(r.models.size() - 2, 2)], ", ", r.models[best].run.name);
}

// The rule behind the figures of quality, for all models together.
std::string rules_words(const Report& r) {
  const auto has = [&](infer::Rule rule) {
    return std::any_of(r.models.begin(), r.models.end(), [&](const ReportModel& m) { return !dense(m) && m.quality.rule == rule; });
  };
  if (!has(infer::Rule::random)) return rule_words(infer::Rule::causal);
  return has(infer::Rule::causal) ? "model's own rule (the causal rule, or the random control)" : rule_words(infer::Rule::random);
}

std::string text_words(const Report& r) {
  return r.held_out ? "on text that no model was trained on: the validation split of " + r.text + " (thresholds were calibrated on a part of it)"
                    : "on " + r.text + "; whether a model was trained on it is not known";
}

// Budgets end on a whole step; twins at equal FLOPs differ by less.
constexpr double kEqualShare = 0.02;
bool unequal(double a, double b) { return std::isfinite(a) && std::isfinite(b) && std::abs(a - b) > kEqualShare * b; }

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& p : parts) out += (out.empty() ? "" : ", ") + p;
  return out;
}

// A power of 1000 in which the largest value reads well.
struct Unit {
  double factor;
  const char* name;
};
Unit flops_unit(const Report& r) {
  double most = 0;
  for (const ReportModel& m : r.models)
    for (const Curve* c : {&m.run.held_out, &m.run.train})
      for (const double f : c->flops)
        if (std::isfinite(f)) most = std::max(most, f);
  if (most >= 1e18) return {1e18, "EFLOP"};
  if (most >= 1e15) return {1e15, "PFLOP"};
  if (most >= 1e12) return {1e12, "TFLOP"};
  return {1e9, "GFLOP"};
}

// Points enough for a line of held-out losses; else the smoothed training loss stands for it.
constexpr size_t kEnoughPoints = 3;
bool held_out_curves(const Report& r) {
  return std::all_of(r.models.begin(), r.models.end(), [](const ReportModel& m) { return m.run.held_out.loss.size() >= kEnoughPoints; });
}

std::string curves(const Report& r, bool by_seconds) {
  const Unit unit = by_seconds ? Unit{1, ""} : flops_unit(r);
  Chart chart;
  chart.width = 460, chart.height = 320;
  const bool held_out = held_out_curves(r);
  chart.title = str(held_out ? "Held-out loss" : "Training loss", by_seconds ? " against seconds" : " against training FLOPs");
  chart.x.label = by_seconds ? "training time" : str("training ", unit.name);
  if (by_seconds) chart.x.format = TickFormat::seconds;
  chart.x.zero = true;
  chart.y.label = "nats per token";
  double least = INFINITY, most = 0;
  for (size_t i = 0; i < r.models.size(); ++i) {
    const RunRecord& run = r.models[i].run;
    const Curve& c = held_out ? run.held_out : run.train;
    Series s;
    s.name = run.name;
    s.markers = held_out, s.color = static_cast<int>(i);
    for (size_t k = 0; k < c.loss.size(); ++k) s.x.push_back((by_seconds ? c.seconds[k] : c.flops[k]) / unit.factor);
    s.y = c.loss;
    for (const double y : s.y) least = std::min(least, y), most = std::max(most, y);
    chart.series.push_back(std::move(s));
  }
  // The first steps fall from ln V and would press everything else into a line at the bottom.
  if (std::isfinite(least) && most > 2 * least) chart.y.low = std::floor(least * 4) / 4, chart.y.high = least * 2;
  return line_chart(chart);
}

bool has_curves(const Report& r) {
  return std::any_of(r.models.begin(), r.models.end(), [](const ReportModel& m) { return !m.run.held_out.empty() || !m.run.train.empty(); });
}

// Per routed block what was asked for and what ran, and with a teacher how the rule agrees with it.
std::string blocks_table(const Evaluation& e, bool teacher) {
  const bool light = std::any_of(e.blocks.begin(), e.blocks.end(), [](const BlockAgreement& b) { return b.unit.paths.light; });
  std::vector<std::string> head = {"routed block", "capacity", "realised"};
  if (light) head.push_back("light");
  if (teacher) head.insert(head.end(), {"agreement with top-k", "precision", "recall"});
  std::vector<std::vector<std::string>> rows;
  for (const BlockAgreement& b : e.blocks) {
    rows.push_back({b.unit.name(), percent(b.capacity), percent(b.realised)});
    if (light) rows.back().push_back(b.unit.paths.light ? percent(b.light) : "–");
    if (teacher) rows.back().insert(rows.back().end(), {percent(b.agreement()), percent(b.precision()), percent(b.recall())});
  }
  return html_table(head, rows);
}

std::string samples(const Report& r) {
  std::string out = depth_legend(r.depths.least, r.depths.most);
  for (const Sample& s : r.samples) out += "<div class=\"sample\">" + token_text(s.tokens, r.depths.least, r.depths.most, s.given) + "</div>";
  return out + "<p>Underlined: the prompt. The colour of a token is the number of blocks that it ran in full when the model read it.</p>";
}

std::string decode_ratio(const ReportModel& a, const ReportModel& b) { return fixed(a.speed.tokens_per_second / b.speed.tokens_per_second, 2); }

std::vector<HtmlTile> tiles(const Report& r) {
  const ReportModel& m = r.models[0];
  const size_t twin = best_other(r);
  std::vector<HtmlTile> out = {{fixed(m.quality.loss(), 3), "nats per token", str(r.held_out ? "held out, " : "", "under the ", rule_words(m.quality.rule))}};
  if (twin > 0) {
    const Interval d = loss_difference(m.quality, r.models[twin].quality);
    out.push_back({signed_interval({d.value, NAN, 0}, 3), "nats against " + r.models[twin].run.name,
                   (std::isfinite(d.half) ? "± " + fixed(d.half, 3) + ", paired; " : std::string()) + "below 0 is better"});
  }
  for (size_t i = 1; i < r.models.size(); ++i) out.push_back({decode_ratio(m, r.models[i]) + " ×", "decode speed", str("of ", r.models[i].run.name, ", ", r.models[i].role)});
  out.push_back({percent(m.quality.block_fraction()), "block fraction", "FLOPs in the blocks, of every token in full"});
  out.push_back({percent(m.quality.total_fraction()), "total fraction", "with embedding and head"});
  out.push_back({percent(m.kv_bytes / m.kv_bytes_dense), "KV cache", "of what every token in every block would take"});
  return out;
}

}  // namespace

std::vector<std::vector<std::string>> comparison(const Report& r) {
  std::vector<std::vector<std::string>> rows = {{""}};
  for (const ReportModel& m : r.models) rows[0].push_back(m.run.name);
  const auto row = [&](const std::string& label, const std::function<std::string(const ReportModel&)>& value) {
    rows.push_back({label});
    for (const ReportModel& m : r.models) rows.back().push_back(value(m));
  };
  row("what it is", [](const ReportModel& m) { return m.role; });
  row("blocks × width", [](const ReportModel& m) { return str(m.blocks, " × ", m.width); });
  row("parameters", [](const ReportModel& m) { return count(static_cast<double>(m.parameters)); });
  row("training precision", [](const ReportModel& m) { return m.run.precision.empty() ? "–" : m.run.precision; });
  row("training FLOPs", [](const ReportModel& m) { return count(m.run.flops); });
  row("training tokens", [](const ReportModel& m) { return count(m.run.tokens); });
  row("training time", [](const ReportModel& m) { return std::isfinite(m.run.seconds) ? human_duration(m.run.seconds) : "–"; });
  const std::string rule = rules_words(r);
  row("loss, " + rule.substr(0, rule.find(" (")) + " (nats/token)", [](const ReportModel& m) { return with_interval(loss_interval(m.quality), 4); });
  row("loss, top-k (teacher's view)", [](const ReportModel& m) { return m.teacher ? fixed(m.teacher->loss(), 4) : std::string("–"); });
  row("bits per byte", [](const ReportModel& m) { return with_interval(bits_interval(m.quality), 4); });
  row("loss of " + r.models[0].run.name + " minus this, paired", [&](const ReportModel& m) {
    return &m == &r.models[0] ? std::string("–") : signed_interval(loss_difference(r.models[0].quality, m.quality), 4);
  });
  row("forward FLOPs per token", [](const ReportModel& m) { return count(m.quality.spent.flops() / static_cast<double>(m.quality.tokens + m.quality.windows)); });
  row("block fraction", [](const ReportModel& m) { return fixed(m.quality.block_fraction(), 3); });
  row("total fraction", [](const ReportModel& m) { return fixed(m.quality.total_fraction(), 3); });
  row("decode tokens/s", [](const ReportModel& m) { return fixed(m.speed.tokens_per_second, 0); });
  row("decode speed of " + r.models[0].run.name + " over this", [&](const ReportModel& m) { return &m == &r.models[0] ? std::string("–") : decode_ratio(r.models[0], m); });
  row("bytes moved per decoded token", [](const ReportModel& m) { return human_bytes(m.decode_bytes); });
  row("KV bytes per token", [](const ReportModel& m) { return human_bytes(m.kv_bytes); });
  return rows;
}

std::string verdict(const Report& r) {
  const size_t best = best_other(r);
  if (best == 0) return "";
  const Evaluation &mod = r.models[0].quality, &other = r.models[best].quality;
  const Interval d = loss_difference(mod, other);
  const std::string share = percent(std::abs(d.value) / other.loss()), name = best_words(r, best);
  const std::string figures = str(" (", signed_interval(d, 4), " nats per token, paired over ", units_text(mod, d.units), ", ", human_count(static_cast<double>(mod.tokens)), " tokens)");
  if (!std::isfinite(d.half)) return str("The loss is ", share, d.value < 0 ? " below" : " above", " that of ", name, figures, "; no interval.");
  if (std::abs(d.value) <= d.half) return str("No clear difference from ", name, figures, ".");
  return str("The loss is ", share, d.value < 0 ? " below" : " above", " that of ", name, figures, ".");
}

namespace {

// One sentence for each thing that the trainer warned of, with how often and how late: what was over before the end may not matter.
void add_warnings(const RunRecord& run, std::vector<std::string>& out) {
  const auto kind = [](const RunWarning& w) { return w.text.substr(0, w.text.find('(')); };  // figures in brackets differ from time to time
  std::vector<std::pair<const RunWarning*, int64_t>> latest;
  for (const RunWarning& w : run.warnings) {
    const auto same = std::find_if(latest.begin(), latest.end(), [&](const auto& l) { return kind(*l.first) == kind(w); });
    if (same == latest.end()) latest.emplace_back(&w, 1);
    else same->first = &w, ++same->second;
  }
  for (const auto& [w, times] : latest) {
    std::string sentence = str("While ", run.name, " was trained: ", w->text);
    if (times > 1) sentence += str("; said ", times, " times");
    if (std::isfinite(w->step)) {
      sentence += str(times > 1 ? ", last" : ";", " after step ", static_cast<int64_t>(w->step));
      if (std::isfinite(run.steps)) sentence += str(" of ", static_cast<int64_t>(run.steps));
    }
    out.push_back(sentence + ".");
  }
}

}  // namespace

std::vector<std::string> cautions(const Report& r) {
  std::vector<std::string> out, flops, unknown, precisions;
  const RunRecord& first = r.models[0].run;
  bool mixed = false;
  for (const ReportModel& m : r.models) {
    if (unequal(m.run.flops, first.flops))
      flops.push_back(str(m.run.name, " ", count(m.run.flops), " (", signed_interval({100 * (m.run.flops / first.flops - 1), NAN, 0}, 1), " %)"));
    if (!std::isfinite(m.run.flops)) unknown.push_back(m.run.name);
    precisions.push_back(m.run.name + " " + (m.run.precision.empty() ? "unknown" : m.run.precision));
    mixed = mixed || m.run.precision != first.precision;
  }
  if (!flops.empty()) out.push_back(str("Not at equal training FLOPs: ", joined(flops), " against ", first.name, " ", count(first.flops), "."));
  if (!unknown.empty() && r.models.size() > 1) out.push_back(str("Training FLOPs unknown, so perhaps not equal: ", joined(unknown), "."));
  if (mixed) out.push_back(str("Not trained in one precision: ", joined(precisions), "."));
  for (const ReportModel& m : r.models) add_warnings(m.run, out);
  return out;
}

std::string role_of(const model::ModelConfig& first, const RunRecord& first_run, const model::ModelConfig& c, const RunRecord& run) {
  const routing::RoutingConfig& routing = c.routing;
  std::vector<std::string> words = {routing.dense()                                              ? "dense"
                                    : routing.random()                                           ? "random routing (control)"
                                    : routing.selection == routing::Selection::threshold ? "Mixture of Depths, token choice"
                                                                                                 : "Mixture of Depths"};
  if (&run == &first_run) return words[0];
  const auto differs = [&](int64_t a, int64_t b, const char* less, const char* more) {
    if (a != b) words.push_back(a < b ? less : more);
  };
  differs(c.num_hidden_layers, first.num_hidden_layers, "fewer blocks", "more blocks");
  differs(c.hidden_size, first.hidden_size, "narrower", "wider");
  differs(c.intermediate_size, first.intermediate_size, "narrower feed-forward", "wider feed-forward");
  if (words.size() == 1 && c.num_attention_heads == first.num_attention_heads && c.num_key_value_heads == first.num_key_value_heads &&
      c.head_dim == first.head_dim)
    words.push_back("same shape");
  if (std::abs(run.tokens / first_run.tokens - 1) > 0.1) words.push_back(run.tokens < first_run.tokens ? "fewer tokens" : "more tokens");
  return joined(words);
}

Json report_json(const Report& r) {
  const auto number = [](double x) { return std::isfinite(x) ? Json(x) : Json(); };
  Json j = {{"text", r.text}, {"machine", r.machine}, {"date", r.date}, {"held_out", r.held_out}, {"verdict", verdict(r)}, {"cautions", cautions(r)}, {"depth", r.depths.to_json()}, {"models", Json::array()}};
  for (const ReportModel& m : r.models) {
    Json one = {{"name", m.run.name}, {"role", m.role}, {"path", m.run.path}, {"parameters", m.parameters}, {"precision", m.run.precision.empty() ? Json() : Json(m.run.precision)}, {"train_flops", number(m.run.flops)},
                {"train_tokens", number(m.run.tokens)}, {"train_seconds", number(m.run.seconds)}, {"quality", m.quality.to_json()},
                {"teacher", m.teacher ? m.teacher->to_json() : Json()}, {"decode_tokens_per_second", number(m.speed.tokens_per_second)},
                {"decode_bytes_per_token", number(m.decode_bytes)}, {"kv_bytes_per_token", number(m.kv_bytes)}};
    if (&m != &r.models[0]) {
      const Interval d = loss_difference(r.models[0].quality, m.quality);
      one["first_minus_this"] = {{"loss", number(d.value)}, {"ci95", number(d.half)}, {"units", d.units}};
    }
    j["models"].push_back(one);
  }
  return j;
}

std::string report_page(const Report& r) {
  const ReportModel& mod = r.models[0];
  std::vector<std::vector<std::string>> rows = comparison(r);
  const std::vector<std::string> head = rows.front();
  rows.erase(rows.begin());
  HtmlPage page;
  page.title = "Fathom: " + mod.run.name + (dense_twins(r) ? " beside its dense twins" : r.models.size() > 1 ? " beside other models" : "");
  page.lead = "<p>" + html_escape(str(verdict(r), " Every figure of quality is under the ", rules_words(r), ", ", text_words(r), ".")) + "</p>";
  for (const std::string& caution : cautions(r)) page.lead += "<p><strong>" + html_escape(caution) + "</strong></p>";
  page.body = html_tiles(tiles(r));
  page.body += html_section("comparison", "The comparison", html_table(head, rows) +
                            "<p>Intervals are 95 % over " + units_text(mod.quality, loss_interval(mod.quality).units) + ". Top-k looks into the future: its loss is the teacher's view, no measure of quality.</p>");
  if (has_curves(r))
    page.body += html_section("training", "Training", "<div class=\"pair\">" + html_figure(curves(r, false), (held_out_curves(r) ? "Loss on held-out text under the " + rules_words(r) : std::string("Loss of the training batches (smoothed; routed blocks select as training does)")) +
                                                                        ", against training FLOPs as the cost model counts them.") +
                              html_figure(curves(r, true), "The same against seconds on this machine.") + "</div>");
  if (!r.samples.empty()) page.body += html_section("samples", "Text, coloured by depth", samples(r));
  if (!dense(mod) && !mod.teacher)
    page.body += html_section("rule", "Routed blocks", "<p>Realised: the share of tokens that ran the block.</p>" + blocks_table(mod.quality, false));
  if (mod.teacher) {
    const auto decided = std::find_if(mod.quality.blocks.begin(), mod.quality.blocks.end(), [](const BlockAgreement& b) { return !b.unit.is_static(); });
    const double capacity = decided->capacity;
    page.body += html_section("rule", "The causal rule beside top-k",
                              "<p>Realised: the share of tokens that ran the block under the causal rule. Agreement, precision and recall compare its choice with top-k's on the same "
                              "states; at capacity " + percent(capacity) + " a rule that always skips agrees to " + percent(1 - capacity) + ", so precision and recall stand beside it.</p>" + blocks_table(mod.quality, true));
  }
  page.body += depth_sections(r.depths);
  page.style = depth_style() + ".sample{margin:0 0 1rem;padding:.6rem .8rem;border:1px solid var(--skip);border-radius:6px}";
  page.script = depth_script();
  page.footer = "<p>" + html_escape(str("Evaluated on ", r.text, ": ", human_count(static_cast<double>(mod.quality.tokens)), " tokens in windows of ", mod.quality.context, ". ", r.machine,
                                        ", ", r.date, ". Decode: one text, ", mod.speed.new_tokens, " new tokens, median of rounds in turns. Made by: ")) +
                "<code>" + html_escape(r.command) + "</code></p>";
  return html_page(page);
}

}  // namespace fathom::study
