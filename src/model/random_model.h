// Models drawn from a seed, for property tests and benchmarks: odd shapes, every gate, rule, pattern and kv policy, biases,
// QK norms and scaled positions, and weights under which activations stay near 1 and decision scores spread around 0. Nothing that a user runs needs it.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/random.h"
#include "model/config.h"
#include "model/folder.h"
#include "routing/decisions.h"
#include "routing/dial.h"

namespace fathom::model {

struct RandomLimits {
  int64_t max_blocks = 6;         // L
  int64_t max_width = 80;         // C, from 6
  int64_t max_heads = 6;          // H
  int64_t max_head_width = 20;    // D, even
  int64_t max_feed_forward = 120; // F
  int64_t max_vocabulary = 150;   // V, from 8
  bool dense = false;             // no routed block; else at least one
  bool hf_shape = false;          // what a class of transformers takes: C a multiple of H, biases as one of its families has them
  bool plain = false;             // no biases, QK norms or scaled positions: what the network of nn/ computes
  bool paths = false;             // half of the routed ones with parts, light paths, exits or static units, which training from scratch does not know
  bool adapters = false;          // half of the models with adapters, which only the engine computes
  bool exits = true;              // of those, some with exits, which only the engine decides
};

ModelConfig random_config(Random& random, const RandomLimits& limits = {});

using Weights = std::map<std::string, std::vector<float>>;  // name → elements, row-major, shapes by schema()

// Norm weights 1 ± 0.1; matrices normal with deviation 1/√fan-in, those that write into the residual stream smaller by
// √(2L); routers and predictors such that scores have a deviation near 1. The same (config, seed) gives the same bits.
Weights random_weights(const ModelConfig& config, uint64_t seed);

// One threshold per cut, rising within a unit: mostly normal with deviation 0.8, where the scores of random_weights lie, now
// and then −∞ (everybody runs) or +∞ (nobody); that of an exit lower, or few tokens would be left.
std::vector<float> random_thresholds(const ModelConfig& config, Random& random);
// Two to five points, thresholds falling as the dial rises, all finite.
routing::DialTable random_dial(const ModelConfig& config, Random& random);
// Of one document of `tokens` tokens, forced positions kept; shares of every path from none to all. Exits are no decisions of their own.
routing::Decisions random_decisions(const ModelConfig& config, int64_t tokens, Random& random);
std::vector<int32_t> random_tokens(const ModelConfig& config, int64_t count, Random& random);

// Everything that write_model_folder wants, without a tokenizer; a dial table when a block is routed.
ModelToWrite model_to_write(const ModelConfig& config, Weights weights, uint64_t seed = 0);

}  // namespace fathom::model
