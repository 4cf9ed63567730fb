#include <gtest/gtest.h>

#include "core/limits.h"
#include "model/config.h"
#include "routing/config.h"

namespace fathom::model {
namespace {

struct Bound {
  std::string field;     // the path in config.json
  Json at, past;         // the last value that is read, and one beyond it
  std::string besides;   // merge patch that lets a model have such a value
};

constexpr const char* kLlama3 = R"({"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}})";
constexpr const char* kYarn = R"({"rope_parameters": {"rope_type": "yarn", "factor": 8}})";
constexpr const char* kDivided =
    R"({"rope_parameters": {"rope_type": "longrope", "attention_factor": 1, "long_factor": [1, 1000000, 0.0009765625]}})";
constexpr const char* kWindow = R"({"model_type": "qwen2", "fathom": null, "num_key_value_heads": 4, "use_sliding_window": true, "layer_types": ["sliding_attention"]})";

Json with(const Bound& bound, const Json& value) {
  Json json = parse_json(R"({"model_type": "fathom", "vocab_size": 100, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4,
    "num_attention_heads": 4, "head_dim": 6, "rms_norm_eps": 1e-5,
    "fathom": {"version": 1, "routed_blocks": [1], "capacity": [0.5]}})", "base");
  if (!bound.besides.empty()) json.merge_patch(parse_json(bound.besides, "besides"));
  json[Json::json_pointer("/" + bound.field)] = value;
  return json;
}

// A config.json may hold a value at its bound and none beyond it, and the refusal names the field.
TEST(ModelConfig, EveryBoundHolds) {
  using namespace limits;
  const Json eos_at(std::vector<int64_t>(static_cast<size_t>(kEosTokens), 3)), eos_past(std::vector<int64_t>(static_cast<size_t>(kEosTokens) + 1, 3));
  const Bound bounds[] = {
      {"vocab_size", kVocabulary, kVocabulary + 1, ""},
      {"hidden_size", kWidth, kWidth + 1, ""},
      {"intermediate_size", kFeedForwardWidth, kFeedForwardWidth + 1, ""},
      {"num_hidden_layers", kBlocks, kBlocks + 1, ""},
      {"num_attention_heads", kHeads, kHeads + 1, ""},
      {"num_key_value_heads", kHeads, kHeads + 1, str("{\"num_attention_heads\": ", kHeads, "}")},
      {"head_dim", kHeadWidth, kHeadWidth + 2, ""},
      {"max_position_embeddings", kContext, kContext + 1, ""},
      {"eos_token_id", eos_at, eos_past, ""},
      {"rms_norm_eps", kRmsNormEpsLow, kRmsNormEpsLow / 2, ""},
      {"rms_norm_eps", kRmsNormEpsHigh, kRmsNormEpsHigh * 2, ""},
      {"rope_theta", kRopeTheta, kRopeTheta * 2, ""},
      {"rope_parameters/factor", kRopeFactorHigh, kRopeFactorHigh * 2, R"({"rope_parameters": {"rope_type": "linear"}})"},
      {"rope_parameters/factor", 1, 0.5, R"({"rope_parameters": {"rope_type": "linear"}})"},
      {"rope_parameters/original_max_position_embeddings", kContext, kContext + 1, kLlama3},
      {"rope_parameters/low_freq_factor", kRopeFactorLow, kRopeFactorLow / 2, kLlama3},
      {"rope_parameters/high_freq_factor", kRopeFactorHigh, kRopeFactorHigh * 2, kLlama3},
      {"rope_parameters/beta_fast", kRopeFactorHigh, kRopeFactorHigh * 2, kYarn},
      {"rope_parameters/beta_slow", kRopeFactorLow, kRopeFactorLow / 2, kYarn},
      {"rope_parameters/attention_factor", kRopeFactorHigh, kRopeFactorHigh * 2, kYarn},
      {"rope_parameters/attention_factor", kRopeFactorLow, kRopeFactorLow / 2, kYarn},
      {"rope_parameters/mscale", kRopeFactorHigh, kRopeFactorHigh * 2, kYarn},
      {"rope_parameters/short_factor", Json({1, kRopeFactorHigh, kRopeFactorLow}), Json({1, kRopeFactorHigh * 2, 1}), kDivided},
      {"sliding_window", kContext, kContext + 1, kWindow},
      {"max_window_layers", kBlocks, kBlocks + 1, kWindow},
      {"fathom/forced_positions", kContext, kContext + 1, ""},
      {"fathom/gate_scale", kGateScale, kGateScale * 2, ""},
  };
  for (const Bound& b : bounds) {
    EXPECT_NO_THROW(ModelConfig::from_json(with(b, b.at), "config.json")) << b.field;
    try {
      ModelConfig::from_json(with(b, b.past), "config.json");
      ADD_FAILURE() << b.field << " beyond its bound was read";
    } catch (const UserError& e) {
      const std::string name = b.field.substr(b.field.rfind('/') + 1);
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
    }
  }
}

TEST(ModelConfig, TheNumberOfParametersIsBound) {  // embeddings of 2^41 parameters, once or twice: kParameters is 2^42
  static_assert(limits::kParameters == 2 * limits::kVocabulary * limits::kWidth);
  for (const bool tied : {true, false}) {
    const Bound huge{"vocab_size", limits::kVocabulary, 0, str("{\"hidden_size\": ", limits::kWidth, ", \"tie_word_embeddings\": ", tied ? "true" : "false", "}")};
    std::string message;
    try {
      ModelConfig::from_json(with(huge, huge.at), "config.json");
    } catch (const UserError& e) {
      message = e.what();
    }
    EXPECT_EQ(message.find("parameters") != std::string::npos, !tied) << message;
    EXPECT_EQ(message.empty(), tied) << message;
  }
}

}  // namespace
}  // namespace fathom::model
