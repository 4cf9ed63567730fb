// One training run between its start and its summary: what it holds, and what a step does. Used by trainer.cpp alone.
#pragma once
#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/progress.h"
#include "train/checkpoint.h"
#include "train/computing.h"
#include "train/corpus.h"
#include "train/evaluate.h"
#include "train/loader.h"
#include "train/metrics.h"
#include "train/trainer.h"

namespace fathom::train {

class Run {
 public:
  // Opens text and data, takes up the last checkpoint if there is one, and settles what the run computes in.
  Run(const TrainConfig& config, const RunOptions& options);
  // The steps that are left, then the model; returns the summary.
  Json train();
  int64_t step_count() const { return now_.progression.step; }

 private:
  using Clock = std::chrono::steady_clock;

  void check_identity(const Checkpoint& last) const;
  void check_progression(const std::string& checkpoint) const;
  void step();
  void update_quantiles(const std::vector<Batch>& batches, const std::vector<nn::ForwardResult>& results, const std::vector<double>& capacity);
  void log(const std::vector<Batch>& batches, const std::vector<nn::ForwardResult>& results, const std::vector<double>& capacity, double lr, double norm);
  double reach() const;
  void measure_again();
  void histograms(const std::vector<nn::ForwardResult>& results);
  void warn_of(const RouterHealth& health, const std::vector<double>& capacity);
  void evaluate();
  void save();
  Json finish();

  TrainConfig config_;
  RunOptions options_;
  Corpus corpus_;
  Checkpoint now_;
  Computing computing_;
  std::unique_ptr<nn::Transformer> network_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Evaluator> evaluator_;
  std::unique_ptr<Progress> progress_;
  std::set<std::string> warned_;
  Clock::time_point saved_at_;
  Progression logged_;              // as it was at the last log line
  double flops_per_second_ = 0;
};

}  // namespace fathom::train
