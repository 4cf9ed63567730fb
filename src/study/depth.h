// Who goes how deep. One pass over held-out text under the model's rule gives, for every token, the paths that it took; a block
// counts for its depth when it ran both attention and MLP in full. This gathers them by block, by position in the window, by class of token, by frequency, by how hard the next token
// was to predict, and keeps the extremes in their context and one passage whole.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "study/evaluate.h"

namespace fathom::study {

enum class TokenClass { special, space, punctuation, digits, word_start, word_inside };
inline constexpr size_t kTokenClasses = 6;
const char* token_class_name(TokenClass c);

// `bytes`: of the token; `after_word`: the token before ended in a letter, a digit or an underscore.
TokenClass token_class(std::string_view bytes, bool special, bool after_word);
bool ends_in_word(std::string_view bytes);

struct DepthGroup {
  std::string name;
  int64_t tokens = 0;
  int64_t blocks = 0;        // routed ones that they ran in full, all together
  std::vector<int64_t> ran, light;  // [units] tokens that ran it in full, that took its light path
  double mean_depth(int64_t least) const;  // least + blocks / tokens; NaN without tokens
  double share(size_t u) const;       // of tokens that ran unit u in full
  double light_share(size_t u) const;
};

struct TokenView {           // one token as it is shown
  std::string text;          // whole characters: bytes of a character that is cut go to the token that completes it
  int32_t id = 0;
  int64_t depth = 0;
  std::vector<uint8_t> run;  // [units] routing::Path
};

struct TokenExample {
  std::string before, token, after;
  int64_t depth = 0;
  double margin = 0;         // Σ over units of (score − threshold of full) in deviations of that unit's scores; 0 without thresholds
};

struct TokenType {           // all occurrences of one token
  std::string token;
  int64_t count = 0;
  double mean_depth = 0;
};

struct DepthStudy {
  std::string model, text;
  infer::Rule rule = infer::Rule::causal;  // random for a model of random selection
  double dial = 1, block_fraction = 1, total_fraction = 1, loss = 0, bits_per_byte = 0;
  int64_t tokens = 0, context = 0;
  int64_t blocks = 0;                     // of the model
  int64_t least = 0, most = 0;            // blocks that everybody runs, that somebody may run
  std::vector<routing::RoutedUnit> routed;
  std::vector<int64_t> histogram;         // [most − least + 1] tokens by depth
  DepthGroup all;
  std::vector<DepthGroup> by_position;    // equal bins of the window, named by their first position
  std::vector<DepthGroup> by_class, by_frequency, by_difficulty;
  std::vector<TokenExample> deepest, shallowest;
  std::vector<TokenType> deep_types, shallow_types;
  std::vector<TokenView> passage;
  Json to_json() const;
};

DepthStudy study_depth(const Subject& subject, const HeldOut& text, std::optional<double> dial = {}, const EvaluateProgress& progress = {});

// Tokens of a text with whole characters each, for display; those without decisions have the least depth.
std::vector<TokenView> views(const text::Tokenizer& tokenizer, std::span<const int32_t> ids, const routing::Decisions& decisions, const model::ModelConfig& config);

}  // namespace fathom::study
