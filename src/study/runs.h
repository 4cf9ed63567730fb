// What the folder of a training run says about it: summary.json, metrics.jsonl (one object a line, with "type", "step",
// "flops", "seconds", "loss") and model/. Fields that are absent stay NaN and lines of other types are passed over, so that
// a report can be made of runs of other versions, and of a run that is still going on.
#pragma once
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace fathom::study {

struct Curve {                // one point per line of metrics.jsonl
  std::vector<double> flops, seconds, loss;
  bool empty() const { return loss.empty(); }
};

struct RunWarning {           // what the trainer warned of
  std::string text;
  double step = NAN;
};

struct RunRecord {
  std::string name, path, model;    // `model`: its model folder
  std::string dataset;              // what it was trained on: RUN/data or its configuration's data.dataset; "" if unknown
  std::string precision;            // that it was trained in: "f32", "bf16"; "" if unknown
  double steps = NAN, tokens = NAN, flops = NAN, seconds = NAN;  // of training
  Curve train;                      // loss of training steps, smoothed
  Curve held_out;                   // loss on validation under the causal rule ("eval" and "final" lines)
  std::vector<RunWarning> warnings;  // in order; the same one may come again and again
};

// Refuses a folder that holds no model itself; says how to finish it when it is that of a run.
void require_finished(const std::string& path);

// UserError when `path` has no model folder or a file in it is broken. A model folder alone is a run without a record.
RunRecord read_run(const std::string& path);

// Whether a dataset folder is the one that the run was trained on, by its place or by its manifest (the same text, options
// and tokenizer give the same one): then its validation split is text that the run was not trained on.
bool trained_on(const RunRecord& run, const std::string& dataset);

// Tokens of a training row of the run that a model folder belongs to: RUN/model, where RUN has config.json and metrics.jsonl.
std::optional<int64_t> trained_context(const std::string& model_folder);

// The window that quality is measured in when nobody says: the trained one, else the model's, at most 1,024; the least
// over the models. Past the trained length neither weights nor thresholds have been fitted.
int64_t default_context(const std::vector<std::string>& model_folders, const std::vector<int64_t>& max_positions);

}  // namespace fathom::study
