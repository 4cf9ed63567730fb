#include "train/config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/limits.h"
#include "nn/transformer.h"
#include "train/config_parts.h"
#include "train/overrides.h"

namespace fathom::train {

const std::vector<std::pair<const char*, ScheduleKind>> kScheduleNames = {
    {"constant", ScheduleKind::constant}, {"linear", ScheduleKind::linear}, {"cosine", ScheduleKind::cosine}, {"wsd", ScheduleKind::wsd}};
const std::vector<std::pair<const char*, Curve>> kCurveNames = {{"linear", Curve::linear}, {"cosine", Curve::cosine}};
const std::vector<std::pair<const char*, Precision>> kPrecisionNames = {
    {"auto", Precision::automatic}, {"f32", Precision::f32}, {"bf16", Precision::bf16}};
const std::vector<std::pair<const char*, Route>> kRouteNames = {{"auto", Route::automatic}, {"mkl", Route::mkl}, {"onednn", Route::onednn}};

const std::vector<std::string>& loss_names() {
  static const std::vector<std::string> names = {nn::kPredictorBce, nn::kRouterBce, nn::kRouterZ};
  return names;
}

namespace {

using namespace limits;

// A rule that is learned needs its loss. The predictor is behind a stop-gradient, so that its weight matters to clipping
// alone; router_bce pulls on the scores that the gate reads.
constexpr double kPredictorWeight = 0.1, kRouterBceWeight = 0.01;

std::pair<Budget, double> read_budget(const Fields& f) {
  std::vector<std::string> given;
  for (const char* key : {"steps", "tokens", "flops"})
    if (f.has(key)) given.push_back(key);
  f.done();
  if (given.empty()) f.missing("steps", "one of \"steps\", \"tokens\" and \"flops\"");
  if (given.size() > 1) f.wrong(given[1], "\"" + given[0] + "\" and \"" + given[1] + "\"", "one of \"steps\", \"tokens\" and \"flops\"");
  if (given[0] == "steps") return {Budget::steps, static_cast<double>(f.integer("steps", 1, kSteps))};
  if (given[0] == "tokens") return {Budget::tokens, static_cast<double>(f.integer("tokens", 1, kTrainTokens))};
  return {Budget::flops, f.number("flops", 1, kTrainFlops)};
}

RouterTraining read_router(const Fields& f) {
  const RouterTraining d;
  RouterTraining c;
  c.capacity_warmup = read_span(f, "capacity_warmup", d.capacity_warmup);
  c.capacity_start = above_zero(f, "capacity_start", 1, d.capacity_start);
  c.capacity_curve = f.choice<Curve>("capacity_curve", kCurveNames, d.capacity_curve);
  c.noise = f.number("noise", 0, kRouterNoise, d.noise);
  c.quantile_decay = f.number("quantile_decay", 0, 0.999999, d.quantile_decay);
  c.straight_through_tau = above_zero(f, "straight_through_tau", 1e3, d.straight_through_tau);
  f.done();
  return c;
}

CalibrationConfig read_calibration(const Fields& f) {
  const CalibrationConfig d;
  CalibrationConfig c;
  c.tokens = f.integer("tokens", 1, kTrainTokens, d.tokens);
  if (f.has("dials")) c.dials = f.numbers("dials", 0.0, 1.0);
  if (static_cast<int64_t>(c.dials.size()) > kDialPoints)
    f.wrong("dials", describe(f.raw("dials")), str("at most ", kDialPoints, " dials"));
  for (size_t i = 0; i < c.dials.size(); ++i)
    if (!(c.dials[i] > 0)) f.wrong(str("dials[", i, "]"), str(c.dials[i]), "a number above 0 and at most 1");
  f.done();
  return c;
}

// config.json's reader passes over keys that it does not know, since the Hugging Face world has many; here such a key
// is a slip of the pen.
model::ModelConfig read_model(const Fields& f) {
  Json json = f.raw("model");
  if (!json.is_object()) f.wrong("model", describe(json), "an object { … } with the model's shape");
  const std::string where = f.where() + ": model";
  const Fields fields(json, where);
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (fields.has(key)) fields.wrong(key, describe(fields.raw(key)), "no such key", "the dataset gives it");
  for (const char* key : {"architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings",
                          "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor",
                          "initializer_range", "tie_word_embeddings", "attention_bias", "attention_output_bias", "mlp_bias", "qk_norm",
                          "original_max_position_embeddings", "fathom"})
    fields.ignore(key);
  fields.done();
  const bool routed = fields.has("fathom");
  if (!routed) json.erase("fathom");
  if (!fields.has("model_type")) json["model_type"] = routed ? "fathom" : "llama";
  const bool own_vocabulary = fields.has("vocab_size");
  if (!own_vocabulary) json["vocab_size"] = 1;
  if (!fields.has("rms_norm_eps")) json["rms_norm_eps"] = model::ModelConfig().rms_norm_eps;
  model::ModelConfig c = model::ModelConfig::from_json(json, where);
  nn::refuse_untrainable(c, where);
  c.routing.require_plain(where);
  if (!own_vocabulary) c.vocab_size = 0;
  // A dense model has no gate to remember: one form for equal models.
  if (c.routing.dense()) c.routing = {};
  return c;
}

Json write_model(const model::ModelConfig& c) {
  Json j = c.to_json();
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) j.erase(key);
  if (c.vocab_size == 0) j.erase("vocab_size");
  return j;
}

void flatten(const Json& json, const std::string& path, std::vector<std::pair<std::string, Json>>& out) {
  if (!json.is_object()) {
    out.emplace_back(path, json);
    return;
  }
  for (const auto& [key, value] : json.items()) flatten(value, path.empty() ? key : path + "." + key, out);
}

}  // namespace

