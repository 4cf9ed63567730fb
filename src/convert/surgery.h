// A dense model made into one whose tokens choose their depth: which blocks get routers, light paths or are light for every token, the
// configuration that follows, and the tensors. Every tensor of the source is carried over as it lies, and gate 1 is the dense block to the
// bit: with every path full the new model computes what the source computes.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "convert/fit.h"
#include "convert/write.h"

namespace fathom::convert {

inline constexpr double kLeastCapacity = 1.0 / 1024;  // that a unit which decides is given: a cut that no token reaches has no threshold

struct SurgeryOptions {
  std::vector<int> blocks;                                      // that tokens route at; ascending
  std::vector<routing::Part> parts = {routing::Part::block};    // what each router decides about: the block, or attention, MLP or both
  std::vector<int> full_attention;                              // of them, those whose attention every token runs: only their MLP is decided about; ascending
  routing::Paths paths = {.exit = false, .skip = false, .light = true, .full = true};
  int64_t light_rank = 64;                                      // of light paths
  std::vector<int> statics;                                     // blocks that are light for every token
  std::vector<int> dropped;                                     // blocks that are taken out for good
  routing::KvPolicy kv = routing::KvPolicy::keep;
  routing::CausalRule rule = routing::CausalRule::score;        // or predictor: a small MLP decides
  routing::Gate gate = routing::Gate::hard;
  int64_t forced_positions = 2;
  double target = 0.75;                                         // expected block fraction that capacities are chosen for
  double lowest = 0.65, highest = 0.85;                         // those that light paths are fitted for the second time
  int64_t context = 512;                                        // at which it is counted
  bool refit = true;                                            // fit light paths a second time, for the stream that routing makes
  bool leave_needed = false;                                    // leave a unit out that nearly every token needs at the target
};

struct Surgery {
  model::ModelConfig config;
  std::vector<int> block_of;                               // [L] the source's block
  std::map<std::string, model::StoredTensor> made;         // routers, predictors and light paths, f32
  std::vector<FittedUnit> fitted;                          // [units], empty where nothing was fitted
};

// The blocks between the first and the last: what routes when nobody says otherwise.
std::vector<int> inner_blocks(const model::ModelConfig& dense);

// The shape of the result; routers pass every token and light paths are 0 until fit() or training fills them. UserError by the option's name: blocks
// out of range, twice, in two lists; a source that is routed already.
Surgery plan_surgery(const model::ModelConfig& dense, const SurgeryOptions& options, const std::string& where);

// Light paths, routers and capacities of `surgery` from text: see fit_units. Of the units that decide, the same threshold for all (0 behind the bias)
// is chosen so that the expected block fraction is the target, where the score of a unit is the logarithm of the loss that a token is expected to
// cost there per multiply–add that it saves. With `leave_needed` units that more than 98 % of tokens need in full are dense again.
void fit_surgery(Surgery& surgery, std::shared_ptr<const infer::Weights> dense, std::span<const std::span<const int32_t>> windows, const SurgeryOptions& options,
                 const FitOptions& fit);

// The source without the blocks that are dropped: what units are fitted on.
std::shared_ptr<const infer::Weights> kept_blocks(const model::ModelFolder& source, const Surgery& surgery, int threads);

// What to write: the source's tensors and those made. Both must outlive it.
Contents contents_of(const model::ModelFolder& source, const Surgery& surgery);
double tensor_bytes(const model::ModelFolder& source);
// The type of the result's matrices: the source's most frequent one.
formats::GgmlType surgery_type(const model::ModelFolder& source);
// Tensors of the source stay as they are. Light paths are of `type`, Q8_0 where it has fewer than eight bits.
std::vector<TensorPlan> plan_tensors(const Contents& contents, formats::GgmlType type);

}  // namespace fathom::convert
