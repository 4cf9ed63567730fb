// The curve of a dial: what a model with routed blocks gives and costs at every dial asked for, on one text and one set of task items under
// the causal rule, beside its dense model and static rivals. Differences are paired; speeds are measured in turns in one window, on real
// text, because drawn tokens route otherwise.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "model/curve.h"
#include "study/bench.h"
#include "study/depth.h"
#include "study/evaluate.h"
#include "study/task_eval.h"

namespace fathom::study {

// One thing after another; `update` may throw to interrupt.
struct CurveProgress {
  std::function<void(const std::string& what, const std::string& unit, int64_t total)> begin;
  std::function<void(int64_t done, const std::string& note)> update;
};

struct CurveOptions {
  std::vector<double> dials;       // falling, the first 1
  std::vector<Task> tasks = {};
  std::optional<BenchWork> speed = {};  // its texts are windows of the text when it names none
  std::string kept = {};           // folder that keeps losses and tasks as they are measured, and has those of a run that was stopped; "" = none
  CurveProgress progress = {};
};

// `dense` (may be null) and `rivals` share the tokenizer of `model`, and run at their default dials. Of the result names, quality, speed
// and thresholds are filled in; who measured where and when is the caller's to say. UserError: what the evaluations throw.
model::DialCurve measure_curve(const Subject& model, const Subject* dense, const std::vector<Subject>& rivals, const HeldOut& text, const CurveOptions& options);

// Who goes how deep at three of the options' dials below 1, the highest, the lowest and one between, on a part of the text.
std::vector<DepthStudy> depth_maps(const Subject& model, const HeldOut& text, const CurveOptions& options);

// What a loss may rise by: a share of the reference's, or nats per token.
struct LossBound {
  double value = 0;
  bool relative = false;
  double nats(double reference) const { return relative ? value * reference : value; }
};

// The lowest measured dial below 1 whose loss is at most the bound above that of the dense model, or without one of dial 1: by the differences as they are
// measured, not by the ends of their intervals. nullptr where none is.
const model::CurvePoint* pick(const model::DialCurve& curve, const LossBound& bound);

}  // namespace fathom::study