int64_t Span::of(int64_t total) const {
  const int64_t n = steps ? *steps : static_cast<int64_t>(std::llround(share * static_cast<double>(total)));
  return std::min(n, total);
}

TrainConfig TrainConfig::from_json(const Json& json, const std::string& where) {
  const Fields f(json, where);
  const TrainConfig d;
  TrainConfig c;
  c.model = read_model(f);
  c.data = read_data(*Part(f, "data"));
  c.sequence_length = f.integer("sequence_length", 1, kSequenceLength, d.sequence_length);
  c.batch_size = f.integer("batch_size", 1, kBatch, d.batch_size);
  c.accumulation = f.integer("accumulation", 1, kBatch, d.accumulation);
  std::tie(c.budget, c.amount) = read_budget(*Part(f, "budget"));
  c.optimizer = read_optimizer(*Part(f, "optimizer"));
  c.schedule = read_schedule(*Part(f, "schedule"));
  c.router = read_router(*Part(f, "router"));
  c.interval = read_interval(*Part(f, "interval"));
  c.calibration = read_calibration(*Part(f, "calibration"));
  if (f.has("losses")) {
    const Fields losses = f.object("losses");
    for (const std::string& name : loss_names())
      if (losses.has(name)) c.losses[name] = losses.number(name, 0, kLossWeight);
    losses.done();
  }
  const auto need = [&](routing::CausalRule rule, const char* name, double weight) {
    if (c.model.routing.dense()) return;  // a routed model's twin keeps its losses in the file
    if (c.model.routing.rule != rule) {
      if (c.losses.contains(name) && c.losses.at(name) > 0)
        f.wrong(str("losses.", name), str(c.losses.at(name)), str("0, or the causal rule \"", name_of(rule, routing::kCausalRuleNames), "\" that learns from it"),
                str("the rule is \"", name_of(c.model.routing.rule, routing::kCausalRuleNames), "\""));
      return;
    }
    if (c.losses.try_emplace(name, weight).first->second == 0)
      f.wrong(str("losses.", name), "0", "a number above 0", str("the causal rule \"", name_of(rule, routing::kCausalRuleNames), "\" learns from it"));
  };
  need(routing::CausalRule::predictor, nn::kPredictorBce, kPredictorWeight);
  need(routing::CausalRule::router_bce, nn::kRouterBce, kRouterBceWeight);
  c.precision = f.choice<Precision>("precision", kPrecisionNames, d.precision);
  c.f32_route = f.choice<Route>("f32_route", kRouteNames, d.f32_route);
  c.seed = static_cast<uint64_t>(f.integer("seed", 0, INT64_MAX, 0));
  c.threads = f.integer("threads", 0, kThreads, 0);
  f.done();

  if (c.sequence_length > c.model.max_position_embeddings)
    f.wrong("sequence_length", str(c.sequence_length), str("at most model.max_position_embeddings, ", c.model.max_position_embeddings));
  if (c.model.routing.forced_positions > c.sequence_length)
    f.wrong("model.fathom.forced_positions", str(c.model.routing.forced_positions), str("at most sequence_length, ", c.sequence_length));
  return c;
}

Json TrainConfig::to_json() const {
  Json j;
  j["model"] = write_model(model);
  j["data"] = write_data(data);
  j["sequence_length"] = sequence_length;
  j["batch_size"] = batch_size;
  j["accumulation"] = accumulation;
  j["budget"][budget == Budget::steps ? "steps" : budget == Budget::tokens ? "tokens" : "flops"] = amount;
  j["optimizer"] = write_optimizer(optimizer);
  j["schedule"] = write_schedule(schedule);
  j["router"] = {{"capacity_start", router.capacity_start}, {"capacity_curve", name_of(router.capacity_curve, kCurveNames)},
                 {"noise", router.noise}, {"quantile_decay", router.quantile_decay},
                 {"straight_through_tau", router.straight_through_tau}};
  write_span(j["router"], "capacity_warmup", router.capacity_warmup);
  j["losses"] = losses.empty() ? Json::object() : Json(losses);
  j["interval"] = write_interval(interval);
  j["calibration"] = {{"tokens", calibration.tokens}, {"dials", calibration.dials}};
  j["precision"] = name_of(precision, kPrecisionNames);
  j["f32_route"] = name_of(f32_route, kRouteNames);
  j["seed"] = seed;
  j["threads"] = threads;
  return j;
}

