// The curve's numbers against others' ways to them: losses of plain evaluations, differences from per-token losses, what sequences hold.
#include "study/dial_curve.h"

#include <gtest/gtest.h>

#include <cmath>

#include "infer/score.h"
#include "sample.h"
#include "study/curve_page.h"
#include "study/statistics.h"

namespace fathom::study {
namespace {

model::DialCurve measure(const Subject& mod, const Subject* dense, const std::vector<Subject>& rivals, const HeldOut& text, std::vector<Task> tasks = {}, std::optional<BenchWork> speed = {}) {
  return measure_curve(mod, dense, rivals, text, {.dials = {1, 0.8, 0.7, 0.6}, .tasks = std::move(tasks), .speed = std::move(speed), .progress = {}});
}

// Per document the sum of its tokens' losses, token by token.
std::vector<UnitSum> sums(const Subject& s, const HeldOut& text, const infer::RoutingPolicy& policy) {
  std::vector<UnitSum> out(text.units);
  for (const Window& w : text.windows) {
    const infer::DocumentScore score = infer::score_document(*s.engine, w.tokens, {.policy = policy});
    for (size_t t = 0; t + 1 < w.tokens.size(); ++t) out[w.unit].nll += score.nll[t], out[w.unit].tokens += 1;
  }
  return out;
}

TEST(DialCurve, LossesAndPairedDifferences) {
  const TemporaryFolder folder;
  const Subject mod = sample_subject(folder, "mod", true, 1), dense = sample_subject(folder, "dense", false, 2);
  const HeldOut text = sample_text(mod, 40);
  const model::DialCurve curve = measure(mod, &dense, {}, text);
  ASSERT_EQ(curve.points.size(), 4u);
  EXPECT_EQ(curve.tokens, text.predicted);
  const auto policy = [&](double dial) { return infer::RoutingPolicy::at_dial(mod.engine->config(), mod.folder->dial(), dial); };
  const std::vector<UnitSum> full = sums(mod, text, policy(1)), of_dense = sums(dense, text, infer::RoutingPolicy::full(dense.engine->config()));
  for (const model::CurvePoint& p : curve.points) {
    EXPECT_EQ(p.loss.value, evaluate(mod, text, infer::Rule::causal, p.dial).loss());
    const std::vector<UnitSum> here = sums(mod, text, policy(p.dial));
    // Student's t over documents, written out: the linearised variance of a ratio of sums.
    for (const auto& [other, found] : {std::pair(&full, p.over_full), {&of_dense, p.over_dense}}) {
      double d = 0, tokens = 0, squares = 0;
      for (size_t u = 0; u < here.size(); ++u) d += here[u].nll - (*other)[u].nll, tokens += static_cast<double>(here[u].tokens);
      const double mean = d / tokens, n = static_cast<double>(here.size());
      for (size_t u = 0; u < here.size(); ++u) squares += std::pow(here[u].nll - (*other)[u].nll - mean * static_cast<double>(here[u].tokens), 2);
      EXPECT_NEAR(found.value, mean, 1e-9) << p.dial;
      EXPECT_NEAR(found.half, 2.262 * std::sqrt(n / (n - 1) * squares) / tokens, 1e-9) << p.dial;
    }
  }
  EXPECT_EQ(curve.points[0].over_full, (model::Estimate{0, 0}));
  ASSERT_TRUE(curve.dense);
  EXPECT_EQ(curve.dense->over_dense.value, 0);
  EXPECT_EQ(curve.dense->over_full.value, -curve.points[0].over_dense.value);
  EXPECT_LT(curve.points[3].block_fraction, curve.points[2].block_fraction);
  EXPECT_GT(curve.points[0].block_fraction, 1) << "routers are paid for";
}

TEST(DialCurve, KeysAndValuesAreThoseThatSequencesHold) {
  const TemporaryFolder folder;
  const Subject mod = sample_subject(folder, "mod", true, 1, [](model::ModelConfig& c) { c.routing.forced_positions = 2; }), kept = sample_subject(folder, "kept", true, 1, [](model::ModelConfig& c) { c.routing.kv = routing::KvPolicy::keep; });
  for (const Subject* s : {&mod, &kept}) {
    const HeldOut text = sample_text(*s, 40);
    const model::DialCurve curve = measure(*s, nullptr, {}, text);
    for (const model::CurvePoint& p : curve.points) {
      double bytes = 0, tokens = 0;
      const infer::RoutingPolicy policy = infer::RoutingPolicy::at_dial(s->engine->config(), s->folder->dial(), p.dial);
      for (const Window& w : text.windows) {
        infer::Sequence sequence = s->engine->new_sequence();
        const infer::WorkItem item{.sequence = &sequence, .tokens = w.tokens, .policy = &policy};
        s->engine->forward({&item, 1});
        bytes += static_cast<double>(sequence.slot_bytes()), tokens += static_cast<double>(w.tokens.size());
      }
      EXPECT_EQ(p.kv_bytes, bytes / tokens) << s->name << " " << p.dial;
      EXPECT_EQ(p.kv_bytes < curve.points[0].kv_bytes, s == &mod && p.dial < 1);
    }
    EXPECT_DOUBLE_EQ(curve.points[0].kv_bytes, 4 * 2 * 8 * 4);  // blocks, keys and values, head width, f32
    EXPECT_DOUBLE_EQ(curve.points[2].kv_bytes_expected, s == &mod ? 4 * 2 * 8 * (2 + 0.25 + 0.5) : 4 * 2 * 8 * 4);
  }
}

TEST(DialCurve, ARivalHasItsPlaceOnTheCurve) {
  const TemporaryFolder folder;
  const Subject mod = sample_subject(folder, "mod", true, 1);
  std::vector<Subject> rivals = {sample_subject(folder, "thin", false, 3, [](model::ModelConfig& c) { c.num_hidden_layers = 3; }), sample_subject(folder, "same", false, 4)};
  const HeldOut text = sample_text(mod, 40);
  const model::DialCurve curve = measure(mod, nullptr, rivals, text);
  ASSERT_EQ(curve.rivals.size(), 2u);
  EXPECT_EQ(curve.rivals[0].block_fraction, 0.75) << "of the routed model's four blocks";
  EXPECT_EQ(curve.rivals[1].block_fraction, 1);
  // Between the two dials around it.
  for (const model::CurvePoint& r : curve.rivals) {
    size_t i = 0;
    while (curve.points[i + 1].block_fraction > r.block_fraction) ++i;
    const model::CurvePoint &high = curve.points[i], &low = curve.points[i + 1];
    const double t = (r.block_fraction - low.block_fraction) / (high.block_fraction - low.block_fraction);
    EXPECT_NEAR(r.curve_minus_this.value, t * high.loss.value + (1 - t) * low.loss.value - r.loss.value, 1e-9) << r.name;
    EXPECT_GT(r.curve_minus_this.half, 0);
  }
  rivals = {sample_subject(folder, "least", false, 3, [](model::ModelConfig& c) { c.num_hidden_layers = 1; })};
  EXPECT_FALSE(measure(mod, nullptr, rivals, text).rivals[0].curve_minus_this.known()) << "the curve does not reach so far down";
}

TEST(DialCurve, TasksArePairedOverItems) {
  const TemporaryFolder folder;
  const Subject mod = sample_subject(folder, "mod", true, 1), dense = sample_subject(folder, "dense", false, 2);
  Task task{.name = "own", .path = "own", .hash = "", .continuations = false, .items = {}};
  for (int i = 0; i < 25; ++i) task.items.push_back({kText.substr(static_cast<size_t>(i) * 7, 30), {"sea", "the window", "moon"}, i % 3});
  Task other = task;
  other.name = "other", other.items.resize(10);
  const model::DialCurve curve = measure(mod, &dense, {}, sample_text(mod, 40), {task, other});
  for (const model::CurvePoint& p : curve.points) {
    ASSERT_EQ(p.tasks.size(), 2u);
    const TaskResult here = evaluate_task(mod, task, {.dial = p.dial}), there = evaluate_task(dense, task);
    double right = 0, difference = 0;
    for (size_t i = 0; i < 25; ++i) right += here.right[i], difference += here.right[i] - static_cast<int>(there.right[i]);
    EXPECT_DOUBLE_EQ(p.tasks[0].accuracy, right / 25);
    EXPECT_DOUBLE_EQ(p.tasks[0].error, std::sqrt(right / 25 * (1 - right / 25) / 24));
    EXPECT_DOUBLE_EQ(p.tasks[0].over_dense.value, difference / 25);
    const model::CurveTask mean = p.mean();
    EXPECT_DOUBLE_EQ(mean.accuracy, (p.tasks[0].accuracy + p.tasks[1].accuracy) / 2);
    EXPECT_DOUBLE_EQ(mean.error, std::hypot(p.tasks[0].error, p.tasks[1].error) / 2);
    EXPECT_DOUBLE_EQ(mean.over_dense.half, std::hypot(p.tasks[0].over_dense.half, p.tasks[1].over_dense.half) / 2);
  }
}

// What was kept of a text, a model and its tasks is taken for these alone, and costs no forward.
TEST(DialCurve, WhatWasMeasuredIsMeasuredOnce) {
  const TemporaryFolder folder, kept;
  const Subject mod = sample_subject(folder, "mod", true, 1), dense = sample_subject(folder, "dense", false, 2), changed = sample_subject(folder, "changed", true, 3);
  Task task{.name = "own", .path = "own", .hash = "1", .continuations = false, .items = {}};
  for (int i = 0; i < 25; ++i) task.items.push_back({kText.substr(static_cast<size_t>(i) * 7, 30), {"sea", "the window", "moon"}, i % 3});
  const HeldOut text = sample_text(mod, 40), other = sample_text(mod, 30);
  const auto curve = [&](const Subject& of, const HeldOut& on, const std::string& folder_of_kept) {
    return measure_curve(of, &dense, {}, on, {.dials = {1, 0.7}, .tasks = {task}, .kept = folder_of_kept, .progress = {}}).to_json();
  };
  const Json plain = curve(mod, text, "");
  EXPECT_EQ(curve(mod, text, kept.path()), plain);
  const int64_t rows = mod.engine->counters().rows, of_dense = dense.engine->counters().rows;
  EXPECT_EQ(curve(mod, text, kept.path()), plain);
  EXPECT_EQ(mod.engine->counters().rows, rows);
  EXPECT_EQ(dense.engine->counters().rows, of_dense);
  EXPECT_EQ(curve(mod, other, kept.path()), curve(mod, other, ""));
  EXPECT_EQ(curve(changed, text, kept.path()), curve(changed, text, ""));
}

TEST(DialCurve, SpeedsStandBesideWhatCostsAllow) {
  const TemporaryFolder folder;
  const Subject mod = sample_subject(folder, "mod", true, 1), dense = sample_subject(folder, "dense", false, 2);
  const std::vector<int32_t> ids = mod.tokenizer->encode(kText);
  const HeldOut text = cut_windows(std::vector(10, std::vector(ids.begin(), ids.begin() + 40)), 40);
  const BenchWork work{.prompt = 40, .generate = 6, .depth = 8, .batches = {1, 3}, .rounds = 2};
  int64_t turns = 0, of = 0;
  CurveOptions options{.dials = {1, 0.6}, .speed = work};
  options.progress.begin = [&](const std::string& what, const std::string&, int64_t total) { turns = 0, of = total; };
  options.progress.update = [&](int64_t done, const std::string&) { turns = done; };
  const model::DialCurve curve = measure_curve(mod, &dense, {}, text, options);
  EXPECT_EQ(turns, of);
  EXPECT_EQ(of, 3 * 3 * 3) << "rounds, models, works";
  for (const model::CurvePoint* p : {&curve.points[0], &curve.points[1], &*curve.dense}) {
    ASSERT_EQ(p->speeds.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      const model::CurveSpeed& s = p->speeds[i];
      EXPECT_EQ(s.batch, i == 2 ? 3 : static_cast<int64_t>(i));
      EXPECT_LE(s.slowest, s.tokens_per_second);
      EXPECT_GE(s.fastest, s.tokens_per_second);
      EXPECT_GT(s.over_full * s.over_dense, 0);
    }
  }
  for (const model::CurveSpeed& s : curve.points[0].speeds) EXPECT_EQ(s.over_full * s.full_allows, 1);
  for (const model::CurveSpeed& s : curve.dense->speeds) EXPECT_EQ(s.over_dense * s.dense_allows, 1);
  // The prompt is the text's one window, round after round: its FLOPs at both dials are those of its own decisions.
  const auto flops = [&](double dial) {
    const infer::RoutingPolicy policy = infer::RoutingPolicy::at_dial(mod.engine->config(), mod.folder->dial(), dial);
    return model::forward_cost(mod.engine->config(), 40, infer::score_document(*mod.engine, text.windows[0].tokens, {.policy = policy}).decisions, 1).flops();
  };
  EXPECT_DOUBLE_EQ(curve.points[1].speeds[0].full_allows, flops(1) / flops(0.6));
  options.progress.update = [&](int64_t done, const std::string&) { if (of == 27 && done == 5) throw Interrupted("enough"); };
  EXPECT_THROW(measure_curve(mod, &dense, {}, text, options), Interrupted);
}

model::DialCurve drawn(std::vector<std::array<double, 2>> rises) {
  model::DialCurve curve;
  double dial = 1;
  for (const auto& [full, dense] : rises) {
    model::CurvePoint p;
    p.dial = dial;
    p.loss = {2, 0.1}, p.over_full = {full, 0.5}, p.over_dense = {dense, 0.5};
    curve.points.push_back(p), dial -= 0.1;
  }
  return curve;
}

TEST(DialCurve, TheLowestDialWithinABoundIsPicked) {
  model::DialCurve curve = drawn({{0, 0.03}, {0.01, 0.04}, {0.05, 0.08}, {0.02, 0.05}, {0.3, 0.33}});
  const auto dial = [&](LossBound bound) { const model::CurvePoint* p = pick(curve, bound); return p ? p->dial : 0; };
  EXPECT_DOUBLE_EQ(dial({0.02, false}), 0.7) << "the lowest one, though a higher one is beyond";
  EXPECT_DOUBLE_EQ(dial({0.01, true}), 0.7) << "1 % of 2 nats";
  EXPECT_DOUBLE_EQ(dial({0.009, true}), 0.9);
  EXPECT_DOUBLE_EQ(dial({0, false}), 0) << "dial 1 is no cheaper dial";
  curve.dense = model::CurvePoint();
  curve.dense->loss = {4, 0.1};
  EXPECT_DOUBLE_EQ(dial({0.01, true}), 0.9) << "1 % of 4 nats over the dense model";
  EXPECT_DOUBLE_EQ(dial({0.02, false}), 0) << "none is that near";
}

TEST(DialCurve, ThePageHoldsItAll) {
  const TemporaryFolder folder;
  const Subject mod = sample_subject(folder, "mod", true, 1), dense = sample_subject(folder, "dense", false, 2);
  const HeldOut text = sample_text(mod, 40);
  model::DialCurve curve = measure(mod, &dense, {}, text);
  curve.model = "<b>a & b</b>", curve.text = "</p><script>alert(1)</script>";
  const std::string page = curve_page(curve, {study_depth(mod, text, 0.7), study_depth(mod, text, 0.6)}, "Dial <0.7>", "fathom dial <x>");
  EXPECT_EQ(page.find("<b>a"), std::string::npos);
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  EXPECT_EQ(page.find("<x>"), std::string::npos);
  for (const char* words : {"Loss against block fraction", "Loss over dial 1, paired", "Keys and values of a token", "Who goes how deep", "Dial &lt;0.7&gt;", "a &amp; b"}) EXPECT_NE(page.find(words), std::string::npos) << words;
  EXPECT_EQ(page.find("× dial 1"), std::string::npos) << "no speed was measured";
}

}  // namespace
}  // namespace fathom::study
