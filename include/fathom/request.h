// What is asked of an engine: a prompt, and how its text is to be written.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "fathom/model.h"

namespace fathom {

// Tokens from `position` on are read at `dial`.
struct DialFrom {
  int64_t position = 0;  // in the text, its prompt counted
  double dial = 1;
};

// Guesses some tokens cheaply and reads them together. The text is the same to the bit, sampled or greedy, only sooner or later. As many are
// guessed as are seen to pay, none where none do: once prices are known, guesses lose at most half a token's time and 0.75 % of the text's.
struct Speculation {
  bool repeats = true;                    // that the text goes on as it did after the same tokens before
  std::optional<double> draft_dial = {};  // elsewhere, what the same weights say at this dial
  int64_t most = 16;                      // 1 to 64 guesses at once
  bool always = false;                    // as many whenever there is something to guess by, whether it pays or not: to measure
};

// Its text is a function of the request and the model: the same on every machine, alone or among others, at any number of threads.
struct Request {
  // A text, which is encoded as EncodeOptions{.begin = true} says, or ids (Model::encode, Model::chat). At least one id, at most
  // the model's max_position_embeddings.
  std::variant<std::string, std::vector<TokenId>> prompt = {};
  int64_t max_tokens = 128;                     // new ones at most

  // Share of the blocks' work that each token may cost, in (0, 1]; 1 runs every block for every token. Absent: the model's own. A dense
  // model runs at 1 alone.
  std::optional<double> dial = {};
  // In place of `dial`, one that changes: a conversation whose past was read at other dials finds it in the prefix cache only when it
  // says so. Ascending from position 0.
  std::vector<DialFrom> dials = {};

  std::optional<Sampling> sampling = {};        // absent: what the model's files recommend
  uint64_t seed = 0;                            // another one, another text
  int64_t samples = 1;                          // texts from the prompt, which is read once; each draws for itself
  bool stop_at_end = true;                      // at the model's end tokens
  std::vector<TokenId> stop_ids = {};           // more ids that end a text; they are no part of it
  std::vector<std::string> stop = {};           // texts before which it ends; at most 64 of 4,096 bytes
  std::optional<int64_t> log_probs = {};        // log-probabilities of every new token, and of so many (0 to 128) of the likeliest
  std::optional<Speculation> speculation = {};

  int priority = 0;                             // -100 to 100, greater goes first; a request that waits rises, so that every one gets its turn
  std::optional<double> timeout = {};           // seconds from submission; what is not done by then ends (Finish::deadline)
};

}  // namespace fathom
