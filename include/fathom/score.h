// How likely a model finds a text that is there, token by token, and which blocks each token runs.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "fathom/model.h"

namespace fathom {

struct ScoreOptions {
  std::optional<double> dial = {};  // as Request::dial
  int threads = 0;                  // 0: all cores that this process may use
  CacheType kv_type = CacheType::f32;  // as EngineOptions::kv_type
};

struct TextScore {                  // of T tokens
  std::vector<float> log_prob = {};              // [T − 1] ln p of token t + 1 after the tokens up to t
  std::vector<TokenId> best = {};                // [T − 1] the likeliest in its place
  std::vector<int64_t> depth = {};               // [T] blocks that token t ran in full
  std::vector<std::vector<uint8_t>> run = {};    // [units][T] 0 where it skipped, 1 where it ran in full, 2 where it took the light path
  std::vector<std::vector<float>> router = {};   // [units][T] decision scores: what was held against the unit's threshold
  double block_fraction = 1, total_fraction = 1; // as Text's

  double log_prob_sum() const {
    double sum = 0;
    for (const float p : log_prob) sum += p;
    return sum;
  }
};

// Texts of 1 to max_position_embeddings ids each, scored together in bounded memory. A score is the same alone and in any company.
// Uses threads of its own for as long as it takes, and no engine's. Error: an option out of its bounds, a text's length, an id outside the vocabulary, the dial.
FATHOM_API std::vector<TextScore> score(const Model& model, const std::vector<std::vector<TokenId>>& texts, const ScoreOptions& options = {});
FATHOM_API TextScore score(const Model& model, std::span<const TokenId> text, const ScoreOptions& options = {});

}  // namespace fathom
