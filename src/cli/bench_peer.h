// Another engine's benchmark programs in turns with ours: llama-bench for prompts and one text, llama-batched-bench beside it for
// several texts at once.
#pragma once
#include <string>
#include <vector>

#include "core/json.h"
#include "study/bench.h"

namespace fathom::cli {

class PeerBench {
 public:
  // `program` "" = no peer: turn() does nothing.
  PeerBench(std::string program, std::string model, const study::BenchWork& work, int threads);
  void turn(int round);  // one repetition; round −1 warms up. UserError when the program fails.
  Json to_json() const;
  std::string table(const std::vector<study::BenchLine>& ours) const;  // medians side by side, and their ratio

 private:
  struct Rates {
    std::string work;
    std::vector<double> tokens_per_second;
  };
  void add(int round, const std::string& name, double rate);

  std::string program_, model_;
  study::BenchWork work_;
  int threads_;
  std::vector<Rates> rates_;
};

}  // namespace fathom::cli
