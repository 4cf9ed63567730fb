#include "cli/quantize_text.h"

#include <cmath>
#include <map>

#include "cli/output.h"
#include "core/human.h"
#include "formats/ggml_types.h"

namespace fathom::cli {
namespace {

using convert::TensorPlan;
using formats::ggml_type_name;
using formats::GgmlType;

constexpr size_t kNamesShown = 8;

// "Q4_1 (210), F32 (61)", the most frequent first.
std::string types_text(const std::vector<TensorPlan>& plan, GgmlType TensorPlan::* side) {
  std::map<std::string, int> count;
  for (const TensorPlan& p : plan) ++count[ggml_type_name(p.*side)];
  std::vector<std::pair<int, std::string>> order;
  for (const auto& [name, n] : count) order.emplace_back(-n, name);
  std::sort(order.begin(), order.end());
  std::string out;
  for (const auto& [n, name] : order) out += str(out.empty() ? "" : ", ", name, " (", -n, ")");
  return out;
}

std::string fallback_text(const std::vector<TensorPlan>& plan, const std::string& type) {
  std::map<GgmlType, std::vector<std::string>> names;
  for (const TensorPlan& p : plan)
    if (p.fallback) names[p.to].push_back(str(p.spec.name, " ", shape_text(p.spec.shape)));
  std::string out;
  for (const auto& [to, list] : names) {
    out += str("  ", list.size(), list.size() == 1 ? " tensor" : " tensors", " as ", ggml_type_name(to), ": rows are no whole blocks of ", type, "\n");
    for (size_t i = 0; i < list.size() && i < kNamesShown; ++i) out += "    " + list[i] + "\n";
    if (list.size() > kNamesShown) out += str("    and ", list.size() - kNamesShown, " more (--json lists them)\n");
  }
  return out;
}

std::string head_text(const QuantizeReport& report) {
  for (const TensorPlan& p : report.plan)
    if (p.head)
      return str("  the head", report.tied ? ", which is the embedding too," : "", " as ", ggml_type_name(p.to), ": its errors show in every logit (", p.spec.name, ")\n");
  return "";
}

std::string dial_text(const QuantizeReport& report) {
  std::vector<std::vector<std::string>> rows = {{"  dial", "block fraction before", "after", "loss before", "after", "share of tokens per routed block"}};
  for (size_t i = 0; i < report.after->points.size(); ++i) {
    const routing::DialPoint &a = report.before->points[i], &b = report.after->points[i];
    std::string shares;
    for (const double share : b.capacity) shares += (shares.empty() ? "" : "  ") + percent(share);
    rows.push_back({"  " + fixed(b.dial, 3) + (b.dial == report.after->default_dial ? " *" : ""), fixed(a.block_fraction, 4), fixed(b.block_fraction, 4), fixed(a.loss, 4),
                    fixed(b.loss, 4), shares});
  }
  return str("\nDial, calibrated again on ", printable(report.after->text, 200), ": ", grouped(report.after->tokens), " tokens (before: ",
             report.before->text.empty() ? "text" : printable(report.before->text, 200), ", ", grouped(report.before->tokens), " tokens)\n") +
         text_table(rows);
}

std::string quality_text(const QuantizeReport& report) {
  const study::Divergence& q = *report.quality;
  const study::Interval kl = q.kl_interval();
  std::string text = str("\nQuality on ", report.text, ": ", grouped(q.tokens), " tokens predicted in ", q.windows, q.windows == 1 ? " window" : " windows", " of at most ", q.context,
                         " tokens, under the causal rule\n");
  std::vector<std::vector<std::string>> rows = {{"", "before", "after"}};
  rows.push_back({"  perplexity", fixed(q.original.perplexity(q.tokens), 4), fixed(q.result.perplexity(q.tokens), 4)});
  if (report.before) rows.push_back({"  block fraction", fixed(q.original.block_fraction(), 4), fixed(q.result.block_fraction(), 4)});
  text += text_table(rows);
  return text + str("  KL divergence from the original ", fixed(q.mean_kl(), 6), std::isfinite(kl.half) ? " ±" + fixed(kl.half, 6) : "",
                    " nats per token; the same most likely token at ", percent(q.agreement(), 2), "\n");
}

}  // namespace

std::string requantized_words(const std::vector<TensorPlan>& plan) {
  std::map<std::string, int> count;
  for (const TensorPlan& p : plan)
    if (!p.carried && formats::is_quantized(p.from) && formats::is_quantized(p.to)) ++count[str(ggml_type_name(p.from), " to ", ggml_type_name(p.to))];
  std::string out;
  for (const auto& [which, n] : count) out += str(out.empty() ? "" : ", ", n, n == 1 ? " tensor from " : " tensors from ", which);
  return out;
}

std::string quantize_text(const QuantizeReport& report) {
  const convert::Totals t = convert::totals(report.plan);
  std::string text = str(report.model, " → ", report.out, " (", report.type, ")\n\n");
  text += text_table({{"", "before", "after"},
                      {"  tensors", types_text(report.plan, &TensorPlan::from), types_text(report.plan, &TensorPlan::to)},
                      {"  bytes of tensors", grouped(t.before), grouped(t.after)},
                      {"  bits per weight", fixed(t.bits_before(), 3), fixed(t.bits_after(), 3)}});
  text += head_text(report) + fallback_text(report.plan, report.type);
  if (report.after) text += dial_text(report);
  if (report.quality) text += quality_text(report);
  return text;
}

Json quantize_json(const QuantizeReport& report) {
  const convert::Totals t = convert::totals(report.plan);
  Json j = {{"model", report.model}, {"out", report.out}, {"type", report.type}, {"weights", t.elements},
            {"bytes", {{"before", t.before}, {"after", t.after}}}, {"bits_per_weight", {{"before", t.bits_before()}, {"after", t.bits_after()}}}};
  j["tensors"] = Json::array();
  for (const TensorPlan& p : report.plan)
    j["tensors"].push_back({{"name", p.spec.name}, {"shape", p.spec.shape}, {"from", ggml_type_name(p.from)}, {"to", ggml_type_name(p.to)}, {"carried", p.carried},
                            {"head", p.head}, {"fallback", p.fallback}});
  j["dial"] = report.after ? Json{{"before", report.before->to_json()}, {"after", report.after->to_json()}} : Json();
  j["quality"] = report.quality ? report.quality->to_json() : Json();
  if (report.quality) j["quality"]["text"] = report.text;
  return j;
}

}  // namespace fathom::cli
