// The training configuration: one JSON file with comments, every field of which the command line can override. The
// model's shape stands in it as in config.json (Hugging Face keys and the "fathom" object); what belongs to training
// alone (data, budget, optimizer, schedule, warm-up of the capacity, intervals) is here. One type, one place for defaults.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "model/config.h"

namespace fathom::train {

enum class Budget { steps, tokens, flops };
enum class ScheduleKind { constant, linear, cosine, wsd };
enum class Curve { linear, cosine };
enum class Precision { automatic, f32, bf16 };  // automatic: what is measured to be faster when the run starts
enum class Route { automatic, mkl, onednn };

extern const std::vector<std::pair<const char*, ScheduleKind>> kScheduleNames;
extern const std::vector<std::pair<const char*, Curve>> kCurveNames;
extern const std::vector<std::pair<const char*, Precision>> kPrecisionNames;
extern const std::vector<std::pair<const char*, Route>> kRouteNames;

// The auxiliary losses that "losses" may weigh.
const std::vector<std::string>& loss_names();

struct DataConfig {
  std::string dataset;            // a folder made by `fathom data prepare`; or
  std::vector<std::string> text;  // files and folders, prepared into RUN/data when the run starts
  std::string tokenizer;          // of `text`: a tokenizer.json; "" = one is trained on the text
  int64_t vocab_size = 4096;      // of a trained tokenizer
  std::string field = "text";     // of .jsonl lines
  double validation_share = 0.02;
  bool repair_utf8 = false;       // else broken UTF-8 is an error
  bool operator==(const DataConfig&) const = default;
};

struct OptimizerConfig {  // AdamW (Loshchilov & Hutter 2019); decay on matrices only
  double lr = 3e-3;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;              // global norm of all gradients; 0 = off
  double router_lr_scale = 1.0;   // of routers and predictors
  bool operator==(const OptimizerConfig&) const = default;
};

// A length in steps, or as a share of the whole run.
struct Span {
  std::optional<int64_t> steps;
  double share = 0;
  int64_t of(int64_t total) const;  // steps in a run of `total`, at most total
  bool operator==(const Span&) const = default;
};

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::cosine;
  Span warmup = {{}, 0.05};
  double final_ratio = 0.1;       // last learning rate over the highest
  Span decay = {{}, 0.2};         // of wsd: the last part of the run
  bool operator==(const ScheduleConfig&) const = default;
};

struct RouterTraining {
  Span capacity_warmup;           // capacities go from `capacity_start` to their own over the first steps; 0 = none
  double capacity_start = 1.0;
  Curve capacity_curve = Curve::linear;
  double noise = 0;               // standard deviation of normal noise on the scores that select; off at evaluation
  double quantile_decay = 0.99;   // of the running quantile of selection "threshold"
  double straight_through_tau = 1.0;  // gate "hard": the gradient is that of sigmoid(r / tau)
  bool operator==(const RouterTraining&) const = default;
};

struct IntervalConfig {
  int64_t log_steps = 10;
  int64_t eval_steps = 0;         // 0 = at the end only
  int64_t eval_tokens = 32768;    // of the validation split
  int64_t final_eval_tokens = 65536;   // the same for the figures at the end
  int64_t checkpoint_steps = 0;   // 0 = by seconds only
  double checkpoint_seconds = 300;  // 0 = by steps only
  int64_t keep_last = 2;          // checkpoints; the best by validation loss under the causal rule stays besides
  bool operator==(const IntervalConfig&) const = default;
};

struct CalibrationConfig {
  int64_t tokens = 32768;         // of the validation split, spread over its documents
  std::vector<double> dials;      // block fractions; empty = a default grid
  bool operator==(const CalibrationConfig&) const = default;
};

struct TrainConfig {
  model::ModelConfig model;       // vocab_size 0 = the tokenizer's
  DataConfig data;
  int64_t sequence_length = 256;  // T
  int64_t batch_size = 16;        // B, rows of one forward
  int64_t accumulation = 1;       // forwards of one step
  Budget budget = Budget::steps;
  double amount = 0;              // steps, tokens or FLOPs
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  RouterTraining router;
  std::map<std::string, double> losses;  // weights of auxiliary losses by name (nn/transformer.h); one that the causal
                                         // rule needs has a default
  IntervalConfig interval;
  CalibrationConfig calibration;
  Precision precision = Precision::automatic;
  Route f32_route = Route::automatic;    // of f32 matrix products
  uint64_t seed = 0;
  int64_t threads = 0;            // 0 = all cores that this process may use
  bool operator==(const TrainConfig&) const = default;

  // `where` names the file in errors. Unknown keys are refused.
  static TrainConfig from_json(const Json& json, const std::string& where);
  Json to_json() const;           // every field, readable by from_json
};

// Reads a configuration file, applies overrides (overrides.h) before it is checked, and makes the paths in it, which are
// relative to the working folder, absolute. A fault of an override is a UsageError that names its flag.
TrainConfig load_config(const std::string& path, const std::vector<std::pair<std::string, std::string>>& overrides);

// Names of the fields in which two configurations differ: what a resume refuses. Fields that change nothing in what is
// computed (how often is logged and saved, how many checkpoints stay) are left out, and so is where the data lies: what
// it is, is held by its manifest's hash.
std::vector<std::string> differences(const TrainConfig& a, const TrainConfig& b);
// UserError where a run that began with `before` is to go on with `now` and they differ: the fields, and both values of the first.
void require_same(const TrainConfig& before, const TrainConfig& now, const std::string& run);

}  // namespace fathom::train
