// Is the router well? Figures of one or more forwards, added up: how many tokens ran each routed block, how well the
// causal rule agrees with top-k, whether position alone explains who is selected, how many tokens no routed block saw.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "nn/transformer.h"

namespace fathom::train {

class RouterHealth {
 public:
  explicit RouterHealth(size_t routed_blocks) : blocks_(routed_blocks) {}

  // Adds a forward; with thresholds also what the causal rule would have said there: the selection is the truth of
  // precision and recall. `forced` ([B, T] bool, or undefined for none): tokens that run under either, whatever their score.
  // add_pair: two forwards of the same batch, shares are the causal one's.
  void add(const std::vector<nn::RoutedResult>& result, const std::vector<float>& thresholds, const at::Tensor& forced = {});
  void add_pair(const std::vector<nn::RoutedResult>& truth, const std::vector<nn::RoutedResult>& causal);

  struct Block {
    double share = 0;        // of tokens that ran it
    double agreement = 0, precision = 0, recall = 0;  // of the causal rule; NaN when not asked
    double position = 0;     // share of the selection's variance that position explains, 0 to 1
  };
  std::vector<Block> blocks() const;
  double never() const;      // share of tokens that ran no routed block

  // One sentence per block that collapsed: all, none, or by position alone. `capacity` is what each should have.
  std::vector<std::string> warnings(const std::vector<int>& block_index, const std::vector<double>& capacity) const;

  Json to_json() const;      // {"share": […], "agreement": […], …}

 private:
  void count(size_t r, const at::Tensor& truth, const at::Tensor& causal);
  void add_selection(const std::vector<nn::RoutedResult>& result);
  struct Counts {
    int64_t tokens = 0, ran = 0;
    int64_t both = 0, truth = 0, causal = 0, equal = 0, compared = 0;
    std::vector<int64_t> by_position;  // [T] rows that ran the block there
    int64_t rows = 0;
  };
  std::vector<Counts> blocks_;
  int64_t tokens_ = 0, never_ = 0;
};

}  // namespace fathom::train
