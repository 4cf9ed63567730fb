// Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere. No rate stands
// there before half a second has passed, nor below one unit a second.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace fathom {

class Progress {
 public:
  // `unit` is what is counted ("tokens", "bytes"); total 0 = unknown. `start` is what an earlier run had done: it
  // counts for the share but not for the rate.
  Progress(std::string label, std::string unit, int64_t total, int64_t start = 0);
  ~Progress();
  // `note` stands at the end of the line ("loss 3.21"). Cheap: redraws at most ten times a second.
  void update(int64_t done, const std::string& note = "");
  void finish(const std::string& note = "");

  double seconds() const;
  double rate() const;  // units per second since the start of this run

 private:
  void draw(bool last);
  std::string label_, unit_, note_;
  int64_t total_, start_, done_;
  bool terminal_, finished_ = false;
  std::chrono::steady_clock::time_point begin_, drawn_;
};

bool stderr_is_terminal();

}  // namespace fathom
