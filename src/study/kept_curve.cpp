#include "study/kept_curve.h"

#include <array>

#include "core/file.h"
#include "core/limits.h"

namespace fathom::study {
namespace {

constexpr std::array kCosts = {&model::BlockCost::attention_linear, &model::BlockCost::attention_scores, &model::BlockCost::mlp, &model::BlockCost::router, &model::BlockCost::predictor, &model::BlockCost::light};

Json cost_json(const model::ForwardCost& cost) {
  Json blocks = Json::array();
  for (const model::BlockCost& b : cost.blocks) {
    Json row = Json::array();
    for (const auto field : kCosts) row.push_back(b.*field);
    blocks.push_back(std::move(row));
  }
  return {{"blocks", blocks}, {"head", cost.head}};
}

model::ForwardCost cost_of(const Json& json) {
  model::ForwardCost out;
  out.head = json.at("head").get<int64_t>();
  for (const Json& row : json.at("blocks")) {
    out.blocks.emplace_back();
    for (size_t i = 0; i < kCosts.size(); ++i) out.blocks.back().*kCosts[i] = row.at(i).get<int64_t>();
  }
  return out;
}

std::string name_of_hash(const Json& of) { return hash_bytes(of.dump()).substr(0, 16); }

}  // namespace

KeptCurve::KeptCurve(std::string folder, const HeldOut& text) : folder_(std::move(folder)) {
  Hasher hash;
  for (const Window& w : text.windows) {
    const uint64_t numbers[] = {w.document, static_cast<uint64_t>(w.begin), w.unit, w.tokens.size()};
    hash.update(numbers, sizeof numbers), hash.update(w.tokens.data(), w.tokens.size_bytes());
  }
  text_ = hash.hex();
  make_folders(folder_);
}

std::string KeptCurve::quality_path(const Json& subject) const { return join_path(folder_, "loss-" + name_of_hash({subject, text_}) + ".json"); }

std::optional<KeptCurve::Quality> KeptCurve::quality(const Subject& of, const Json& subject) const {
  const std::string path = quality_path(subject);
  if (!exists(path)) return {};
  const Json json = read_json(path, {.max_bytes = limits::kJsonBytes});
  try {
    Quality out{.evaluation = {}, .kv_bytes = json.at("kv_bytes").get<double>()};
    Evaluation& e = out.evaluation;
    for (const auto& [name, rule] : infer::kRuleNames)
      if (json.at("rule") == name) e.rule = rule;
    json.at("dial").get_to(e.dial), json.at("windows").get_to(e.windows), json.at("context").get_to(e.context), json.at("by_stretch").get_to(e.by_stretch);
    json.at("nll").get_to(e.nll), json.at("tokens").get_to(e.tokens), json.at("bytes").get_to(e.bytes), json.at("correct").get_to(e.correct), json.at("seconds").get_to(e.seconds);
    for (const Json& unit : json.at("units")) e.units.push_back({unit.at(0).get<double>(), unit.at(1).get<int64_t>(), unit.at(2).get<int64_t>()});
    const std::vector<routing::RoutedUnit>& units = of.engine->config().routing.units;
    for (size_t u = 0; u < units.size(); ++u) {
      const Json& row = json.at("blocks").at(u);
      e.blocks.push_back({.unit = units[u], .capacity = row.at(0).get<double>(), .realised = row.at(1).get<double>(), .light = row.at(2).get<double>()});
    }
    e.spent = cost_of(json.at("spent")), e.dense = cost_of(json.at("dense"));
    return out;
  } catch (const Json::exception& error) {
    throw UserError({path, "", error.what(), "what fathom dial wrote", "remove the file: it is measured anew"});
  }
}

void KeptCurve::keep(const Json& subject, const Quality& quality) const {
  const Evaluation& e = quality.evaluation;
  Json json = {{"kv_bytes", quality.kv_bytes}, {"rule", name_of(e.rule, infer::kRuleNames)}, {"dial", e.dial}, {"windows", e.windows}, {"context", e.context}, {"by_stretch", e.by_stretch}, {"nll", e.nll},
               {"tokens", e.tokens}, {"bytes", e.bytes}, {"correct", e.correct}, {"seconds", e.seconds}, {"spent", cost_json(e.spent)}, {"dense", cost_json(e.dense)}, {"units", Json::array()}, {"blocks", Json::array()}};
  for (const UnitSum& u : e.units) json["units"].push_back(Json::array({u.nll, u.tokens, u.bytes}));
  for (const BlockAgreement& b : e.blocks) json["blocks"].push_back(Json::array({b.capacity, b.realised, b.light}));
  atomic_write(quality_path(subject), json.dump());
}

std::unique_ptr<TaskProgress> KeptCurve::tasks(const Json& subject, const std::vector<Task>& tasks) const {
  Json of = Json::array({subject});
  for (const Task& t : tasks) of.push_back(t.hash);
  return std::make_unique<TaskProgress>(join_path(folder_, "tasks-" + name_of_hash(of) + ".jsonl"), Json::array({subject}), tasks);
}

}  // namespace fathom::study
