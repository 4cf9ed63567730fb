#include "study/speed.h"

#include <algorithm>
#include <cmath>

#include "infer/generate.h"
#include "study/statistics.h"

namespace fathom::study {

std::vector<DecodeSpeed> measure_decode(const std::vector<const Subject*>& subjects, std::optional<double> dial, std::span<const int32_t> prompt, int64_t new_tokens, int rounds,
                                        const DecodeProgress& progress) {
  std::vector<std::vector<double>> rates(subjects.size());
  std::vector<DecodeSpeed> speeds(subjects.size());
  const std::vector<std::vector<int32_t>> prompts = {{prompt.begin(), prompt.end()}};
  const int64_t total = new_tokens * rounds * static_cast<int64_t>(subjects.size());
  int64_t done = 0;
  for (int round = 0; round < rounds; ++round)
    for (size_t i = 0; i < subjects.size(); ++i) {
      infer::GenerateOptions options;
      options.policy = policy_of(*subjects[i], infer::Rule::causal, i == 0 ? dial : std::nullopt);
      options.max_new_tokens = new_tokens;
      int64_t steps = 0;
      options.cancel = [&] {
        if (progress) progress(done + steps++, total);
        return false;
      };
      const infer::GenerateResult r = infer::generate(*subjects[i]->engine, subjects[i]->tokenizer.get(), prompts, options);
      rates[i].push_back(r.stats.decode_rate());
      speeds[i].new_tokens = r.stats.new_tokens;
      done += new_tokens;
    }
  for (size_t i = 0; i < subjects.size(); ++i) {
    speeds[i].tokens_per_second = median(rates[i]);
    speeds[i].slowest = *std::ranges::min_element(rates[i]), speeds[i].fastest = *std::ranges::max_element(rates[i]);
  }
  return speeds;
}

double kv_bytes_per_token(const model::ModelConfig& config, std::span<const double> capacity, KvType type) {
  double blocks = static_cast<double>(config.num_hidden_layers);
  for (size_t u = 0; u < config.routing.units.size(); ++u) {
    const routing::RoutedUnit& unit = config.routing.units[u];
    if (!unit.covers(routing::Part::attention)) continue;
    if (unit.is_static()) blocks -= 1;
    else if (config.routing.kv == routing::KvPolicy::drop && !capacity.empty()) blocks -= 1 - config.routing.shares(u, capacity).full;
  }
  return static_cast<double>(model::kv_bytes_per_token_and_block(config, type)) * blocks;
}

double kv_page_bytes(const model::ModelConfig& config, int64_t tokens, std::span<const double> capacity, KvType type) {
  const auto pages = [](double slots) { return std::ceil(slots / static_cast<double>(infer::kPagePositions)); };
  const double T = static_cast<double>(tokens);
  double total = pages(T) * static_cast<double>(config.num_hidden_layers);
  for (size_t u = 0; u < config.routing.units.size(); ++u) {
    const routing::RoutedUnit& unit = config.routing.units[u];
    if (!unit.covers(routing::Part::attention)) continue;
    if (unit.is_static()) total -= pages(T);
    else if (config.routing.kv == routing::KvPolicy::drop && !capacity.empty()) total -= pages(T) - pages(config.routing.shares(u, capacity).full * T);
  }
  return total * static_cast<double>(infer::kPagePositions * model::kv_bytes_per_token_and_block(config, type));
}

}  // namespace fathom::study
