// A training run from a configuration to a model folder:
//   RUN/config.json        the whole configuration, defaults and overrides included
//   RUN/data/              the prepared dataset, when text was given
//   RUN/checkpoints/       see checkpoint.h
//   RUN/metrics.jsonl, RUN/events.out.tfevents…   see metrics.h
//   RUN/model/             the result, a Hugging Face folder with tokenizer and dial
//   RUN/summary.json       parameters, FLOPs, seconds, losses under both rules
// A step: loader → network → loss → gradients → AdamW. Deterministic given the configuration, the threads and the machine;
// a run that was killed and resumed computes the same bits as one that was not.
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "train/checkpoint.h"
#include "train/config.h"

namespace fathom::train {

struct RunOptions {
  std::string run = {};                   // the folder
  bool resume = false;                    // go on from its last checkpoint (or start, if it has none yet)
  std::function<bool()> stop = {};             // asked after every step: true saves, then throws Interrupted
  std::function<void(int64_t step, double loss, nn::Transformer&)> after_step = {};  // for tests
};

// Trains, calibrates, evaluates, writes RUN/model and RUN/summary.json; returns the summary. Resuming a run that has
// finished returns its summary. A new run that fails before its first step is done leaves nothing behind but the
// text that it prepared.
Json train(const TrainConfig& config, const RunOptions& options);

// The configuration that RUN was started with.
TrainConfig config_of_run(const std::string& run, const std::vector<std::pair<std::string, std::string>>& overrides = {});

// A summary as lines for a person.
std::string describe_summary(const Json& summary);

// Calibrates a checkpoint's weights and writes them as a model folder (RUN is the folder above its "checkpoints"). The run's
// dataset must be there and be the one that the checkpoint was trained on. `stop` is asked between dials: true throws
// Interrupted, and no folder is written.
Json export_checkpoint(const std::string& checkpoint, const std::string& model_folder, const std::function<bool()>& stop = {});

}  // namespace fathom::train
