#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace fathom::model {
namespace {

using Type = RopeScaling::Type;

// theta to the power of a pair's share of the head: one over its frequency.
float period(int64_t pair, int64_t head_dim, double theta) {
  const float exponent = static_cast<float>(2 * pair) / static_cast<float>(head_dim);
  return static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
}

float llama3_frequency(float frequency, const RopeScaling& s) {
  const float context = static_cast<float>(s.original_context), factor = static_cast<float>(s.factor);
  const float low = static_cast<float>(s.low_freq_factor);
  const float longest = static_cast<float>(static_cast<double>(s.original_context) / s.low_freq_factor);
  const float shortest = static_cast<float>(static_cast<double>(s.original_context) / s.high_freq_factor);
  const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
  if (wavelength > longest) return frequency / factor;
  if (wavelength < shortest) return frequency;
  const float smooth = (context / wavelength - low) / static_cast<float>(s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

// The pair of a head whose frequency turns `turns` times within the original context.
double yarn_pair(double turns, int64_t head_dim, double theta, const RopeScaling& s) {
  return static_cast<double>(head_dim) * std::log(static_cast<double>(s.original_context) / (turns * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

std::vector<float> yarn_frequencies(int64_t head_dim, double theta, const RopeScaling& s) {
  const double low = std::max(std::floor(yarn_pair(s.beta_fast, head_dim, theta, s)), 0.0);
  double high = std::min(std::ceil(yarn_pair(s.beta_slow, head_dim, theta, s)), static_cast<double>(head_dim - 1));
  if (low == high) high += 0.001;
  std::vector<float> out;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const float at = period(i, head_dim, theta), kept = 1.0f / at, stretched = 1.0f / (static_cast<float>(s.factor) * at);
    const float ramp = std::clamp((static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f, 1.0f);
    const float share = 1 - ramp;  // of the frequency as it was
    out.push_back(stretched * (1 - share) + kept * share);
  }
  return out;
}

}  // namespace

double yarn_attention_factor(double factor, double weight) { return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1; }

std::vector<float> rope_frequencies(int64_t head_dim, double theta, const RopeScaling& scaling) {
  if (scaling.type == Type::yarn) return yarn_frequencies(head_dim, theta, scaling);
  FATHOM_ASSERT(scaling.type != Type::divided || static_cast<int64_t>(scaling.divisors.size()) == head_dim / 2, scaling.divisors.size());
  std::vector<float> out;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const float at = period(i, head_dim, theta);
    switch (scaling.type) {
      case Type::linear: out.push_back(1.0f / at / static_cast<float>(scaling.factor)); break;
      case Type::llama3: out.push_back(llama3_frequency(1.0f / at, scaling)); break;
      case Type::divided: out.push_back(1.0f / (scaling.divisors[static_cast<size_t>(i)] * at)); break;
      default: out.push_back(1.0f / at);
    }
  }
  return out;
}

std::vector<float> rope_divisors(int64_t head_dim, double theta, const RopeScaling& scaling) {
  if (scaling.type == Type::divided) return scaling.divisors;
  if (scaling.type != Type::llama3) return {};
  const std::vector<float> plain = rope_frequencies(head_dim, theta), scaled = rope_frequencies(head_dim, theta, scaling);
  std::vector<float> out;
  for (size_t i = 0; i < plain.size(); ++i) out.push_back(plain[i] / scaled[i]);
  return out;
}

void rope_row(int64_t position, std::span<const float> frequency, float* cosine, float* sine, float attention_factor) {
  for (size_t i = 0; i < frequency.size(); ++i) {
    const float angle = static_cast<float>(position) * frequency[i];
    cosine[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * attention_factor;
    sine[i] = static_cast<float>(std::sin(static_cast<double>(angle))) * attention_factor;
  }
}

}  // namespace fathom::model
