// Decoding speed by the engine, one text at a time, measured in turns so that a busy moment of the machine meets every
// model alike; the median of the rounds is kept.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "study/evaluate.h"

namespace fathom::study {

struct DecodeSpeed {
  double tokens_per_second = 0;    // median over rounds
  double slowest = 0, fastest = 0;
  int64_t new_tokens = 0;
};

// New tokens of all models and rounds; called between steps, outside of what is timed. May throw to interrupt.
using DecodeProgress = std::function<void(int64_t done, int64_t total)>;

// Every model writes `new_tokens` after `prompt` (the same ids for all), by sampling at temperature 1, in each round; the
// first at `dial`, its default when empty.
std::vector<DecodeSpeed> measure_decode(const std::vector<const Subject*>& subjects, std::optional<double> dial, std::span<const int32_t> prompt, int64_t new_tokens, int rounds,
                                        const DecodeProgress& progress = {});

// Bytes of keys and values that a token leaves behind, over all blocks, at `capacity` [cuts] ([] = every token in full): with kv
// drop a token that does not run a block's attention leaves none there, and where that is static nobody does.
double kv_bytes_per_token(const model::ModelConfig& config, std::span<const double> capacity, KvType type = KvType::f32);
// Of the pages that a text of so many tokens takes.
double kv_page_bytes(const model::ModelConfig& config, int64_t tokens, std::span<const double> capacity, KvType type = KvType::f32);

}  // namespace fathom::study
