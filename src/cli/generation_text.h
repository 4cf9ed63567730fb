// What `fathom generate` says about its texts besides the texts: JSON, the figures of --stats, depths, log-probabilities.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cli/depth_colours.h"
#include "core/json.h"
#include "infer/generate.h"

namespace fathom::cli {

// The tokens of one text, as their events told of them.
struct GenerationRecord {
  struct Token {
    int32_t id;
    int64_t depth;
    std::vector<uint8_t> run;  // [units] routing::Path
    std::optional<infer::LogProbs> log_probs = {};
  };
  std::vector<Token> tokens;
  void add(const infer::TokenEvent& e) {
    tokens.push_back({e.id, e.depth, {e.run.begin(), e.run.end()}});
    if (e.log_probs) tokens.back().log_probs = *e.log_probs;
  }
};

// `records` [texts]. What is one text's own stands at the top where there is one, in "samples" where there are more.
Json generation_json(const std::string& prompt, const infer::GenerateResult& result, const std::vector<GenerationRecord>& records,
                     const text::Tokenizer& tokenizer, DepthRange range);
std::string generation_stats(const infer::GenerateResult& result, const std::vector<GenerationRecord>& records);
// Seconds that guesses saved (lost, where negative): what their tokens would have taken at the mean of the steps without guesses, the run's
// own and those that were probed behind it, less what their steps took. An estimate, of a text that was alone: nothing when there were no guesses or no
// such step to go by.
std::optional<double> seconds_saved(const infer::GenerateStats& stats);
// "3 of 4 guesses right (75.0 %), about 1.2 s saved by them (…)"; at least one was made.
std::string guesses_text(int64_t made, int64_t right, const infer::GenerateStats& stats, std::optional<double> saved);
// How many of the new tokens went how deep, one line per depth.
std::string depth_histogram(const GenerationRecord& record, DepthRange range, bool coloured);
// Of a text's tokens: ln p and, where asked for, the likeliest in their place. One line per token.
std::string log_prob_table(const GenerationRecord& record, const text::Tokenizer& tokenizer);

}  // namespace fathom::cli
