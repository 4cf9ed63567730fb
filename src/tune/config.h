// What a run of tuning is told: a converted model, its dense teacher, text, the block fractions that it is to serve, and the stages. RUN/config.json holds
// all of it, so that the run can go on.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "nn/transformer.h"
#include "train/config.h"

namespace fathom::tune {

// What a stage trains besides the routers.
enum class What {
  routers,     // light paths: the backbone stays as it is, so that dial 1 stays the dense model to the bit
  adapters,    // light paths and low-rank adapters beside projections
  everything,  // every tensor
};
extern const std::vector<std::pair<const char*, What>> kWhatNames;

// Which tokens of a step reach a cut.
enum class Picks {
  threshold,  // scores above the dial's thresholds: the causal rule, with noise; a budget holds the block fraction
  topk,       // of every row as many as the dial's shares say: blocks keep their shares, there is no budget
};
extern const std::vector<std::pair<const char*, Picks>> kPicksNames;

// Where the result has the adapters.
enum class Keep {
  automatic,  // separate where the weights have fewer than eight bits, merged elsewhere
  merged,     // in the weights, which are then stored anew
  separate,   // beside the weights, which stay the source's bytes
};
extern const std::vector<std::pair<const char*, Keep>> kKeepNames;

struct StageConfig {
  What what = What::routers;
  int64_t tokens = 0;
  double lr = 3e-4;            // of light paths and, in `everything`, of all weights
  double router_lr = 3e-4;     // of routers and predictors
  double bias_lr = 3e-3;       // of their biases
  double adapter_lr = 1e-3;
  double noise = 0.5;          // scale of the logistic noise on scores at the start; 0 from four fifths of the stage on
  bool operator==(const StageConfig&) const = default;
};

struct TuneConfig {
  std::string model;                  // folder of the converted model
  std::string teacher;                // the dense model, folder or GGUF file; "" = text alone
  bool other_teacher = false;         // the teacher may be of another shape
  std::string teacher_cache;          // folder that keeps what the teacher said; "" = it is asked every time
  int64_t teacher_top = 64;           // of its log-probabilities per token; 0: all logits (not cached)
  train::DataConfig data;
  std::vector<std::string> other;     // other text, of which the model is to keep less: it counts less in the losses, and as much in the budget
  double other_share = 0.5;           // of the rows
  double other_weight = 0.1;          // of their losses
  int64_t self_tokens = 0;            // text that the teacher writes, where data.text or other has "self"; 0: as many as are tuned on
  double chat_share = 0.25;           // of that text: conversations, where teacher and student have a chat template
  int64_t sequence_length = 512, batch_size = 4, accumulation = 1;
  double lowest = 0.65, highest = 0.85;   // block fractions that steps take turns over; equal: one
  std::vector<StageConfig> stages;
  nn::Lora lora;                      // of stages with adapters
  double kl_weight = 1, loss_weight = 0.1, budget_weight = 12, unit_budget_weight = 0;
  Picks picks = Picks::threshold;
  double tau = 1;                     // of the straight-through gradient
  train::OptimizerConfig optimizer = {.lr = 1, .beta1 = 0.9, .beta2 = 0.98, .weight_decay = 0, .clip = 1};
  train::ScheduleConfig schedule;
  train::IntervalConfig interval = {.log_steps = 10, .eval_steps = 0, .eval_tokens = 8192, .final_eval_tokens = 32768, .checkpoint_steps = 0, .checkpoint_seconds = 300, .keep_last = 1};
  int64_t calibration_tokens = 8192;
  Keep adapters = Keep::automatic;
  std::string type;                   // of changed matrices in the result; "" = the model's, Q8_0 where that has fewer than eight bits
  train::Precision precision = train::Precision::automatic;
  train::Route f32_route = train::Route::automatic;
  uint64_t seed = 0;
  int64_t threads = 0;

  // Keys that earlier versions did not write, with what their runs did.
  static Json once();
  static TuneConfig from_json(const Json& json, const std::string& where);
  Json to_json() const;
  double target(int64_t step) const;  // block fraction of a step: turns over the range, neighbours far apart in it
  int64_t rows_per_step() const { return batch_size * accumulation; }
  int64_t steps(size_t stage) const;  // that its tokens pay for, at least 1
};

// UserError by field: no stage, a stage that cannot be there, a range that is none.
void require_sane(const TuneConfig& config, const std::string& where);

}  // namespace fathom::tune
