// How tokens may be guessed.
#pragma once
#include <cstdint>
#include <optional>

#include "infer/policy.h"
#include "model/folder.h"

namespace fathom::infer {

// Tokens guessed cheaply and read together: the text is the same to the bit, sampled or greedy, only sooner or later. A guess is
// drawn with the draw that the real choice will use, and counts when that choice is the same; what was read of wrong guesses is
// taken back. Where the text stands as it stood before, it is guessed to go on as it did then, at no cost; else the same weights guess
// under another policy, if there is one. As many are guessed as pay: by what guesses of the kind came to in this text, and by
// what steps of so many rows were seen to take; by the account of its steps, and once their prices are
// known, what guesses have lost is never more than half a token's time and 0.75 % of the text's.
struct Speculation {
  std::optional<RoutingPolicy> draft = {};   // a low dial
  double draft_cost = 1;                // of a token under it, in those of the text's own policy, until its steps were seen
  bool repeats = true;                  // guess that the text goes on as it did before
  int64_t most = 16;                    // guesses at once
  int64_t same = 2;                     // tokens that must be the same, for `repeats`
  bool always = false;                  // guess `most` tokens whenever there is something to guess by, whether it pays or not: to measure
};

// Speculation::draft_cost of a draft at a dial, for texts at another (absent: the model's own), by the bytes that a token moves.
double draft_cost(const model::ModelFolder& folder, double draft_dial, std::optional<double> dial);

}  // namespace fathom::infer
