// Selection over whole sequences, plain C++: the teacher's view (top-k), the random control, and the one comparison
// of the causal rule. nn has its tensor twin of top_k; a test holds the two equal.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace fathom::routing {

// K = ceil(capacity · tokens), safe against 0.07·100 = 7.000000000000001; at least 1 unless tokens or
// capacity is 0.
int64_t selected_count(double capacity, int64_t tokens);

// The causal rule, everywhere: a token runs a block when this holds. A NaN score never runs.
inline bool runs(float decision_score, float threshold) { return decision_score >= threshold; }

// The positions of the k highest scores, ascending; ties go to the earlier position; the first `forced` positions are
// always in and count inside k (when forced > k, exactly the forced ones). A NaN score is picked only where forced, so
// the result is shorter than k when too few numbers are left; k beyond the sequence picks all of it. O(T + k log k).
std::vector<int64_t> top_k(std::span<const float> scores, int64_t k, int64_t forced);

// Uniform in [0, 1) from (seed, block, position): the random control's score; runs when < capacity.
double random_score(uint64_t seed, int64_t block, int64_t position);

}  // namespace fathom::routing
