// From logits to the next id. Deterministic: the n-th draw of a stream is a function of (seed, n) and the logits.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "core/random.h"
#include "kernels/kernels.h"

namespace fathom::infer {

// Applied in this order: logit bias, penalties, temperature, top-k, typical, top-p, min-p (each on what the former left).
struct SamplerOptions {
  double temperature = 1.0;         // 0 to limits::kTemperature; 0: greedy, ties to the lowest id
  int64_t top_k = 0;                // 0: off
  double top_p = 1.0;               // (0, 1]; 1: off
  double typical_p = 1.0;           // (0, 1]; keeps the ids whose surprise is nearest to the expected one, up to this share (Meister et al. 2022); 1: off
  double min_p = 0.0;               // [0, 1]; keeps ids of at least min_p × the greatest probability; 0: off
  double repetition_penalty = 1.0;  // limits::kRepetitionPenaltyLow to …High; logits of ids seen are divided by it (multiplied when negative); 1: off
  double presence_penalty = 0;      // ±limits::kPenalty; taken from the logits of ids that were sampled before
  double frequency_penalty = 0;     // the same, times as often as they were
  std::map<int32_t, float> logit_bias = {};  // added to an id's logit; −∞ forbids it
  uint64_t seed = 0;
  void validate() const;            // UserError names the field
};

class Sampler {
 public:
  // `stream` tells apart the texts that share a seed.
  explicit Sampler(const SamplerOptions& options, uint64_t stream = 0);
  // The ids of the prompt, for the repetition penalty; what is sampled is known.
  void observe(std::span<const int32_t> ids);
  // Draws the next id. Logits of NaN or −∞ are never drawn; UserError when nothing else is left.
  int32_t sample(std::span<const float> logits, const kernels::Kernels& kernels = kernels::chosen());
  // The distribution that sample() draws from, by rank (probability descending, ties to the lower id).
  struct Candidate {
    int32_t id;
    float probability;
  };
  std::vector<Candidate> distribution(std::span<const float> logits, const kernels::Kernels& kernels = kernels::chosen()) const;

 private:
  // The same without the order that only a reader needs: by id, or by rank where top-k or top-p had to rank. Returns the
  // sum of the weights, which are relative to the likeliest id's.
  double candidates(std::span<const float> logits, const kernels::Kernels& kernels, std::vector<Candidate>& out) const;
  SamplerOptions options_;
  Random random_;
  std::vector<int32_t> seen_;        // sorted, unique
  std::map<int32_t, int64_t> sampled_;  // how often
  std::vector<Candidate> scratch_;
};

// The log-probability of an id and of the `top` likeliest (descending, ties to the lower id) as the model gives them, before
// anything that sampling does to them.
struct LogProbs {
  float chosen = 0;
  std::vector<std::pair<int32_t, float>> top;
};
LogProbs log_probs(std::span<const float> logits, int32_t id, int64_t top, const kernels::Kernels& kernels = kernels::chosen());

}  // namespace fathom::infer
