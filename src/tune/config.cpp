#include "tune/config.h"

#include <algorithm>
#include <cmath>

#include "core/limits.h"
#include "train/config_parts.h"

namespace fathom::tune {

using namespace limits;

const std::vector<std::pair<const char*, What>> kWhatNames = {{"routers", What::routers}, {"adapters", What::adapters}, {"everything", What::everything}};
const std::vector<std::pair<const char*, Keep>> kKeepNames = {{"auto", Keep::automatic}, {"merged", Keep::merged}, {"separate", Keep::separate}};
const std::vector<std::pair<const char*, Picks>> kPicksNames = {{"threshold", Picks::threshold}, {"topk", Picks::topk}};

namespace {

constexpr double kGoldenSection = 0.6180339887498949;

double learning_rate(const Fields& f, const std::string& key, double fallback) { return f.number(key, 0, kLearningRate, fallback); }

StageConfig read_stage(const Json& json, const std::string& where, const std::string& path) {
  const Fields f(json, where, path);
  const StageConfig d;
  StageConfig c;
  c.what = f.choice<What>("what", kWhatNames);
  c.tokens = f.integer("tokens", 1, kTrainTokens);
  c.lr = learning_rate(f, "lr", d.lr);
  c.router_lr = learning_rate(f, "router_lr", d.router_lr);
  c.bias_lr = learning_rate(f, "bias_lr", d.bias_lr);
  c.adapter_lr = learning_rate(f, "adapter_lr", d.adapter_lr);
  c.noise = f.number("noise", 0, kRouterNoise, d.noise);
  f.done();
  return c;
}

Json write_stage(const StageConfig& c) {
  return {{"what", name_of(c.what, kWhatNames)}, {"tokens", c.tokens}, {"lr", c.lr}, {"router_lr", c.router_lr}, {"bias_lr", c.bias_lr}, {"adapter_lr", c.adapter_lr}, {"noise", c.noise}};
}

}  // namespace

Json TuneConfig::once() { return {{"adapters", "merged"}, {"chat_share", 0.0}, {"other", Json::array()}, {"other_share", 0.5}, {"other_weight", 0.1}}; }

TuneConfig TuneConfig::from_json(const Json& json, const std::string& where) {
  Json whole = json.is_object() ? once() : json;
  if (json.is_object()) whole.update(json);
  const Fields f(whole, where);
  const TuneConfig d;
  TuneConfig c;
  c.model = f.string("model");
  c.teacher = f.string("teacher", "");
  c.other_teacher = f.boolean("other_teacher", false);
  c.teacher_cache = f.string("teacher_cache", "");
  c.teacher_top = f.integer("teacher_top", 0, kVocabulary, d.teacher_top);
  c.data = train::read_data(f.object("data"));
  c.other = f.strings("other");
  c.other_share = f.number("other_share", 0, 1);
  c.other_weight = f.number("other_weight", 0, kLossWeight);
  c.self_tokens = f.integer("self_tokens", 0, kTrainTokens, 0);
  c.chat_share = f.number("chat_share", 0, 1);
  c.sequence_length = f.integer("sequence_length", 2, kSequenceLength, d.sequence_length);
  c.batch_size = f.integer("batch_size", 1, kBatch, d.batch_size);
  c.accumulation = f.integer("accumulation", 1, kBatch, d.accumulation);
  c.lowest = f.number("lowest", 0, 1, d.lowest);
  c.highest = f.number("highest", 0, 1, d.highest);
  const Json& stages = f.raw("stages");
  if (!stages.is_array()) f.wrong("stages", describe(stages), "an array of stages");
  for (size_t i = 0; i < stages.size(); ++i) c.stages.push_back(read_stage(stages[i], where, f.path(str("stages[", i, "]"))));
  c.lora.rank = f.integer("lora_rank", 0, kVocabulary, 0);
  c.lora.alpha = f.number("lora_alpha", 0, 1e6, d.lora.alpha);
  if (f.has("lora_targets")) c.lora.targets = f.strings("lora_targets");
  c.kl_weight = f.number("kl_weight", 0, kLossWeight, d.kl_weight);
  c.loss_weight = f.number("loss_weight", 0, kLossWeight, d.loss_weight);
  c.budget_weight = f.number("budget_weight", 0, kLossWeight, d.budget_weight);
  c.unit_budget_weight = f.number("unit_budget_weight", 0, kLossWeight, d.unit_budget_weight);
  c.picks = f.choice<Picks>("picks", kPicksNames, d.picks);
  c.tau = f.number("tau", 1e-3, 1e3, d.tau);
  if (f.has("optimizer")) c.optimizer = train::read_optimizer(f.object("optimizer"), d.optimizer);
  if (f.has("schedule")) c.schedule = train::read_schedule(f.object("schedule"), d.schedule);
  if (f.has("interval")) c.interval = train::read_interval(f.object("interval"), d.interval);
  c.calibration_tokens = f.integer("calibration_tokens", 1, kTrainTokens, d.calibration_tokens);
  c.adapters = f.choice<Keep>("adapters", kKeepNames);
  c.type = f.string("type", "");
  c.precision = f.choice<train::Precision>("precision", train::kPrecisionNames, d.precision);
  c.f32_route = f.choice<train::Route>("f32_route", train::kRouteNames, d.f32_route);
  c.seed = static_cast<uint64_t>(f.integer("seed", 0, INT64_MAX, 0));
  c.threads = f.integer("threads", 0, kThreads, 0);
  f.done();
  require_sane(c, where);
  return c;
}

Json TuneConfig::to_json() const {
  Json j = {{"model", model}, {"teacher", teacher}, {"other_teacher", other_teacher}, {"teacher_cache", teacher_cache}, {"teacher_top", teacher_top},
            {"data", train::write_data(data)}, {"other", other}, {"other_share", other_share}, {"other_weight", other_weight}, {"self_tokens", self_tokens}, {"chat_share", chat_share}, {"sequence_length", sequence_length}, {"batch_size", batch_size},
            {"accumulation", accumulation}, {"lowest", lowest}, {"highest", highest}, {"stages", Json::array()}, {"lora_rank", lora.rank},
            {"lora_alpha", lora.alpha}, {"lora_targets", lora.targets}, {"kl_weight", kl_weight}, {"loss_weight", loss_weight},
            {"budget_weight", budget_weight}, {"unit_budget_weight", unit_budget_weight}, {"picks", name_of(picks, kPicksNames)}, {"tau", tau}, {"optimizer", train::write_optimizer(optimizer)},
            {"schedule", train::write_schedule(schedule)}, {"interval", train::write_interval(interval)}, {"calibration_tokens", calibration_tokens},
            {"adapters", name_of(adapters, kKeepNames)}, {"type", type}, {"precision", name_of(precision, train::kPrecisionNames)}, {"f32_route", name_of(f32_route, train::kRouteNames)},
            {"seed", seed}, {"threads", threads}};
  for (const StageConfig& stage : stages) j["stages"].push_back(write_stage(stage));
  return j;
}

double TuneConfig::target(int64_t step) const { return lowest + std::fmod(kGoldenSection * static_cast<double>(step + 1), 1.0) * (highest - lowest); }

int64_t TuneConfig::steps(size_t stage) const {
  const double per_step = static_cast<double>(rows_per_step() * sequence_length);
  return std::max<int64_t>(1, std::llround(static_cast<double>(stages.at(stage).tokens) / per_step));
}

void require_sane(const TuneConfig& c, const std::string& where) {
  const auto wrong = [&](const std::string& field, const std::string& found, const std::string& expected, const std::string& hint = "") { throw UserError({where, field, found, expected, hint}); };
  if (c.stages.empty()) wrong("stages", "none", "at least one stage");
  if (!(c.lowest > 0) || c.lowest > c.highest) wrong("lowest", str(c.lowest), str("above 0 and at most highest, ", c.highest));
  for (size_t i = 0; i < c.stages.size(); ++i) {
    const bool adapters = c.stages[i].what == What::adapters, last = i + 1 == c.stages.size();
    if (adapters && c.lora.rank == 0) wrong("lora_rank", "0", "at least 1, in a run with adapters");
    if (!last && c.stages[i].what != What::routers)
      wrong(str("stages[", i, "]"), name_of(c.stages[i].what, kWhatNames), "routers, or the last stage", "adapters belong to one stage, and after all weights have changed nothing is left for another");
  }
  const std::vector<std::string> projections = nn::Lora().targets;
  for (const std::string& target : c.lora.targets)
    if (std::ranges::find(projections, target) == projections.end()) wrong("lora_targets", "\"" + printable(target) + "\"", "some of q, k, v, o, gate, up, down");
  if (!c.other.empty() && !(c.other_share > 0 && c.other_share < 1)) wrong("other_share", str(c.other_share), "above 0 and below 1, in a run with other text");
  if (c.teacher.empty())
    for (const auto& [field, texts] : {std::pair("data.text", &c.data.text), {"other", &c.other}})
      if (std::ranges::count(*texts, "self") > 0) wrong(field, "self without a teacher", "a teacher, which writes that text");
  if (c.teacher_top == 0 && !c.teacher_cache.empty()) wrong("teacher_cache", "\"" + printable(c.teacher_cache) + "\" beside teacher_top 0", "the likeliest tokens alone in a cache", "all logits of a token are as many numbers as there are tokens: they are computed anew");
  if (c.teacher.empty() && c.loss_weight == 0) wrong("loss_weight", "0", "above 0 without a teacher");
}

}  // namespace fathom::tune
