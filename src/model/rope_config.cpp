#include "model/rope_config.h"

#include <algorithm>
#include <cmath>

#include "core/limits.h"

namespace fathom::model {
namespace {

using namespace limits;
using Type = RopeScaling::Type;

constexpr const char* kTypes = "\"default\", \"linear\", \"llama3\", \"yarn\" or \"longrope\"";
constexpr const char* kUnknown = "positions that are scaled so cannot be computed here";

const char* type_name(Type type) {
  switch (type) {
    case Type::none: return "default";
    case Type::linear: return "linear";
    case Type::llama3: return "llama3";
    case Type::yarn: return "yarn";
    case Type::divided: return "longrope";
  }
  FATHOM_ASSERT(false, "a type without a name");
}

Type read_type(const Fields& rope) {
  // "type" is what earlier files say; some say both.
  const std::string old = rope.string("type", "default"), name = rope.string("rope_type", old);
  if (rope.has("type") && old != name) rope.wrong("type", "\"" + printable(old) + "\"", "\"" + printable(name) + "\", as rope_type says");
  for (const Type type : {Type::none, Type::linear, Type::llama3, Type::yarn, Type::divided})
    if (name == type_name(type)) return type;
  rope.wrong(rope.has("rope_type") ? "rope_type" : "type", "\"" + printable(name) + "\"", kTypes, kUnknown);
}

double number(const Fields& rope, const char* key, std::optional<double> fallback = {}) {
  return rope.number(key, kRopeFactorLow, kRopeFactorHigh, fallback);
}

void read_yarn(const Fields& rope, RopeScaling& s, int64_t max_position_embeddings) {
  const double ratio = static_cast<double>(max_position_embeddings) / static_cast<double>(s.original_context);
  s.factor = rope.has("factor") ? rope.number("factor", 1, kRopeFactorHigh) : ratio;
  s.beta_fast = number(rope, "beta_fast", 32);
  s.beta_slow = number(rope, "beta_slow", 1);
  if (!rope.boolean("truncate", true)) rope.wrong("truncate", "false", "true", kUnknown);
  // Both weights or neither, as DeepSeek's files have them; 0 is none.
  const double above = rope.number("mscale", 0, kRopeFactorHigh, 0), below = rope.number("mscale_all_dim", 0, kRopeFactorHigh, 0);
  const double usual = above > 0 && below > 0 ? yarn_attention_factor(s.factor, above) / yarn_attention_factor(s.factor, below)
                                              : yarn_attention_factor(s.factor);
  s.attention_factor = number(rope, "attention_factor", usual);
}

void read_longrope(const Fields& rope, RopeScaling& s, int64_t head_dim) {
  const std::vector<double> within = rope.numbers("short_factor", kRopeFactorLow, kRopeFactorHigh);
  const std::vector<double> beyond = rope.numbers("long_factor", kRopeFactorLow, kRopeFactorHigh);
  if (within != beyond) rope.wrong("long_factor", "other numbers than short_factor has", "the same", "frequencies that change with the text's length cannot be computed here");
  if (static_cast<int64_t>(within.size()) != head_dim / 2)
    rope.wrong("short_factor", describe(rope.raw("short_factor")), str("half of head_dim ", head_dim, " numbers"));
  // Where the key is missing transformers takes another one than 1.
  if (number(rope, "attention_factor") != 1) rope.wrong("attention_factor", describe(rope.raw("attention_factor")), "1", kUnknown);
  for (const double divisor : within) s.divisors.push_back(static_cast<float>(divisor));
}

RopeScaling read_scaling(const Fields& fields, const Fields& rope, int64_t head_dim, int64_t max_position_embeddings) {
  RopeScaling s;
  s.type = read_type(rope);
  if (rope.number("partial_rotary_factor", 0, 1, 1.0) != 1)
    rope.wrong("partial_rotary_factor", describe(rope.raw("partial_rotary_factor")), "1");
  if (s.type == Type::llama3 || s.type == Type::yarn) {
    const char* const key = "original_max_position_embeddings";  // beside the other keys of the model in some files
    s.original_context = (fields.has(key) ? fields : rope).integer(key, 1, kContext, max_position_embeddings);
  }
  switch (s.type) {
    case Type::none: break;
    case Type::linear: s.factor = rope.number("factor", 1, kRopeFactorHigh); break;
    case Type::llama3:
      s.factor = rope.number("factor", 1, kRopeFactorHigh);
      s.low_freq_factor = number(rope, "low_freq_factor");
      s.high_freq_factor = number(rope, "high_freq_factor");
      break;
    case Type::yarn: read_yarn(rope, s, max_position_embeddings); break;
    case Type::divided: read_longrope(rope, s, head_dim); break;
  }
  return s;
}

}  // namespace

RopeConfig read_rope(const Fields& fields, int64_t head_dim, int64_t max_position_embeddings) {
  RopeConfig out;
  out.theta = fields.number("rope_theta", 1, kRopeTheta, out.theta);
  if (fields.number("partial_rotary_factor", 0, 1, 1.0) != 1)
    fields.wrong("partial_rotary_factor", describe(fields.raw("partial_rotary_factor")), "1");
  const char* first = nullptr;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!fields.has(key)) continue;
    const Fields rope = fields.object(key);
    const double theta = rope.number("rope_theta", 1, kRopeTheta, out.theta);
    if (fields.has("rope_theta") && theta != out.theta)
      rope.wrong("rope_theta", str(theta), str(out.theta, ", as the key rope_theta beside it says"), "remove one of them");
    out.theta = theta;
    const RopeScaling scaling = read_scaling(fields, rope, head_dim, max_position_embeddings);
    if (first && scaling != out.scaling) fields.wrong(key, "another scaling", str("what ", first, " beside it says"), "remove one of them");
    out.scaling = scaling;
    first = key;
  }
  return out;
}

