#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/limits.h"

namespace fathom::infer {

void SamplerOptions::validate() const {
  const auto refuse = [](const char* field, const std::string& found, const std::string& expected) {
    throw UserError({"sampling", field, found, expected, ""});
  };
  if (!(temperature >= 0 && temperature <= limits::kTemperature)) refuse("temperature", str(temperature), str("0 to ", limits::kTemperature));
  if (top_k < 0) refuse("top_k", str(top_k), "0 (off) or more");
  if (!(top_p > 0 && top_p <= 1)) refuse("top_p", str(top_p), "more than 0, at most 1");
  if (!(min_p >= 0 && min_p <= 1)) refuse("min_p", str(min_p), "0 to 1");
  if (!(repetition_penalty >= limits::kRepetitionPenaltyLow && repetition_penalty <= limits::kRepetitionPenaltyHigh))
    refuse("repetition_penalty", str(repetition_penalty), str(limits::kRepetitionPenaltyLow, " to ", limits::kRepetitionPenaltyHigh));
}

Sampler::Sampler(const SamplerOptions& options, uint64_t stream)
    : options_(options), random_(Random(mix64(options.seed) ^ mix64(~stream)).bits()) {
  options_.validate();
}

void Sampler::observe(std::span<const int32_t> ids) {
  if (options_.repetition_penalty == 1.0) return;
  for (int32_t id : ids) {
    const auto at = std::lower_bound(seen_.begin(), seen_.end(), id);
    if (at == seen_.end() || *at != id) seen_.insert(at, id);
  }
}

namespace {

using Candidate = Sampler::Candidate;

bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
}

// The `count` best, by rank; the others are dropped.
void keep_best(std::vector<Candidate>& all, size_t count) {
  if (count < all.size()) {
    std::nth_element(all.begin(), all.begin() + static_cast<int64_t>(count), all.end(), ranks_before);
    all.resize(count);
  }
  std::sort(all.begin(), all.end(), ranks_before);
}

double sum(const std::vector<Candidate>& all) {
  double total = 0;
  for (const Candidate& c : all) total += c.probability;
  return total;
}

// The smallest set of the likeliest whose share reaches `share`, by rank. It is small as a rule, so only so many are
// sorted as it takes.
void keep_share(std::vector<Candidate>& all, double share) {
  const double enough = share * sum(all);
  double reached = 0;
  size_t kept = 0, sorted = 0;
  while (kept < all.size() && reached < enough) {
    if (kept == sorted) {
      const size_t more = std::min(all.size(), std::max<size_t>(64, 4 * sorted));
      const auto from = all.begin() + static_cast<int64_t>(sorted), to = all.begin() + static_cast<int64_t>(more);
      std::partial_sort(from, to, all.end(), ranks_before);
      sorted = more;
    }
    reached += all[kept++].probability;
  }
  all.resize(std::max<size_t>(1, kept));
}

}  // namespace

double Sampler::candidates(std::span<const float> given, const kernels::Kernels& kernels, std::vector<Candidate>& out) const {
  const int64_t V = static_cast<int64_t>(given.size());
  out.clear();
  std::vector<float> logits(given.begin(), given.end());
  if (options_.repetition_penalty != 1.0) {
    const float penalty = static_cast<float>(options_.repetition_penalty);
    for (int32_t id : seen_)
      if (id >= 0 && id < V) logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
  }
  const int64_t best = kernels.argmax(logits.data(), V);
  const float greatest = logits[best];
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (!(greatest > -kInfinity))
    throw UserError({"sampling", "", "no finite logit", "numbers", "the model computes NaN: are its weights damaged?"});
  if (options_.temperature == 0 || greatest == kInfinity) {
    out.push_back({static_cast<int32_t>(best), 1.0f});
    return 1;
  }

  // The best is 0, so no temperature makes exp overflow.
  const float inverse = static_cast<float>(std::min(1.0 / options_.temperature, 1e30));
  for (float& x : logits) x = (x - greatest) * inverse;
  kernels.exp_shifted(logits.data(), 0.0f, V, logits.data());
  for (int64_t id = 0; id < V; ++id)
    if (logits[id] > 0) out.push_back({static_cast<int32_t>(id), logits[id]});  // NaN fails the comparison

  if (options_.top_k > 0) keep_best(out, static_cast<size_t>(options_.top_k));
  if (options_.top_p < 1) keep_share(out, options_.top_p);
  if (options_.min_p > 0)
    std::erase_if(out, [&](const Candidate& c) { return c.probability < options_.min_p; });  // the likeliest has 1
  return sum(out);
}

std::vector<Candidate> Sampler::distribution(std::span<const float> logits, const kernels::Kernels& kernels) const {
  std::vector<Candidate> all;
  const double total = candidates(logits, kernels, all);
  std::sort(all.begin(), all.end(), ranks_before);
  for (Candidate& c : all) c.probability = static_cast<float>(c.probability / total);
  return all;
}

int32_t Sampler::sample(std::span<const float> logits, const kernels::Kernels& kernels) {
  const double total = candidates(logits, kernels, scratch_);
  double draw = random_.uniform() * total;  // one draw per token, whatever the logits: the counter is its number
  int32_t id = scratch_.back().id;          // when rounding leaves the sum below the draw
  for (const Candidate& c : scratch_) {
    draw -= c.probability;
    if (draw < 0) {
      id = c.id;
      break;
    }
  }
  const int32_t one[] = {id};
  observe(one);
  return id;
}

}  // namespace fathom::infer
