#include "cli/convert_text.h"

#include <cmath>

#include "cli/output.h"
#include "core/human.h"
#include "model/cost.h"

namespace fathom::cli {
namespace {

using model::ModelConfig;

struct Costs {  // at the options' context, of the source's blocks with every token full
  double least = 0, at_target = 0, most = 0;  // block fraction when nobody, the chosen share or everybody runs in full
  int64_t added = 0, removed = 0;             // parameters
};

// Of the source's blocks; those that were dropped cost nothing.
double fraction_of(const ModelConfig& c, const ModelConfig& before, int64_t context, const std::vector<double>& capacity) {
  return static_cast<double>(c.num_hidden_layers) / static_cast<double>(before.num_hidden_layers) * model::expected_block_fraction(c, context, capacity);
}

Costs costs(const ConvertReport& r) {
  const ModelConfig& c = r.surgery.config;
  const auto fraction = [&](const std::vector<double>& capacity) { return fraction_of(c, r.before, r.options.context, capacity); };
  const model::Parameters p = model::parameters(c), before = model::parameters(r.before);
  Costs out;
  out.least = fraction(std::vector<double>(c.routing.cuts(), 0.0));
  out.at_target = fraction(c.routing.capacities());
  out.most = fraction(std::vector<double>(c.routing.cuts(), 1.0));
  out.added = p.light + p.routers + p.predictors;
  out.removed = before.total() - (p.total() - out.added);
  return out;
}

}  // namespace

double least_block_fraction(const ModelConfig& surgery, const ModelConfig& before, int64_t context) { return fraction_of(surgery, before, context, std::vector<double>(surgery.routing.cuts(), 0.0)); }

std::string convert_plan_text(const ConvertReport& r) {
  const ModelConfig& c = r.surgery.config;
  const Costs k = costs(r);
  const auto blocks_with_keys = [](const ModelConfig& of) {
    int64_t n = 0;
    for (int64_t b = 0; b < of.num_hidden_layers; ++b) n += of.has_part(b, routing::Part::attention);
    return n;
  };
  const auto keys = [&](const ModelConfig& of) { return static_cast<double>(blocks_with_keys(of) * model::kv_bytes_per_token_and_block(of, KvType::f16)); };
  const bool drops = c.routing.decides() && c.routing.kv == routing::KvPolicy::drop;
  std::vector<std::vector<std::string>> rows = {
      {"  blocks", str(c.num_hidden_layers, r.surgery.block_of.size() < static_cast<size_t>(r.before.num_hidden_layers) ? str(" of ", r.before.num_hidden_layers) : "", ", ", c.routing.routed_blocks() - c.routing.static_blocks(),
                       " routed, ", c.routing.static_blocks(), " static")},
      {"  parameters", str(grouped(k.added), " added", k.removed > 0 ? str(", ", grouped(k.removed), " gone") : "")},
      {"  weights", str(human_bytes(r.bytes_before), " → ", human_bytes(r.bytes_after))},
      {"  block fraction", str("at most ", percent(k.most), ", at least ", percent(k.least), r.to_fit && c.routing.decides() ? str(", routers for ", percent(r.options.target)) : "", " (context ", r.options.context, ")")},
      {"  keys and values", str(human_bytes(keys(r.before)), " a token as f16 → ", drops ? "at most " : "", human_bytes(keys(c)), drops ? ", less by what skips" : "")},
  };
  return r.source + (r.out.empty() ? ": what would be made" : " → " + r.out) + "\n\n" + text_table(rows, 2);
}

std::string convert_result_text(const ConvertReport& r) {
  const ModelConfig& c = r.surgery.config;
  std::string text;
  std::vector<std::vector<std::string>> rows;
  if (r.fitted) {
    text += str("\nFitted on ", r.text, ": ", c.routing.routed_blocks() - c.routing.static_blocks(), " routed blocks.\n") + "Units: share of tokens in full, part of a delta that the light path does not give, R² of the router, nats per token if no token ran in full\n";
    rows = {{"  block", "full", "unexplained", "router R²", "nats"}};
    for (size_t u = 0; u < c.routing.units.size(); ++u) {
      const routing::RoutedUnit& unit = c.routing.units[u];
      const convert::FittedUnit& f = r.surgery.fitted[u];
      const bool light = unit.paths.light, decides = !unit.is_static();
      rows.push_back({"  " + unit.label(), decides ? percent(unit.capacity) : "static", light ? percent(f.light.unexplained) : "—", decides ? fixed(f.router.explained, 2) : "—",
                      std::isnan(f.loss_increase) ? "—" : fixed(f.loss_increase, 3)});
    }
    text += text_table(rows);
  }
  if (!r.fitted && !r.dial && c.routing.decides())  // an artifact brings its dial
    text += str("\nNot fitted, for there was no --data: routers are open, and every token runs in full until fathom tune has taught them", r.options.leave_needed ? "; --blocks auto is inner then" : "", ".\n");
  if (r.dial) {
    text += str("\nDial, calibrated on ", r.dial->text, "; losses on that text, in nats per token\n");
    rows = {{"  dial", "block fraction", "loss", "over dial 1"}};
    const double dense = r.dial->points.back().loss;
    for (const routing::DialPoint& p : r.dial->points)
      rows.push_back({"  " + fixed(p.dial, 3) + (p.dial == r.dial->default_dial ? " (default)" : ""), percent(p.block_fraction), fixed(p.loss, 4), fixed(p.loss - dense, 4)});
    text += text_table(rows);
  }
  return text;
}

Json convert_json(const ConvertReport& r) {
  const Costs k = costs(r);
  Json j = {{"source", r.source}, {"out", r.out}, {"config", r.surgery.config.to_json()}, {"blocks", r.surgery.block_of},
            {"parameters", {{"added", k.added}, {"removed", k.removed}}},
            {"block_fraction", {{"least", k.least}, {"target", k.at_target}, {"most", k.most}, {"context", r.options.context}}}};
  if (r.fitted) {
    j["text"] = r.text;
    for (size_t u = 0; u < r.surgery.fitted.size(); ++u) {
      const convert::FittedUnit& f = r.surgery.fitted[u];
      const routing::RoutedUnit& unit = r.surgery.config.routing.units[u];
      Json one = {{"block", unit.block}, {"part", name_of(unit.part, routing::kPartNames)}};
      if (unit.paths.light) one["unexplained"] = f.light.unexplained;
      if (!unit.is_static()) one["capacity"] = unit.capacity, one["router_r2"] = f.router.explained, one["miss"] = f.miss;
      if (!std::isnan(f.loss_increase)) one["loss_increase"] = f.loss_increase;
      j["units"].push_back(std::move(one));
    }
  }
  if (r.dial) j["dial"] = r.dial->to_json();
  return j;
}

}  // namespace fathom::cli
