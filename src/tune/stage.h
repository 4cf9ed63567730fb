// One stage of tuning: rows → teacher → network → losses → gradients → AdamW, with checkpoints from which it goes on to the bit.
//   RUN/1-routers/checkpoints/…, metrics.jsonl, events…   as a run of training has them (train/checkpoint.h, train/metrics.h)
//   RUN/1-routers/tuned.safetensors                       what it trained, once it is done (convert/tuned.h)
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "convert/tuned.h"
#include "core/progress.h"
#include "model/folder.h"
#include "train/computing.h"
#include "train/corpus.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "tune/config.h"
#include "tune/measure.h"
#include "tune/rows.h"
#include "tune/teacher.h"

namespace fathom::tune {

// What all stages of a run share.
struct Shared {
  const TuneConfig& config;
  std::string run;
  std::shared_ptr<const model::ModelFolder> student;
  Teacher* teacher = nullptr;
  const train::Corpus& corpus;
  const train::Corpus* other = nullptr;
  std::string identity;               // of model and teacher: a resume must have the same
  std::function<bool()> stop = {};    // asked after every step: true saves, then throws Interrupted
  std::function<void(size_t stage, int64_t step, nn::Transformer&)> after_step = {};  // for tests
};

std::string stage_folder(const Shared& shared, size_t stage);  // RUN/1-routers

class Stage {
 public:
  // Begins stage `index`, with what the stages before it tuned in place, or goes on from its last checkpoint.
  Stage(const Shared& shared, size_t index, const std::vector<convert::Tuned>& before);
  // The steps that are left; writes and returns what was tuned. `standings`: how it stands at the end, at the ends and the middle of the range.
  convert::Tuned train();
  const std::vector<Standing>& standings() const { return standings_; }
  std::vector<double> shares_at_middle();  // of the range; empty where nothing decides
  double teacher_loss() const { return measure_->teacher_loss(); }
  double seconds() const { return now_.progression.seconds; }  // of all its steps

 private:
  using Clock = std::chrono::steady_clock;
  void step();
  void log(const std::vector<nn::ForwardResult>& results, double target, double norm);
  void evaluate();
  void save();
  void warn(const std::string& key, const std::string& text);
  // Names cuts that all tokens, or none but the forced ones (a share of `forced`), reach in each of the looks, [cuts] shares.
  void warn_of_collapse(const std::vector<std::vector<double>>& looks, double forced, const std::string& at_every, const std::string& at_any);
  convert::Tuned tuned() const;
  double noise() const;

  const Shared& shared_;
  const StageConfig& stage_;
  std::string folder_;
  int64_t first_row_ = 0;  // of the run's rows
  train::Checkpoint now_;
  train::Computing computing_;
  std::unique_ptr<nn::Transformer> network_;
  std::unique_ptr<train::AdamW> optimizer_;
  std::unique_ptr<Rows> rows_;
  std::unique_ptr<train::Metrics> metrics_;
  std::unique_ptr<Measure> measure_;
  std::unique_ptr<Progress> progress_;
  std::vector<Standing> standings_;
  std::set<std::string> warned_;
  Clock::time_point saved_at_;
  train::Progression logged_;
};

}  // namespace fathom::tune
