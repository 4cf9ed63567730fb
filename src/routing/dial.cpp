#include "routing/dial.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "core/limits.h"
#include "routing/select.h"

namespace fathom::routing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Half a step above the largest f32: what lies below rounds to a finite one (its own shortest decimal lies above it).
constexpr double kAboveLargest = 0x1.ffffffp127;

float between(float low, float high, double t) {
  if (low == high || t <= 0) return low;
  if (t >= 1) return high;
  // From an infinite threshold no way leads halfway: the rule of the lower point (fewer tokens run) holds up to the next.
  if (std::isinf(low) || std::isinf(high)) return low;
  return static_cast<float>((1 - t) * static_cast<double>(low) + t * static_cast<double>(high));
}

double between(double low, double high, double t) { return t <= 0 ? low : t >= 1 ? high : (1 - t) * low + t * high; }

// The grid point at or below `dial`, and how far it lies on the way to the next one, in [0, 1).
std::pair<size_t, double> locate(const std::vector<DialPoint>& points, double dial) {
  if (dial <= points.front().dial) return {0, 0.0};
  if (dial >= points.back().dial) return {points.size() - 1, 0.0};
  size_t i = 0;
  while (points[i + 1].dial <= dial) ++i;
  return {i, (dial - points[i].dial) / (points[i + 1].dial - points[i].dial)};
}

void check_dial(double dial) {
  if (!(dial > 0 && dial <= 1))
    throw UserError({"dial", "", str(dial), "a block fraction above 0 and at most 1", "1 runs every token in full"});
}

// The shortest decimal that reads back as the same float, as the double that prints so.
Json threshold_json(float value) {
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  double shortest = 0;
  std::from_chars(text, end, shortest);
  return static_cast<float>(shortest) == value ? shortest : static_cast<double>(value);
}

float read_threshold(const Fields& fields, const std::string& key, const Json& value) {
  if (value == "inf") return kInfinity;
  if (value == "-inf") return -kInfinity;
  if (!value.is_number() || !(std::abs(value.get<double>()) < kAboveLargest))
    fields.wrong(key, describe(value), "a number within the range of f32, \"inf\" or \"-inf\"");
  return static_cast<float>(value.get<double>());
}

DialPoint read_point(const Fields& f, size_t cuts) {
  DialPoint p;
  p.dial = f.number("dial", 0, 1);
  if (p.dial == 0) f.wrong("dial", "0", "a block fraction above 0 and at most 1");
  p.block_fraction = f.number("block_fraction", 0, limits::kBlockFraction);
  const std::string count = str("one per cut of a routed block: ", cuts);
  const Json& thresholds = f.raw("thresholds");
  if (!thresholds.is_array() || thresholds.size() != cuts) f.wrong("thresholds", describe(thresholds), count);
  for (size_t r = 0; r < cuts; ++r) p.thresholds.push_back(read_threshold(f, str("thresholds[", r, "]"), thresholds[r]));
  p.capacity = f.numbers("capacity", 0, 1);
  if (p.capacity.size() != cuts) f.wrong("capacity", describe(f.raw("capacity")), count);
  p.loss = f.number("loss", 0, limits::kLoss, std::numeric_limits<double>::quiet_NaN());
  f.done();
  return p;
}

}  // namespace

std::vector<float> DialTable::thresholds(double dial) const {
  check_dial(dial);
  FATHOM_ASSERT(!points.empty(), "a dial table without points");
  if (dial >= 1) return std::vector<float>(points.back().thresholds.size(), -kInfinity);
  const auto [i, t] = locate(points, dial);
  std::vector<float> out = points[i].thresholds;
  if (t > 0)
    for (size_t r = 0; r < out.size(); ++r) out[r] = between(out[r], points[i + 1].thresholds[r], t);
  return out;
}

void DialTable::set_default(double dial) {
  check_dial(dial);
  trained_dial = dial == trained() ? 0 : trained();
  default_dial = dial;
}

double DialTable::reachable(double dial) const { return std::max(dial, points.front().dial); }

DialPoint DialTable::at(double dial) const {
  DialPoint out;
  out.thresholds = thresholds(dial);
  out.dial = dial;
  const auto [i, t] = locate(points, dial);
  const DialPoint &low = points[i], &high = points[std::min(i + 1, points.size() - 1)];
  out.block_fraction = between(low.block_fraction, high.block_fraction, t);
  out.loss = between(low.loss, high.loss, t);
  for (size_t r = 0; r < low.capacity.size(); ++r) out.capacity.push_back(between(low.capacity[r], high.capacity[r], t));
  if (dial >= 1) out.capacity.assign(low.capacity.size(), 1.0);
  return out;
}

DialTable DialTable::from_json(const Json& json, const std::string& where, size_t cuts) {
  const Fields f(json, where);
  DialTable table;
  const int64_t version = f.integer("version", 1, kDialVersion);
  table.default_dial = f.number("default_dial", 0, 1);
  if (table.default_dial == 0) f.wrong("default_dial", "0", "a block fraction above 0 and at most 1");
  if (version > 1) table.trained_dial = f.number("trained_dial", 0, 1);
  if (version > 1 && table.trained_dial == 0) f.wrong("trained_dial", "0", "a block fraction above 0 and at most 1");
  table.text = f.string("text", "");
  table.tokens = f.integer("tokens", 0, limits::kShardTokens, 0);
  const Json& points = f.raw("points");
  if (!points.is_array() || points.empty() || static_cast<int64_t>(points.size()) > limits::kDialPoints)
    f.wrong("points", describe(points), str("an array of 1 to ", limits::kDialPoints, " points"));
  for (size_t i = 0; i < points.size(); ++i) {
    const Fields p(points[i], where, str("points[", i, "]"));
    table.points.push_back(read_point(p, cuts));
    if (i > 0 && table.points[i].dial <= table.points[i - 1].dial)
      p.wrong("dial", str(table.points[i].dial, " after ", table.points[i - 1].dial), "ascending dials");
  }
  if (table.points.back().dial != 1)
    f.wrong(str("points[", points.size() - 1, "].dial"), str(table.points.back().dial), "1, the last point's dial");
  f.done();
  return table;
}

