// When a text's next tokens are worth guessing, how, and how many of them. Prices are those of StepTimes, chances what the text's own
// guesses came to; the account of both bounds what wrong guesses may cost. Internal to the scheduler.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "infer/speculation.h"
#include "infer/step_times.h"

namespace fathom::infer {

// How often guesses of a kind were right, of late: a kind of which little is known goes by what such guesses usually are.
class Chance {
 public:
  explicit Chance(double usual) : usual_(usual) {}
  double now() const { return (right_ + kWeight * usual_) / (made_ + kWeight); }
  void saw(bool right);
  void fade();  // a token was written without such a guess

 private:
  static constexpr double kWeight = 2;  // guesses that `usual` counts for
  double usual_, right_ = 0, made_ = 0;
};

struct StepAround {        // the step that guesses would be added to
  int64_t rows = 1;        // without them
  int64_t texts = 1;       // that it takes a token further, this one included
};

class Guessing {
 public:
  explicit Guessing(const Speculation& how);

  struct Plan {
    std::vector<int32_t> ids;      // that a repetition says
    std::vector<uint8_t> kinds;    // of each
    int64_t drafts = 0;            // else: how many the draft may write at most
  };
  // Of what follows the tokens, at most `most`. Nothing where it would not pay.
  Plan plan(std::span<const int32_t> tokens, int64_t most, const StepAround& step, const StepTimes& times) const;

  // The draft's guess that it gives this probability.
  static uint8_t kind_of(double probability);
  // Whether the draft should write one more behind those of these kinds, rather than have them checked.
  bool another(std::span<const uint8_t> kinds, const StepAround& step, const StepTimes& times) const;
  // A step of the draft was made. Here and below `seconds` is what the step took, when nothing but this was in it beside `step`, else 0.
  void drafted(const StepAround& step, const StepTimes& times, double seconds);

  // Guesses of these kinds were checked in a step and so many, the first, were right.
  void checked(std::span<const uint8_t> kinds, int64_t right, const StepAround& step, const StepTimes& times, double seconds);
  void wrote() { ++written_; }     // a token
  void fade();                     // a token was written without guesses

  double balance() const { return balance_; }  // tokens gained (lost, where negative) by now

 private:
  // Kinds of guesses: by the number of tokens that stood in front of the same token before, then by the draft's probability.
  static constexpr int kLongest = 8, kSure = 4;
  double chance(uint8_t kind) const { return chances_[kind].now(); }
  double draft_step(const StepAround& step, const StepTimes& times) const;  // tokens that a step of the draft costs
  static double check(int64_t guesses, const StepAround& step, const StepTimes& times, double seconds = 0);  // tokens that so many rows more cost
  double allowed() const;  // tokens that may be lost at once
  // How many guesses, `most` at most, write the most tokens in their time: the n-th is right with chance(n) where those before it were, n of them cost cost(n) tokens.
  int64_t best_length(int64_t most, const StepAround& step, const std::function<double(int64_t)>& chance, const std::function<double(int64_t)>& cost) const;
  Plan repetition(std::span<const int32_t> tokens, int64_t most, const StepAround& step, const StepTimes& times) const;

  Speculation how_;
  std::vector<Chance> chances_;
  Chance draft_chance_;            // of its next guess, whatever probability it will have
  double draft_cost_;              // of a step of the draft alone, in tokens
  double balance_ = 0;
  int64_t written_ = 0;
};

}  // namespace fathom::infer
