#include "study/dial_curve.h"

#include <algorithm>
#include <cmath>

#include "core/human.h"
#include "core/log.h"
#include "study/kept_curve.h"
#include "study/speed.h"
#include "study/statistics.h"

namespace fathom::study {
namespace {

using model::CurvePoint;
using model::DialCurve;
using model::Estimate;

constexpr size_t kDepthMaps = 3;
constexpr int64_t kDepthTokens = 8192;  // that each of them is drawn from

// A line of the curve before its numbers are compared.
struct Row {
  const Subject* subject;
  std::optional<double> dial;      // of the routed model; the others run at their own
  CurvePoint point = {};
  Evaluation quality = {};
  std::vector<TaskResult> tasks = {};
  Json identity = {};              // what its numbers depend on, where they are kept

  std::string words() const { return dial ? str(subject->name, " at dial ", fixed(*dial, 3)) : subject->name; }
};

Estimate estimate(const Interval& i) { return {i.value, i.half}; }

int64_t slots(const infer::EngineCounters& c) {
  int64_t sum = 0;
  for (const int64_t of_block : c.kv_slots) sum += of_block;
  return sum;
}

KeptCurve::Quality evaluated(const Row& row, const HeldOut& text, const CurveProgress& progress) {
  const infer::Engine& engine = *row.subject->engine;
  const int64_t slots_before = slots(engine.counters()), rows_before = engine.counters().rows;
  if (progress.begin) progress.begin("evaluating " + row.words(), "tokens", text.predicted);
  Evaluation e = evaluate(*row.subject, text, infer::Rule::causal, row.dial, [&](int64_t done, int64_t, double loss) {
    if (progress.update) progress.update(done, "loss " + fixed(loss, 3));
  });
  const int64_t bytes = (slots(engine.counters()) - slots_before) * model::kv_bytes_per_token_and_block(engine.config(), engine.pool().layout().type);
  return {.evaluation = std::move(e), .kv_bytes = static_cast<double>(bytes) / static_cast<double>(engine.counters().rows - rows_before)};
}

void measure_quality(Row& row, const HeldOut& text, const KeptCurve* kept, const CurveProgress& progress) {
  const infer::Engine& engine = *row.subject->engine;
  std::optional<KeptCurve::Quality> quality = kept ? kept->quality(*row.subject, row.identity) : std::nullopt;
  if (!quality) {
    quality = evaluated(row, text, progress);
    if (kept) kept->keep(row.identity, *quality);
  }
  row.quality = std::move(quality->evaluation);
  CurvePoint& p = row.point;
  const KvType kv = engine.pool().layout().type;
  p.name = row.subject->name, p.dial = row.quality.dial;
  p.loss = estimate(loss_interval(row.quality));
  p.kv_bytes = quality->kv_bytes;
  const std::optional<routing::DialTable>& table = row.subject->folder->dial();
  p.kv_bytes_expected = kv_bytes_per_token(engine.config(), table ? table->at(p.dial).capacity : engine.config().routing.capacities(), kv);
  for (const BlockAgreement& b : row.quality.blocks) p.full.push_back(b.realised);
}

void measure_tasks(Row& row, const std::vector<Task>& tasks, const KeptCurve* kept, const CurveProgress& progress) {
  if (tasks.empty()) return;
  const std::unique_ptr<TaskProgress> results = kept ? kept->tasks(row.identity, tasks) : nullptr;
  for (size_t t = 0; t < tasks.size(); ++t) {
    const Task& task = tasks[t];
    if (progress.begin) progress.begin(task.name + " by " + row.words(), "items", std::ssize(task.items));
    TaskOptions options{.dial = row.dial};
    if (results) options.known = [&](size_t item) { return results->known(0, t, item); };
    options.done = [&](size_t item, const ItemResult& result, int64_t done) {
      if (results) results->add(0, t, item, result);
      if (progress.update) progress.update(done, "");
    };
    row.tasks.push_back(evaluate_task(*row.subject, task, options));
    const TaskResult& result = row.tasks.back();
    if (result.cut > 0 && row.dial.value_or(1) == 1)
      log_warning(task.name, ": ", result.cut, result.cut == 1 ? " item is" : " items are", " longer than the context of ", row.subject->name, ": their beginnings are left out");
    const Mean accuracy = result.accuracy();
    row.point.tasks.push_back({.name = task.name, .items = std::ssize(task.items), .accuracy = accuracy.value, .error = accuracy.error, .over_full = {}, .over_dense = {}});
  }
}

void compare(Row& row, const Row& full, const Row* dense) {
  CurvePoint& p = row.point;
  const auto over = [&](const Row& other, Estimate CurvePoint::* loss, Estimate model::CurveTask::* accuracy) {
    p.*loss = estimate(loss_difference(row.quality, other.quality));
    for (size_t t = 0; t < row.tasks.size(); ++t) p.tasks[t].*accuracy = estimate(task_difference(row.tasks[t].right, other.tasks[t].right).value);
  };
  over(full, &CurvePoint::over_full, &model::CurveTask::over_full);
  if (dense) over(*dense, &CurvePoint::over_dense, &model::CurveTask::over_dense);
  // Of the routed model's blocks, so that a rival with fewer of them has its place on the same axis.
  p.block_fraction = static_cast<double>(row.quality.spent.blocks_total()) / static_cast<double>(full.quality.dense.blocks_total());
  p.total_fraction = static_cast<double>(row.quality.spent.total()) / static_cast<double>(full.quality.dense.total());
}

// The routed model's losses between its two neighbours of the rival's block fraction, less the rival's.
Estimate curve_minus(const Row& rival, std::span<const Row> routed) {
  const double at = rival.point.block_fraction;
  for (size_t i = 0; i + 1 < routed.size(); ++i) {
    const double high = routed[i].point.block_fraction, low = routed[i + 1].point.block_fraction;
    if (!(low <= at && at <= high && low < high)) continue;
    const double t = (at - low) / (high - low);
    std::vector<UnitSum> between = routed[i].quality.units;
    for (size_t u = 0; u < between.size(); ++u) between[u].nll = t * between[u].nll + (1 - t) * routed[i + 1].quality.units[u].nll;
    return estimate(paired_difference(between, rival.quality.units, false));
  }
  return {};
}

void measure_speed(std::vector<Row>& rows, const Row* dense, const HeldOut& text, BenchWork work, const CurveProgress& progress) {
  std::vector<std::span<const int32_t>> windows;
  for (const Window& w : text.windows) windows.push_back(w.tokens);
  if (work.texts.empty()) work.texts = windows;
  work.limits = false;
  std::vector<BenchModel> models;
  for (const Row& row : rows)
    models.push_back({.name = row.words(), .engine = row.subject->engine, .policy = policy_of(*row.subject, infer::Rule::causal, row.dial), .capacity = row.quality.capacities()});
  const int64_t turns = (work.rounds + 1) * std::ssize(models) * ((work.prompt > 0 ? 1 : 0) + std::ssize(work.batches));
  if (progress.begin) progress.begin("measuring speed", "turns", turns);
  work.turn = [&, done = int64_t{0}]() mutable {
    if (progress.update) progress.update(++done, "");
  };
  const std::vector<BenchLine> lines = bench_engines(models, work, {});
  const size_t n = rows.size(), at_dense = dense ? static_cast<size_t>(dense - rows.data()) : 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    const BenchLine &line = lines[i], &full = lines[i / n * n], &other = lines[i / n * n + at_dense];
    model::CurveSpeed s{.tokens = work.prompt, .tokens_per_second = line.tokens_per_second, .slowest = line.slowest, .fastest = line.fastest, .over_full = speedup(line, full),
                        .full_allows = allowed_speedup(line, full)};
    if (line.decodes) s.batch = work.batches[i / n - (work.prompt > 0 ? 1 : 0)], s.tokens = work.generate, s.depth = work.depth;
    if (dense) s.over_dense = speedup(line, other), s.dense_allows = allowed_speedup(line, other);
    rows[i % n].point.speeds.push_back(s);
  }
}

}  // namespace

