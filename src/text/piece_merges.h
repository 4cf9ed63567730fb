// Merges for a SentencePiece vocabulary, which has scores instead.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom::text {

// All ways to cut a piece into two pieces, the better-scored piece first; among equals longer left parts first, then longer
// right ones, as `transformers` ranks them. `takes_part[id]`: others are never merged to, nor from. `where` is for errors.
std::vector<std::pair<int32_t, int32_t>> merges_of_scores(std::span<const std::string_view> pieces, std::span<const float> scores,
                                                          const std::vector<bool>& takes_part, const std::string& where);

}  // namespace fathom::text
