// How far a changed model is from its original, token by token on the same windows, each under its own causal rule: losses of both,
// the Kullback–Leibler divergence of the result's distribution from the original's, and how often both would say the same.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/json.h"
#include "model/cost.h"
#include "study/evaluate.h"

namespace fathom::study {

// Σ p (log p − log q) in nats, p and q the softmax of two rows of logits of one length; in f64, 0 for equal rows. NaN or an
// infinity in either gives NaN.
double kl_divergence(std::span<const float> original, std::span<const float> result);

struct Divergence {
  struct Side {
    double nll = 0;                   // sum, nats
    model::ForwardCost spent, dense;  // of all windows
    double perplexity(int64_t tokens) const;
    double block_fraction() const;
  };
  Side original, result;
  int64_t tokens = 0, windows = 0, context = 0;  // predicted tokens
  double kl = 0;                      // sum, nats
  int64_t agreed = 0;                 // tokens at which the most likely id is the same
  std::vector<UnitSum> units;         // nll: the divergence (HeldOut::units)
  bool by_stretch = false;
  double seconds = 0;

  double mean_kl() const { return kl / static_cast<double>(tokens); }
  double agreement() const { return static_cast<double>(agreed) / static_cast<double>(tokens); }
  Interval kl_interval() const;       // 95 % over units
  Json to_json() const;
};

// Every window by both engines, `chunk` tokens at a time (whose logits are all that is kept). Both at their default dials. `progress` gets
// tokens done and the mean divergence; it may throw. UserError where the models have vocabularies of different size or a logit is not finite.
Divergence diverge(const Subject& original, const Subject& result, const HeldOut& text, const EvaluateProgress& progress = {}, int64_t chunk = 64);

}  // namespace fathom::study
