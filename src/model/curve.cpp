#include "model/curve.h"

#include <algorithm>

#include "core/file.h"
#include "core/limits.h"

namespace fathom::model {
namespace {

constexpr const char* kFile = "fathom_curve.json";

Json number(double x) { return std::isfinite(x) ? Json(x) : Json(); }

Json to_json(const Estimate& e) { return e.known() ? Json{{"value", e.value}, {"ci95", number(e.half)}} : Json(); }

Json to_json(const CurveTask& t) {
  return {{"task", t.name}, {"items", t.items}, {"accuracy", number(t.accuracy)}, {"standard_error", number(t.error)}, {"over_full", to_json(t.over_full)}, {"over_dense", to_json(t.over_dense)}};
}

Json to_json(const CurveSpeed& s) {
  return {{"work", s.batch == 0 ? "prompt" : "decode"}, {"batch", s.batch}, {"tokens", s.tokens}, {"depth", s.depth}, {"tokens_per_second", s.tokens_per_second}, {"slowest", s.slowest},
          {"fastest", s.fastest}, {"over_full", number(s.over_full)}, {"full_allows", number(s.full_allows)}, {"over_dense", number(s.over_dense)}, {"dense_allows", number(s.dense_allows)}};
}

Json to_json(const CurvePoint& p) {
  Json j = {{"name", p.name}, {"dial", p.dial}, {"block_fraction", p.block_fraction}, {"total_fraction", p.total_fraction}, {"loss", to_json(p.loss)}, {"perplexity", p.perplexity()},
            {"over_full", to_json(p.over_full)}, {"over_dense", to_json(p.over_dense)}, {"curve_minus_this", to_json(p.curve_minus_this)}, {"kv_bytes_per_token", p.kv_bytes},
            {"kv_bytes_per_token_expected", p.kv_bytes_expected}, {"full", p.full}, {"tasks", Json::array()}, {"mean", p.tasks.empty() ? Json() : to_json(p.mean())}, {"speed", Json::array()}};
  for (const CurveTask& t : p.tasks) j["tasks"].push_back(to_json(t));
  for (const CurveSpeed& s : p.speeds) j["speed"].push_back(to_json(s));
  return j;
}

// null is NaN.
double maybe(const Fields& f, const char* key, double low, double high) { return f.has(key) ? f.number(key, low, high) : NAN; }

Estimate read_estimate(const Fields& f, const char* key, double low, double high) {
  if (!f.has(key)) return {};
  const Fields e = f.object(key);
  const Estimate out{e.number("value", low, high), maybe(e, "ci95", 0, high)};
  e.done();
  return out;
}

// The objects of an array, at most as many as a table has points.
template <class T, class Read>
std::vector<T> read_list(const Fields& f, const std::string& key, Read read) {
  const Json& list = f.raw(key);
  if (!list.is_array() || static_cast<int64_t>(list.size()) > limits::kDialPoints) f.wrong(key, describe(list), str("an array of at most ", limits::kDialPoints));
  std::vector<T> out;
  for (size_t i = 0; i < list.size(); ++i) out.push_back(read(Fields(list[i], f.where(), f.path(str(key, "[", i, "]")))));
  return out;
}

CurveTask read_task(const Fields& f) {
  const CurveTask t{.name = f.string("task"), .items = f.integer("items", 1, limits::kEvaluationTokens), .accuracy = f.number("accuracy", 0, 1), .error = maybe(f, "standard_error", 0, 1),
                    .over_full = read_estimate(f, "over_full", -1, limits::kMeasured), .over_dense = read_estimate(f, "over_dense", -1, limits::kMeasured)};
  f.done();
  return t;
}

CurveSpeed read_speed(const Fields& f) {
  const auto rate = [&](const char* key) { return f.number(key, 0, limits::kMeasured); };
  const auto ratio = [&](const char* key) { return maybe(f, key, 0, limits::kMeasured); };
  f.ignore("work");
  const CurveSpeed s{.batch = f.integer("batch", 0, limits::kTexts), .tokens = f.integer("tokens", 1, limits::kContext), .depth = f.integer("depth", 0, limits::kContext),
                     .tokens_per_second = rate("tokens_per_second"), .slowest = rate("slowest"), .fastest = rate("fastest"), .over_full = ratio("over_full"),
                     .full_allows = ratio("full_allows"), .over_dense = ratio("over_dense"), .dense_allows = ratio("dense_allows")};
  f.done();
  return s;
}

CurvePoint read_point(const Fields& f) {
  CurvePoint p;
  p.name = f.string("name");
  p.dial = f.number("dial", 0, 1);
  if (p.dial == 0) f.wrong("dial", "0", "a block fraction above 0 and at most 1");
  p.block_fraction = f.number("block_fraction", 0, limits::kBlockFraction);
  p.total_fraction = f.number("total_fraction", 0, limits::kBlockFraction);
  p.loss = read_estimate(f, "loss", 0, limits::kLoss);
  if (!p.loss.known()) f.missing("loss", "what was measured");
  p.over_full = read_estimate(f, "over_full", -limits::kLoss, limits::kLoss), p.over_dense = read_estimate(f, "over_dense", -limits::kLoss, limits::kLoss);
  p.curve_minus_this = read_estimate(f, "curve_minus_this", -limits::kLoss, limits::kLoss);
  p.kv_bytes = f.number("kv_bytes_per_token", 0, limits::kMeasured), p.kv_bytes_expected = f.number("kv_bytes_per_token_expected", 0, limits::kMeasured);
  p.full = f.numbers("full", 0, 1);
  p.tasks = read_list<CurveTask>(f, "tasks", read_task);
  p.speeds = read_list<CurveSpeed>(f, "speed", read_speed);
  f.ignore("perplexity"), f.ignore("mean");  // follow from the rest
  f.done();
  return p;
}

}  // namespace

std::string CurveSpeed::words() const { return batch == 0 ? str("prompt of ", tokens) : batch == 1 ? std::string("decode") : str("decode ", batch, " texts"); }

CurveTask CurvePoint::mean() const {
  CurveTask m{.name = "mean", .items = 0, .accuracy = 0, .error = 0, .over_full = {0, 0}, .over_dense = {0, 0}};
  const double n = static_cast<double>(tasks.size());
  for (const CurveTask& t : tasks) {  // tasks are independent of each other: variances add up
    m.items += t.items, m.accuracy += t.accuracy / n, m.error += t.error * t.error / n / n;
    for (const auto& [sum, one] : {std::pair(&m.over_full, &t.over_full), {&m.over_dense, &t.over_dense}}) sum->value += one->value / n, sum->half += one->half * one->half / n / n;
  }
  for (double* square : {&m.error, &m.over_full.half, &m.over_dense.half}) *square = std::sqrt(*square);
  return m;
}

bool DialCurve::measured_at(const routing::DialTable& table) const { return thresholds == thresholds_hash(table); }

Json DialCurve::to_json() const {
  Json j = {{"version", kCurveVersion}, {"model", model}, {"text", text}, {"tokens", tokens}, {"context", context}, {"intervals_over", by_stretch ? "stretches" : "documents"}, {"units", units},
            {"weights", weights}, {"kv_type", kv_type}, {"machine", machine}, {"date", date}, {"thresholds", thresholds}, {"points", Json::array()},
            {"dense", dense ? model::to_json(*dense) : Json()}, {"rivals", Json::array()}};
  for (const CurvePoint& p : points) j["points"].push_back(model::to_json(p));
  for (const CurvePoint& p : rivals) j["rivals"].push_back(model::to_json(p));
  return j;
}

DialCurve DialCurve::from_json(const Json& json, const std::string& where) {
  const Fields f(json, where);
  f.integer("version", kCurveVersion, kCurveVersion);
  DialCurve c;
  c.model = f.string("model"), c.text = f.string("text");
  c.tokens = f.integer("tokens", 1, limits::kEvaluationTokens), c.context = f.integer("context", 2, limits::kContext);
  c.by_stretch = f.choice<bool>("intervals_over", {{"documents", false}, {"stretches", true}});
  c.units = f.integer("units", 1, limits::kEvaluationTokens);
  c.weights = f.string("weights"), c.kv_type = f.string("kv_type"), c.machine = f.string("machine"), c.date = f.string("date"), c.thresholds = f.string("thresholds");
  c.points = read_list<CurvePoint>(f, "points", read_point);
  if (c.points.empty() || c.points[0].dial != 1) f.wrong("points", c.points.empty() ? "none" : str("dial ", c.points[0].dial, " first"), "dial 1 first");
  for (size_t i = 1; i < c.points.size(); ++i)
    if (c.points[i].dial >= c.points[i - 1].dial) f.wrong(str("points[", i, "].dial"), str(c.points[i].dial, " after ", c.points[i - 1].dial), "falling dials");
  if (f.has("dense")) c.dense = read_point(f.object("dense"));
  c.rivals = read_list<CurvePoint>(f, "rivals", read_point);
  f.done();
  return c;
}

std::string thresholds_hash(const routing::DialTable& table) {
  Json of = Json::array();
  const Json whole = table.to_json();
  for (const Json& point : whole["points"]) of.push_back({point["dial"], point["thresholds"]});
  return hash_bytes(of.dump());
}

std::optional<DialCurve> read_curve(const std::string& folder) {
  const std::string path = join_path(folder, kFile);
  if (!exists(path)) return {};
  return DialCurve::from_json(read_json(path), path);
}

void write_curve(const std::string& folder, const DialCurve& curve) {
  atomic_write(join_path(folder, kFile), curve.to_json().dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace fathom::model