namespace {

using Overrides = std::vector<std::pair<std::string, std::string>>;

Json overridden(Json json, const Overrides& overrides) {
  for (const auto& [field, value] : overrides) apply_override(json, field, value, known_paths());
  return json;
}

// Of a field "a.b" and one inside it, "a.b.c" or "a.b[0]": the second lies in the first.
bool lies_in(const std::string& inner, const std::string& outer) {
  return inner.starts_with(outer) && (inner.size() == outer.size() || inner[outer.size()] == '.' || inner[outer.size()] == '[');
}

// The override that `error` is the fault of, if it is one's: that which set the field it names, else one without which
// all is well.
const std::pair<std::string, std::string>* culprit(const UserError& error, const std::string& path, const Json& file, const Overrides& overrides) {
  const auto& [where, field, found, expected, hint] = error.parts();
  std::string full = where.starts_with(path + ": ") ? where.substr(path.size() + 2) : "";  // "model", where another reader took over
  if (!full.empty() && !field.empty()) full += ".";
  full += field;
  for (auto it = overrides.rbegin(); it != overrides.rend(); ++it)
    if (lies_in(full, it->first)) return &*it;
  for (size_t i = 0; i < overrides.size(); ++i) {
    Overrides others = overrides;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
    try {
      TrainConfig::from_json(overridden(file, others), path);
      return &overrides[i];
    } catch (const UserError&) {
    }
  }
  return nullptr;
}

TrainConfig checked(const std::string& path, const Json& file, const Overrides& overrides) {
  const Json json = overridden(file, overrides);
  try {
    return TrainConfig::from_json(json, path);
  } catch (const UserError& e) {
    const auto* wrong = culprit(e, path, file, overrides);
    if (!wrong) throw;
    auto [where, field, found, expected, hint] = e.parts();
    if (where.starts_with(path + ": ")) field = where.substr(path.size() + 2) + (field.empty() ? "" : "." + field);
    const std::string flag = wrong->first.starts_with("budget.") ? wrong->first.substr(7) : wrong->first;  // --steps, --tokens, --flops
    throw UsageError({str("--", flag, " ", printable(wrong->second)), field == wrong->first ? "" : field, found, expected, hint});
  }
}

}  // namespace

TrainConfig load_config(const std::string& path, const std::vector<std::pair<std::string, std::string>>& overrides) {
  const Json json = read_json(path, {.comments = true});
  if (!json.is_object()) throw UserError({path, "", describe(json), "an object { … }", ""});
  TrainConfig config = checked(path, json, overrides);
  // A run may be resumed from another folder.
  const auto full = [](std::string& p) {
    if (!p.empty()) p = std::filesystem::absolute(p).lexically_normal().string();
  };
  full(config.data.dataset);
  full(config.data.tokenizer);
  for (std::string& text : config.data.text) full(text);
  return config;
}

std::vector<std::string> differences(const TrainConfig& a, const TrainConfig& b) {
  std::vector<std::pair<std::string, Json>> left, right;
  flatten(a.to_json(), "", left);
  flatten(b.to_json(), "", right);
  const std::map<std::string, Json> l(left.begin(), left.end()), r(right.begin(), right.end());
  std::set<std::string> paths;
  for (const auto& [path, value] : l) paths.insert(path);
  for (const auto& [path, value] : r) paths.insert(path);
  for (const char* free : {"interval.log_steps", "interval.checkpoint_steps", "interval.checkpoint_seconds", "interval.keep_last",
                           "calibration.tokens", "calibration.dials", "data.dataset", "data.text", "data.tokenizer"})
    paths.erase(free);
  std::vector<std::string> out;
  for (const std::string& path : paths) {
    const auto x = l.find(path), y = r.find(path);
    if (x == l.end() || y == r.end() || x->second != y->second) out.push_back(path);
  }
  return out;
}

void require_same(const TrainConfig& before, const TrainConfig& now, const std::string& run) {
  const std::vector<std::string> fields = differences(before, now);
  if (fields.empty()) return;
  const auto value = [&](const TrainConfig& c) {
    std::vector<std::pair<std::string, Json>> all;
    flatten(c.to_json(), "", all);
    for (const auto& [path, v] : all)
      if (path == fields[0]) return v.dump();
    return std::string("nothing");
  };
  std::string others;
  for (size_t i = 1; i < fields.size(); ++i) others += (others.empty() ? "; so differ " : ", ") + fields[i];
  throw UserError({run, fields[0], value(now), value(before) + ", as the run was started with" + others,
                   "resume without overrides, or start a new run"});
}

}  // namespace fathom::train
