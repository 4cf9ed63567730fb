// From logits to the next id. Deterministic: the n-th draw of a stream is a function of (seed, n) and the logits.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/random.h"
#include "kernels/kernels.h"

namespace fathom::infer {

// Applied in this order: repetition penalty, temperature, top-k, top-p, min-p (each on what the former left).
struct SamplerOptions {
  double temperature = 1.0;         // 0 to limits::kTemperature; 0: greedy, ties to the lowest id
  int64_t top_k = 0;                // 0: off
  double top_p = 1.0;               // (0, 1]; 1: off
  double min_p = 0.0;               // [0, 1]; keeps ids of at least min_p × the greatest probability; 0: off
  double repetition_penalty = 1.0;  // limits::kRepetitionPenaltyLow to …High; logits of ids seen are divided by it (multiplied when negative); 1: off
  uint64_t seed = 0;
  void validate() const;            // UserError names the field
};

class Sampler {
 public:
  // `stream` tells apart the texts that share a seed.
  explicit Sampler(const SamplerOptions& options, uint64_t stream = 0);
  // The ids of the prompt and of what was sampled, for the repetition penalty.
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
  std::vector<Candidate> scratch_;
};

}  // namespace fathom::infer
