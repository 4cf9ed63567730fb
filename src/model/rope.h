// The angles of rotary position embedding (Su et al. 2021), in the order of rounding of the Hugging Face models: frequencies
// and angles in f32. Network and engine turn by the same numbers.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace fathom::model {

// How the frequencies of a first training were stretched to longer texts. Fields that a type does not name stay at their default.
struct RopeScaling {
  enum class Type {
    none,
    linear,   // all divided by `factor`: positions closer together
    llama3,   // Llama 3.1: those that turn less than low_freq_factor times in original_context are divided by `factor`, those
              // that turn more than high_freq_factor times are kept, and between the two it goes smoothly
    yarn,     // Peng et al. 2023: the same with beta_slow and beta_fast, by a ramp over the pairs of a head, and
              // cosine and sine times attention_factor
    divided,  // each by its own number (LongRoPE with one list, rope_freqs.weight of a GGUF file)
  };
  Type type = Type::none;
  double factor = 1;
  int64_t original_context = 0;  // positions
  double low_freq_factor = 0, high_freq_factor = 0;
  double beta_fast = 0, beta_slow = 0;
  double attention_factor = 1;
  std::vector<float> divisors = {};  // [D/2]
  bool operator==(const RopeScaling&) const = default;
};

// attention_factor of yarn where a file has none: 1 + 0.1 · weight · ln(factor), which is 1 for a factor of at most 1.
double yarn_attention_factor(double factor, double weight = 1);

std::vector<float> rope_frequencies(int64_t head_dim, double theta, const RopeScaling& scaling = {});  // [D/2]
// What a GGUF file has to divide the unscaled frequencies by (llama3, divided) [D/2]; empty for the other types.
std::vector<float> rope_divisors(int64_t head_dim, double theta, const RopeScaling& scaling);

// Of one position: cosine and sine [D/2], times attention_factor.
void rope_row(int64_t position, std::span<const float> frequency, float* cosine, float* sine, float attention_factor = 1);

}  // namespace fathom::model
