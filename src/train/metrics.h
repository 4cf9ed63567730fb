// What a run says about itself, for machines: RUN/metrics.jsonl, one object a line, and TensorBoard event files beside it
// with the same figures. Every line carries "type" ("train", "eval", "warning") and "step"; a resumed run first drops
// the lines past its checkpoint, so that the file reads as if nothing had happened.
#pragma once
#include <memory>
#include <string>

#include "core/json.h"
#include "formats/tensorboard.h"

namespace fathom::train {

class Metrics {
 public:
  // `step` > 0: a resumed run that goes on after that step, and keeps the lines up to it; 0 keeps none.
  Metrics(const std::string& run, int64_t step);
  ~Metrics();
  // Appends a line and writes every number in it as a scalar: "loss" of type "train" becomes "train/loss", element 2 of
  // the array "share" "train/share/2"; the text of a warning is one there too. Both files have it when this returns.
  void write(const Json& line);
  void histogram(const std::string& tag, int64_t step, std::span<const float> values);
  void flush();

 private:
  std::string path_;
  int fd_ = -1;
  formats::EventWriter events_;
};

// Keeps the lines whose "step" is at most `step`, drops the rest and a last line that was not finished.
void truncate_metrics(const std::string& path, int64_t step);

}  // namespace fathom::train
