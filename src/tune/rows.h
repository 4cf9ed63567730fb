// The rows of a run in their order: those of its text, and between them, evenly, the share of rows that are other text, which count less in the losses and
// as much in the budget.
#pragma once
#include <memory>

#include <ATen/core/Tensor.h>

#include "train/corpus.h"
#include "train/loader.h"
#include "tune/config.h"

namespace fathom::tune {

class Rows {
 public:
  // From row `first` of the run on. `other` is null where the run has no other text.
  Rows(const TuneConfig& config, const train::Corpus& corpus, const train::Corpus* other, int64_t first);

  struct Some {
    train::Batch batch;
    at::Tensor weights;   // [B·T] of targets; undefined where all count 1
    double targets = 0;   // that count, by their weights
  };
  Some next();

  // Where the loader of the text stands when the run has handed out `rows` rows.
  static train::LoaderState state_after(const TuneConfig& config, const train::Corpus& corpus, int64_t rows);

 private:
  static int64_t others_before(const TuneConfig& config, int64_t row);
  const TuneConfig& config_;
  int64_t row_;
  std::unique_ptr<train::Loader> text_, other_;
};

}  // namespace fathom::tune
