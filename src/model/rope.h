// The angles of rotary position embedding (Su et al. 2021), in the order of rounding of the Hugging Face Llama: frequencies
// and angles in f32. Network and engine turn by the same numbers.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace fathom::model {

std::vector<float> rope_frequencies(int64_t head_dim, double theta);  // [D/2]

// Of one position: cosine and sine [D/2].
void rope_row(int64_t position, std::span<const float> frequency, float* cosine, float* sine);

}  // namespace fathom::model
