#include "routing/select.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace fathom::routing {

int64_t selected_count(double capacity, int64_t tokens) {
  FATHOM_ASSERT(capacity >= 0 && capacity <= 1 && tokens >= 0, "capacity ", capacity, ", tokens ", tokens);
  if (tokens == 0 || capacity == 0) return 0;
  // A product such as 0.07·100 exceeds the whole number meant by a few units in the last place; a share that truly
  // lies above it by less than 1e-12 of itself does not occur below 10^12 tokens.
  const double exact = capacity * static_cast<double>(tokens);
  const int64_t k = static_cast<int64_t>(std::ceil(exact * (1 - 1e-12)));
  return std::clamp<int64_t>(k, 1, tokens);
}

std::vector<int64_t> top_k(std::span<const float> scores, int64_t k, int64_t forced) {
  const int64_t T = static_cast<int64_t>(scores.size());
  forced = std::clamp<int64_t>(forced, 0, T);
  std::vector<int64_t> picked(static_cast<size_t>(forced));
  std::iota(picked.begin(), picked.end(), 0);
  if (k <= forced) return picked;

  std::vector<int64_t> rest;
  rest.reserve(static_cast<size_t>(T - forced));
  for (int64_t t = forced; t < T; ++t)
    if (!std::isnan(scores[static_cast<size_t>(t)])) rest.push_back(t);
  const size_t wanted = std::min(rest.size(), static_cast<size_t>(k - forced));
  const auto before = [&](int64_t a, int64_t b) {
    const float x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  // The order is total, so the set of the first `wanted` is unique and nth_element finds it in O(T).
  if (wanted < rest.size()) std::nth_element(rest.begin(), rest.begin() + static_cast<int64_t>(wanted), rest.end(), before);
  picked.insert(picked.end(), rest.begin(), rest.begin() + static_cast<int64_t>(wanted));
  std::sort(picked.begin(), picked.end());
  return picked;
}

double random_score(uint64_t seed, int64_t block, int64_t position) {
  const uint64_t per_block = mix64(mix64(seed) ^ static_cast<uint64_t>(block));
  return static_cast<double>(mix64(per_block ^ static_cast<uint64_t>(position)) >> 11) * 0x1.0p-53;
}

}  // namespace fathom::routing