DialCurve measure_curve(const Subject& model, const Subject* dense, const std::vector<Subject>& rivals, const HeldOut& text, const CurveOptions& options) {
  FATHOM_ASSERT(!options.dials.empty() && options.dials[0] == 1, "a curve without dial 1");
  std::vector<Row> rows;
  for (const double dial : options.dials) rows.push_back({.subject = &model, .dial = dial});
  if (dense) rows.push_back({.subject = dense, .dial = {}});
  for (const Subject& rival : rivals) rows.push_back({.subject = &rival, .dial = {}});
  std::optional<KeptCurve> kept;
  if (!options.kept.empty()) {
    kept.emplace(options.kept, text);
    for (Row& row : rows) row.identity = task_subject_json(*row.subject, row.dial);
  }
  for (Row& row : rows) measure_quality(row, text, kept ? &*kept : nullptr, options.progress);
  for (Row& row : rows) measure_tasks(row, options.tasks, kept ? &*kept : nullptr, options.progress);
  const size_t routed = options.dials.size();
  const Row* const of_dense = dense ? &rows[routed] : nullptr;
  for (Row& row : rows) compare(row, rows[0], of_dense);
  if (options.speed) measure_speed(rows, of_dense, text, *options.speed, options.progress);

  const Interval loss = loss_interval(rows[0].quality);
  DialCurve curve;
  curve.model = model.name, curve.text = text.name;
  curve.tokens = rows[0].quality.tokens, curve.context = rows[0].quality.context, curve.units = loss.units, curve.by_stretch = text.by_stretch;
  curve.kv_type = name_of(model.engine->pool().layout().type, kKvTypeNames);
  curve.thresholds = model::thresholds_hash(*model.folder->dial());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i >= routed && &rows[i] != of_dense) rows[i].point.curve_minus_this = curve_minus(rows[i], std::span(rows).first(routed));
    if (i < routed) curve.points.push_back(rows[i].point);
    else if (&rows[i] == of_dense) curve.dense = rows[i].point;
    else curve.rivals.push_back(rows[i].point);
  }
  return curve;
}

