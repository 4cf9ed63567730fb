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
  if (top_k < 0 || top_k > limits::kVocabulary) refuse("top_k", str(top_k), str("0 (off) to ", limits::kVocabulary));
  if (!(top_p > 0 && top_p <= 1)) refuse("top_p", str(top_p), "more than 0, at most 1");
  if (!(typical_p > 0 && typical_p <= 1)) refuse("typical_p", str(typical_p), "more than 0, at most 1");
  if (!(min_p >= 0 && min_p <= 1)) refuse("min_p", str(min_p), "0 to 1");
  if (!(repetition_penalty >= limits::kRepetitionPenaltyLow && repetition_penalty <= limits::kRepetitionPenaltyHigh))
    refuse("repetition_penalty", str(repetition_penalty), str(limits::kRepetitionPenaltyLow, " to ", limits::kRepetitionPenaltyHigh));
  for (const auto& [field, penalty] : {std::pair{"presence_penalty", presence_penalty}, {"frequency_penalty", frequency_penalty}})
    if (!(std::abs(penalty) <= limits::kPenalty)) refuse(field, str(penalty), str(-limits::kPenalty, " to ", limits::kPenalty));
  if (std::ssize(logit_bias) > limits::kLogitBiases) refuse("logit_bias", str(logit_bias.size(), " ids"), str("at most ", limits::kLogitBiases));
  for (const auto& [id, bias] : logit_bias)
    if (id < 0 || std::isnan(bias) || bias == std::numeric_limits<float>::infinity())
      refuse("logit_bias", str("id ", id, ": ", bias), "an id from 0, a finite number or -infinity");
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

// The smallest set of the most typical whose share reaches `share`: those whose −log p is nearest to its mean.
void keep_typical(std::vector<Candidate>& all, double share) {
  const double total = sum(all);
  double entropy = 0;
  for (const Candidate& c : all) entropy -= c.probability / total * std::log(c.probability / total);
  const auto odd = [&](const Candidate& c) { return std::abs(-std::log(c.probability / total) - entropy); };
  std::sort(all.begin(), all.end(), [&](const Candidate& a, const Candidate& b) {
    const double x = odd(a), y = odd(b);
    return x != y ? x < y : a.id < b.id;
  });
  double reached = 0;
  size_t kept = 0;
  while (kept < all.size() && reached < share * total) reached += all[kept++].probability;
  all.resize(std::max<size_t>(1, kept));
}

}  // namespace

double Sampler::candidates(std::span<const float> given, const kernels::Kernels& kernels, std::vector<Candidate>& out) const {
  const int64_t V = static_cast<int64_t>(given.size());
  out.clear();
  std::vector<float> logits(given.begin(), given.end());
  for (const auto& [id, bias] : options_.logit_bias)
    if (id < V) logits[id] += bias;
  if (options_.repetition_penalty != 1.0) {
    const float penalty = static_cast<float>(options_.repetition_penalty);
    for (int32_t id : seen_)
      if (id >= 0 && id < V) logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
  }
  for (const auto& [id, times] : sampled_)
    if (id < V) logits[id] -= static_cast<float>(options_.presence_penalty + options_.frequency_penalty * static_cast<double>(times));
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
  if (options_.typical_p < 1) keep_typical(out, options_.typical_p);
  if (options_.top_p < 1) keep_share(out, options_.top_p);
  if (options_.min_p > 0) {
    float most = 0;  // 1, unless the likeliest is not typical
    for (const Candidate& c : out) most = std::max(most, c.probability);
    std::erase_if(out, [&](const Candidate& c) { return c.probability < options_.min_p * most; });
  }
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
  if (options_.presence_penalty != 0 || options_.frequency_penalty != 0) ++sampled_[id];
  return id;
}

LogProbs log_probs(std::span<const float> logits, int32_t id, int64_t top, const kernels::Kernels& kernels) {
  const int64_t V = std::ssize(logits);
  std::vector<Candidate> all;
  for (int64_t i = 0; i < V && top > 0; ++i)
    if (!std::isnan(logits[static_cast<size_t>(i)])) all.push_back({static_cast<int32_t>(i), logits[static_cast<size_t>(i)]});
  const double whole = kernels.log_sum_exp(logits.data(), V);
  keep_best(all, static_cast<size_t>(std::clamp<int64_t>(top, 0, std::ssize(all))));
  LogProbs out{.chosen = static_cast<float>(logits[static_cast<size_t>(id)] - whole), .top = {}};
  for (const Candidate& c : all) out.top.emplace_back(c.id, static_cast<float>(c.probability - whole));
  return out;
}

}  // namespace fathom::infer
