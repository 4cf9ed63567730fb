// Text that a model writes itself, to fit and tune it on where no other is at hand: sampled at temperature 1, from nothing.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "infer/weights.h"

namespace fathom::convert {

struct SelfTextOptions {
  int64_t tokens = 32768;   // of all texts, at least
  int64_t context = 512;    // of a text, at most; it ends sooner where the model says so
  uint64_t seed = 1;
  int threads = 0;          // 0: all cores that this process may use
  std::function<void(int64_t done, int64_t of)> progress;  // tokens; may throw to interrupt
};

// Texts of a dense model. Each begins with `begin`, the token that begins the model's documents, or without one with a token drawn
// evenly from the vocabulary; `ends` are the ids that end one, and are its last token. The same seed writes the same texts.
std::vector<std::vector<int32_t>> self_text(std::shared_ptr<const infer::Weights> dense, std::optional<int32_t> begin, const std::vector<int32_t>& ends,
                                            const SelfTextOptions& options);

}  // namespace fathom::convert