std::vector<DepthStudy> depth_maps(const Subject& model, const HeldOut& text, const CurveOptions& options) {
  HeldOut some;
  some.windows = spread_windows(text.windows, kDepthTokens);
  some.predicted = predicted_tokens(some.windows), some.units = text.units, some.by_stretch = text.by_stretch, some.name = text.name;
  std::vector<DepthStudy> out;
  const std::span<const double> below = std::span(options.dials).subspan(1);  // at dial 1 all go everywhere
  const size_t count = std::min(kDepthMaps, below.size());
  for (size_t i = 0; i < count; ++i) {
    const double dial = below[count == 1 ? 0 : i * (below.size() - 1) / (count - 1)];
    if (options.progress.begin) options.progress.begin(str("reading depths at dial ", fixed(dial, 3)), "tokens", some.predicted);
    out.push_back(study_depth(model, some, dial, [&](int64_t done, int64_t, double) {
      if (options.progress.update) options.progress.update(done, "");
    }));
  }
  return out;
}

const CurvePoint* pick(const DialCurve& curve, const LossBound& bound) {
  const double most = bound.nats(curve.dense ? curve.dense->loss.value : curve.points[0].loss.value);
  const CurvePoint* lowest = nullptr;
  for (const CurvePoint& p : curve.points)  // falling
    if (p.dial < 1 && (curve.dense ? p.over_dense : p.over_full).value <= most) lowest = &p;
  return lowest;
}

}  // namespace fathom::study
