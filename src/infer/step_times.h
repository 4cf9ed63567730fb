// What steps cost, learned from those that were made, to know beforehand what guesses would. In steps of one row: a slow spell of the
// machine slows all alike and changes nothing.
#pragma once
#include <array>
#include <cstdint>

namespace fathom::infer {

class StepTimes {
 public:
  static constexpr int64_t kMost = 96;  // rows; steps of more are no decoding

  // A step of `rows` rows, without prompts and drafts, took so long. A clock that stands still says nothing.
  void saw(int64_t rows, double seconds);
  // Of a step of `rows` rows (1 or more), in steps of one.
  double of(int64_t rows) const;
  // What took so long, in the same; `expected` where no clock told, and within a half and the double of it: the machine interrupts.
  double took(double seconds, double expected) const;

 private:
  struct Seen {
    double cost = 0;
    int64_t times = 0, last = 0;  // step
  };
  bool known(int64_t rows) const;
  std::array<Seen, kMost + 1> seen_{};
  std::array<double, 8> late_{};  // seconds of a step of one row, by each of the last steps
  double unit_ = 0;               // their median
  int64_t steps_ = 0;
};

}  // namespace fathom::infer