Json rope_parameters(double theta, const RopeScaling& s, int64_t max_position_embeddings) {
  Json j = {{"rope_theta", theta}, {"rope_type", type_name(s.type)}};
  const char* const original = "original_max_position_embeddings";
  switch (s.type) {
    case Type::none: break;
    case Type::linear: j["factor"] = s.factor; break;
    case Type::llama3:
      j.update({{"factor", s.factor}, {"low_freq_factor", s.low_freq_factor}, {"high_freq_factor", s.high_freq_factor}, {original, s.original_context}});
      break;
    case Type::yarn:
      j.update({{"factor", s.factor}, {"beta_fast", s.beta_fast}, {"beta_slow", s.beta_slow}, {"attention_factor", s.attention_factor}, {original, s.original_context}});
      break;
    case Type::divided:
      j.update({{"short_factor", s.divisors}, {"long_factor", s.divisors}, {"factor", 1.0}, {"attention_factor", 1.0}, {original, max_position_embeddings}});
      break;
  }
  return j;
}

void validate_rope(const RopeScaling& s, double theta, int64_t head_dim, const std::string& where) {
  const auto hold = [&](bool right, const char* field, double found, const std::string& expected) {
    if (!right) throw UserError({where, str("rope_parameters.", field), str(found), expected, ""});
  };
  const auto within = [&](const char* field, double value, double low) {
    hold(value >= low && value <= kRopeFactorHigh, field, value, str("a number from ", low, " to ", kRopeFactorHigh));
  };
  if (s.type == Type::none) return;
  within("factor", s.factor, 1);
  within("attention_factor", s.attention_factor, kRopeFactorLow);
  if (s.type == Type::llama3) {
    within("low_freq_factor", s.low_freq_factor, kRopeFactorLow);
    within("high_freq_factor", s.high_freq_factor, kRopeFactorLow);
    hold(s.low_freq_factor < s.high_freq_factor, "high_freq_factor", s.high_freq_factor, str("more than low_freq_factor ", s.low_freq_factor));
  }
  if (s.type == Type::yarn) {
    within("beta_fast", s.beta_fast, kRopeFactorLow);
    within("beta_slow", s.beta_slow, kRopeFactorLow);
    hold(s.beta_slow < s.beta_fast, "beta_fast", s.beta_fast, str("more than beta_slow ", s.beta_slow));
    hold(theta > 1, "rope_theta", theta, "more than 1 with positions scaled by yarn");
  }
  if (s.type == Type::llama3 || s.type == Type::yarn)
    hold(s.original_context >= 1 && s.original_context <= kContext, "original_max_position_embeddings", static_cast<double>(s.original_context),
         str("a whole number from 1 to ", kContext));
  if (s.type == Type::divided) {
    hold(static_cast<int64_t>(s.divisors.size()) == head_dim / 2, "short_factor", static_cast<double>(s.divisors.size()), str("half of head_dim ", head_dim, " numbers"));
    for (const float divisor : s.divisors) within("short_factor", divisor, kRopeFactorLow);
  }
}

std::string describe_rope(const RopeScaling& s) {
  if (s.type == Type::none) return "";
  return s.type == Type::divided ? "each frequency by a number of its own" : str(type_name(s.type), ", ", s.factor, " times");
}

}  // namespace fathom::model