Json DialTable::to_json() const {
  Json list = Json::array();
  for (const DialPoint& p : points) {
    Json thresholds = Json::array();
    for (float t : p.thresholds) thresholds.push_back(threshold_json(t));
    Json loss;
    if (!std::isnan(p.loss)) loss = p.loss;
    list.push_back({{"dial", p.dial}, {"block_fraction", p.block_fraction}, {"thresholds", thresholds},
                    {"capacity", p.capacity}, {"loss", loss}});
  }
  Json j = {{"version", trained_dial > 0 ? kDialVersion : 1}, {"default_dial", default_dial}, {"text", text}, {"tokens", tokens}, {"points", list}};
  if (trained_dial > 0) j["trained_dial"] = trained_dial;
  return j;
}

void DialTable::require_order(const RoutingConfig& routing, const std::string& where) const {
  for (size_t i = 0; i < points.size(); ++i) {
    const std::vector<float>& thresholds = points[i].thresholds;
    size_t cut = 0;
    for (const RoutedUnit& unit : routing.units) {
      for (size_t c = 1; c < unit.cuts(); ++c)
        if (thresholds[cut + c] < thresholds[cut + c - 1])
          throw UserError({where, str("points[", i, "].thresholds[", cut + c, "]"), str(thresholds[cut + c], " after ", thresholds[cut + c - 1]),
                           str("rising thresholds of ", unit.name(), ", whose paths are ", unit.paths.text()), ""});
      cut += unit.cuts();
    }
  }
}

std::vector<double> capacities_for_dial(double dial, const std::vector<double>& trained,
                                        const std::function<double(const std::vector<double>&)>& block_fraction) {
  check_dial(dial);
  const auto moved = [&](double s, bool up) {
    std::vector<double> out = trained;
    for (double& c : out) c = std::clamp(up ? c + (1 - c) * s : c * s, 0.0, 1.0);
    return out;
  };
  const double at_trained = block_fraction(trained);
  if (dial == at_trained) return trained;
  const bool up = dial > at_trained;
  // low: block fraction below `dial`; high: at least `dial`. The ends may lie outside what can be reached.
  double low = 0, high = 1;
  if (block_fraction(moved(low, up)) >= dial) return moved(low, up);
  if (block_fraction(moved(high, up)) <= dial) return moved(high, up);
  for (int step = 0; step < 60; ++step) {
    const double middle = 0.5 * (low + high);
    (block_fraction(moved(middle, up)) < dial ? low : high) = middle;
  }
  return moved(0.5 * (low + high), up);
}

float threshold_for(std::vector<float>& scores, double capacity) {
  FATHOM_ASSERT(!scores.empty(), "a threshold from no score");
  const int64_t k = selected_count(capacity, static_cast<int64_t>(scores.size()));
  if (k == 0) return kInfinity;
  const auto end = std::partition(scores.begin(), scores.end(), [](float s) { return !std::isnan(s); });
  const int64_t numbers = end - scores.begin();
  if (numbers == 0) return -kInfinity;
  const auto kth = scores.begin() + (std::min(k, numbers) - 1);
  std::nth_element(scores.begin(), kth, end, std::greater<float>());
  return *kth;
}

std::vector<float> calibrate(const RoutingConfig& routing, const std::vector<double>& capacities,
                             const std::function<std::vector<float>(size_t, const std::vector<float>&)>& scores) {
  FATHOM_ASSERT(capacities.size() == routing.cuts(), capacities.size(), " capacities for ", routing.cuts(), " cuts");
  std::vector<float> thresholds;
  for (size_t u = 0; u < routing.units.size(); ++u) {
    if (routing.units[u].is_static()) continue;
    std::vector<float> of_unit = scores(u, thresholds);
    for (size_t i = 0; i < routing.units[u].cuts(); ++i) thresholds.push_back(threshold_for(of_unit, capacities[thresholds.size()]));
  }
  return thresholds;
}

std::vector<double> default_grid(double least, double trained) {
  constexpr double kApart = 0.02;  // nearer points tell nothing new and cost a pass over the text each
  trained = std::clamp(trained, 1e-6, 1.0);
  std::vector<double> grid;
  // Not `least` itself: nobody would run any routed block, a threshold of +∞ from which nothing can be interpolated.
  if (least > 0 && least < trained) grid = {least + 0.25 * (trained - least), least + 0.5 * (trained - least)};
  grid.push_back(trained);
  for (int tenth = 1; tenth < 10; ++tenth) {
    const double dial = tenth / 10.0;
    if (dial > grid.front() && std::all_of(grid.begin(), grid.end(), [&](double d) { return std::abs(d - dial) >= kApart; }))
      grid.push_back(dial);
  }
  if (trained < 1) grid.push_back(1.0);
  std::sort(grid.begin(), grid.end());
  return grid;
}

}  // namespace fathom::routing
