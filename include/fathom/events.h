// What comes of a request: events while it is written, texts at the end.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fathom/model.h"

namespace fathom {

enum class Finish {
  length,        // Request::max_tokens were written
  stop_id,       // the model's end token, or one of Request::stop_ids
  stop_string,   // one of Request::stop
  context_full,  // the model's max_position_embeddings
  cancelled,     // Stream::cancel, or the stream's or the engine's end
  deadline,      // Request::timeout
};
FATHOM_API const char* name(Finish finish);  // "length", "stop_id", …

struct LogProbs {
  float chosen = 0;                                   // ln p of the token that was chosen, before anything that sampling does to it
  std::vector<std::pair<TokenId, float>> top = {};    // the likeliest and theirs, descending, ties to the lower id
};

// A new token of a text, after the model has read it: only then it is known which blocks it ran.
struct Token {
  TokenId id = 0;
  int64_t position = 0;             // in the text, its prompt counted
  int64_t depth = 0;                // blocks that it ran in full, attention and MLP both
  std::vector<uint8_t> run = {};    // [units], as ModelInfo::routed_blocks: 0 where it skipped, 1 where it ran in full, 2 where it took the light path
  std::optional<LogProbs> log_probs = {};  // when the request asked for them
  double seconds = 0;               // since submission
};

struct TextPart {
  size_t token = 0;                 // the new token that these bytes are of; a character is of the one that completes it
  std::string text = {};
};

// One new token of a text, or the end of one.
struct Event {
  size_t sample = 0;                    // which of the request's texts
  std::string text = {};                // what is certain now: no half character, nothing that may begin a stop string. All of a text's, joined, are the text
  std::vector<TextPart> parts = {};     // the same by token: some may be of earlier ones
  std::optional<Token> token = {};      // absent in a text's last event
  std::optional<Finish> finish = {};    // in a text's last event alone
};

// A text that has ended.
struct Text {
  std::string text = {};                // new text, without the stop string
  std::vector<Token> tokens = {};       // new ones, without the id that stopped it
  Finish finish = Finish::length;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;            // of the prompt that the prefix cache held
  int64_t guessed = 0, guessed_right = 0;  // tokens, by speculation
  int64_t preemptions = 0;              // times it lost its memory to others and was read again
  // FLOPs of what was read over those of the same text with every token in full: in the blocks, and in the whole model.
  double block_fraction = 1, total_fraction = 1;
  int64_t kv_bytes = 0;                 // of keys and values at the end
  int64_t kv_bytes_dense = 0;           // of every token in every block
  double first_token_seconds = 0;       // from submission to the first new token's event; 0 when there was none
  double seconds = 0;                   // from submission to the end

  std::vector<TokenId> ids() const {
    std::vector<TokenId> out;
    for (const Token& token : tokens) out.push_back(token.id);
    return out;
  }
  double mean_depth() const {           // of the new tokens; 0 when there is none
    double sum = 0;
    for (const Token& token : tokens) sum += static_cast<double>(token.depth);
    return tokens.empty() ? 0 : sum / static_cast<double>(tokens.size());
  }
};

}  // namespace fathom
