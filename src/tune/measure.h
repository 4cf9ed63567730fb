// How the network stands on held-out text under the causal rule: loss beside the teacher's, at several block fractions.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "data/shards.h"
#include "nn/transformer.h"
#include "routing/dial.h"
#include "train/loader.h"
#include "tune/teacher.h"

namespace fathom::tune {

struct Standing {
  double dial = 1;                  // asked for
  double block_fraction = 1;        // expected at the shares that came out
  double loss = 0;                  // nats per target
  double kl = 0, agreement = 0;     // from the teacher, of its top; share of targets where the likeliest token is the same. NaN without a teacher
  std::vector<double> shares;       // [cuts]
  Json to_json() const;
};

class Measure {
 public:
  // `tokens` of the split in rows of T. `teacher` may be nullptr.
  Measure(nn::Transformer& network, const data::Dataset& validation, int64_t tokens, int64_t row_tokens, int64_t rows_at_once, nn::Compute compute, Teacher* teacher);

  // Without `beside_teacher` there is no divergence from it: that takes all logits.
  Standing at(double dial, const std::vector<float>& thresholds, bool beside_teacher = true);
  // Shares of the cuts [cuts] where all `thresholds` are moved by the same amount until the block fraction is the dial.
  std::vector<double> shares_at(double dial, const std::vector<float>& thresholds);
  double teacher_loss() const { return teacher_loss_; }  // NaN without a teacher
  int64_t targets() const { return targets_; }
  double forced_share() const { return forced_; }        // of tokens that run everything whatever is decided: the first of a document

 private:
  struct Part {
    nn::Batch batch;
    nn::Teacher teacher;
  };
  nn::Transformer& network_;
  int64_t row_tokens_;
  nn::Compute compute_;
  std::vector<Part> parts_;
  double teacher_loss_ = 0, forced_ = 0;
  int64_t targets_ = 0;
};

// "thresholds of 0.75: 75.2 % of the blocks, loss 3.421 (+0.153), 68 % agree".
std::string describe(const Standing& standing, double teacher_loss);

}  // namespace fathom::tune
