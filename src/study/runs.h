// What the folder of a training run says about it: summary.json, metrics.jsonl (one object a line, with "type", "step",
// "flops", "seconds", "loss") and model/. Fields that are absent stay NaN and lines of other types are passed over, so that
// a report can be made of runs of other versions, and of a run that is still going on.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "core/json.h"

namespace fathom::study {

struct Curve {                // one point per line of metrics.jsonl
  std::vector<double> flops, seconds, loss;
  bool empty() const { return loss.empty(); }
};

struct RunRecord {
  std::string name, path, model;    // `model`: its model folder
  std::string dataset;              // what it was trained on: RUN/data or its configuration's data.dataset; "" if unknown
  double steps = NAN, tokens = NAN, flops = NAN, seconds = NAN;  // of training
  Curve train;                      // loss of training steps, smoothed
  Curve held_out;                   // loss on validation under the causal rule ("eval" and "final" lines)
  std::vector<std::string> warnings;
};

// UserError when `path` has no model folder or a file in it is broken. A model folder alone is a run without a record.
RunRecord read_run(const std::string& path);

}  // namespace fathom::study
