// A run of tuning from a converted model to a better one:
//   RUN/config.json       the whole configuration
//   RUN/self.jsonl        text that the teacher wrote, where it was asked for; RUN/data/ the prepared dataset, when text was given; RUN/other/ that of other text
//   RUN/1-routers/ …      the stages (tune/stage.h)
//   RUN/artifact/         what was tuned and nothing else, to be laid over the dense source (convert/artifact.h)
//   RUN/model/            the result, with its dial calibrated anew
//   RUN/summary.json      what was done and how it stands
// Deterministic given the configuration, the threads and the machine; a run that was killed and resumed computes the same bits.
#pragma once
#include <functional>
#include <string>

#include "tune/config.h"
#include "tune/stage.h"

namespace fathom::tune {

struct RunOptions {
  std::string run = {};             // the folder
  bool resume = false;              // go on with it
  std::function<bool()> stop = {};  // asked after every step
  std::function<void(size_t stage, int64_t step, nn::Transformer&)> after_step = {};  // for tests
};

// Returns the summary; of a run that has finished, its summary. A new run that fails before its first step leaves nothing but text that was prepared.
Json tune(const TuneConfig& config, const RunOptions& options);

// The configuration that RUN was started with.
TuneConfig config_of_run(const std::string& run);

// A summary as lines for a person.
std::string describe_summary(const Json& summary);

}  // namespace fathom::tune
