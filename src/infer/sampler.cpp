#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace fathom::infer {

void SamplerOptions::validate() const {
  const auto refuse = [](const char* field, const std::string& found, const char* expected) {
    throw UserError({"sampling", field, found, expected, ""});
  };
  if (!(temperature >= 0 && temperature <= 1e6)) refuse("temperature", str(temperature), "0 to 1000000");
  if (top_k < 0) refuse("top_k", str(top_k), "0 (off) or more");
  if (!(top_p > 0 && top_p <= 1)) refuse("top_p", str(top_p), "more than 0, at most 1");
  if (!(min_p >= 0 && min_p <= 1)) refuse("min_p", str(min_p), "0 to 1");
  if (!(repetition_penalty > 0 && repetition_penalty <= 1e6)) refuse("repetition_penalty", str(repetition_penalty), "more than 0");
}

Sampler::Sampler(const SamplerOptions& options, uint64_t stream)
    : options_(options), random_(Random(mix64(options.seed) ^ mix64(~stream)).bits()) {
  options_.validate();
}

void Sampler::observe(std::span<const int32_t> ids) {
  if (options_.repetition_penalty == 1.0) return;
  seen_.insert(seen_.end(), ids.begin(), ids.end());
  std::sort(seen_.begin(), seen_.end());
  seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
}

std::vector<Sampler::Candidate> Sampler::distribution(std::span<const float> given, const kernels::Kernels& kernels) const {
  const int64_t V = static_cast<int64_t>(given.size());
  std::vector<float> logits(given.begin(), given.end());
  if (options_.repetition_penalty != 1.0) {
    const float penalty = static_cast<float>(options_.repetition_penalty);
    for (int32_t id : seen_)
      if (id >= 0 && id < V) logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
  }
  const int64_t best = kernels.argmax(logits.data(), V);
  if (!(logits[best] > -std::numeric_limits<float>::infinity()))
    throw UserError({"sampling", "", "no finite logit", "numbers", "the model computes NaN: are its weights damaged?"});
  if (options_.temperature == 0) return {{static_cast<int32_t>(best), 1.0f}};

  const float greatest = logits[best];
  if (greatest == std::numeric_limits<float>::infinity()) return {{static_cast<int32_t>(best), 1.0f}};
  const float inverse = static_cast<float>(1.0 / options_.temperature);
  for (float& x : logits) x = (x - greatest) * inverse;  // the best is 0: no temperature makes it overflow
  std::vector<float> weight(V);
  kernels.exp_shifted(logits.data(), 0.0f, V, weight.data());

  std::vector<Candidate> candidates;
  for (int64_t id = 0; id < V; ++id)
    if (weight[id] > 0) candidates.push_back({static_cast<int32_t>(id), weight[id]});  // NaN fails the comparison
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
  };
  if (options_.top_k > 0 && options_.top_k < static_cast<int64_t>(candidates.size())) {
    std::nth_element(candidates.begin(), candidates.begin() + options_.top_k, candidates.end(), before);
    candidates.resize(options_.top_k);
  }
  std::sort(candidates.begin(), candidates.end(), before);

  double total = 0;
  for (const Candidate& c : candidates) total += c.probability;
  if (options_.top_p < 1.0) {  // the smallest set of the likeliest whose share reaches top_p
    double sum = 0;
    size_t keep = 0;
    while (keep < candidates.size() && sum < options_.top_p * total) sum += candidates[keep++].probability;
    candidates.resize(std::max<size_t>(1, keep));
    total = sum;
  }
  if (options_.min_p > 0) {
    const double least = options_.min_p * candidates[0].probability;
    while (candidates.size() > 1 && candidates.back().probability < least) candidates.pop_back();
    total = 0;
    for (const Candidate& c : candidates) total += c.probability;
  }
  for (Candidate& c : candidates) c.probability = static_cast<float>(c.probability / total);
  return candidates;
}

int32_t Sampler::sample(std::span<const float> logits, const kernels::Kernels& kernels) {
  const std::vector<Candidate> candidates = distribution(logits, kernels);
  int32_t id = candidates.back().id;  // when rounding leaves the sum of all below the draw
  if (candidates.size() > 1) {
    double draw = random_.uniform();
    for (const Candidate& c : candidates) {
      draw -= c.probability;
      if (draw < 0) {
        id = c.id;
        break;
      }
    }
  } else {
    (void)random_.uniform();  // one draw per token, whatever the logits: the counter is the token's number
  }
  const int32_t one[] = {id};
  observe(one);
  return id;
}

}  // namespace fathom::infer
