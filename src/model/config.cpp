#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "core/limits.h"

namespace fathom::model {
namespace {

// What Llama's code assumes when a config.json of the Hugging Face world leaves the key out.
constexpr double kAbsentRmsNormEps = 1e-6;

void refuse_true(const Fields& fields, const std::string& key, const char* what) {
  if (fields.boolean(key, false)) fields.wrong(key, "true", "false", str("models with ", what, " cannot be computed here"));
}

void refuse_rope_type(const Fields& rope) {
  for (const char* key : {"rope_type", "type"}) {
    const std::string type = rope.string(key, "default");
    if (type != "default")
      rope.wrong(key, "\"" + printable(type) + "\"", "\"default\"", "scaled rotary positions cannot be computed here");
  }
  if (rope.number("partial_rotary_factor", 0, 1, 1.0) != 1)
    rope.wrong("partial_rotary_factor", describe(rope.raw("partial_rotary_factor")), "1");
}

// transformers 5 writes "rope_parameters", earlier releases "rope_theta" and "rope_scaling"; both may stand together.
double read_rope_theta(const Fields& fields, double fallback) {
  if (fields.has("rope_scaling")) refuse_rope_type(fields.object("rope_scaling"));
  const double theta = fields.number("rope_theta", 1, limits::kRopeTheta, fallback);
  if (!fields.has("rope_parameters")) return theta;
  const Fields rope = fields.object("rope_parameters");
  refuse_rope_type(rope);
  const double inner = rope.number("rope_theta", 1, limits::kRopeTheta, theta);
  if (fields.has("rope_theta") && inner != theta)
    rope.wrong("rope_theta", str(inner), str(theta, ", as the key rope_theta beside it says"), "remove one of them");
  return inner;
}

std::vector<int64_t> read_eos(const Fields& fields, int64_t vocab_size) {
  const std::string key = "eos_token_id";
  if (!fields.has(key)) return {};
  if (!fields.raw(key).is_array()) return {fields.integer(key, 0, vocab_size - 1)};
  std::vector<int64_t> ids = fields.integers(key, 0, vocab_size - 1);
  if (static_cast<int64_t>(ids.size()) > limits::kEosTokens)
    fields.wrong(key, describe(fields.raw(key)), str("at most ", limits::kEosTokens, " ids"));
  return ids;
}

}  // namespace

ModelConfig ModelConfig::from_json(const Json& json, const std::string& where) {
  using namespace limits;
  const Fields f(json, where);
  const ModelConfig d;
  ModelConfig c;

  const std::string type = f.string("model_type");
  if (type != "llama" && type != "fathom")
    f.wrong("model_type", "\"" + printable(type) + "\"", "\"llama\" or \"fathom\"", "other architectures cannot be computed here");
  if (f.has("quantization_config"))
    f.wrong("quantization_config", describe(f.raw("quantization_config")), "no such key", "quantised checkpoints cannot be read here");
  const std::string activation = f.string("hidden_act", "silu");
  if (activation != "silu") f.wrong("hidden_act", "\"" + printable(activation) + "\"", "\"silu\"");
  refuse_true(f, "attention_bias", "biases in attention");
  refuse_true(f, "mlp_bias", "biases in the feed-forward part");

  c.vocab_size = f.integer("vocab_size", 1, kVocabulary);
  c.hidden_size = f.integer("hidden_size", 1, kWidth);
  c.intermediate_size = f.integer("intermediate_size", 1, kFeedForwardWidth);
  c.num_hidden_layers = f.integer("num_hidden_layers", 1, kBlocks);
  c.num_attention_heads = f.integer("num_attention_heads", 1, kHeads);
  c.num_key_value_heads = f.integer("num_key_value_heads", 1, kHeads, c.num_attention_heads);
  if (!f.has("head_dim") && c.hidden_size % c.num_attention_heads != 0)
    f.missing("head_dim", str("a head width, since hidden_size ", c.hidden_size, " is no multiple of num_attention_heads ",
                              c.num_attention_heads));
  c.head_dim = f.integer("head_dim", 1, kHeadWidth, c.hidden_size / c.num_attention_heads);
  c.max_position_embeddings = f.integer("max_position_embeddings", 1, kContext, d.max_position_embeddings);
  c.rms_norm_eps = f.number("rms_norm_eps", kRmsNormEpsLow, kRmsNormEpsHigh, kAbsentRmsNormEps);
  c.rope_theta = read_rope_theta(f, d.rope_theta);
  if (f.number("partial_rotary_factor", 0, 1, 1.0) != 1)
    f.wrong("partial_rotary_factor", describe(f.raw("partial_rotary_factor")), "1");
  c.initializer_range = f.number("initializer_range", 0, 1, d.initializer_range);
  c.tie_word_embeddings = f.boolean("tie_word_embeddings", d.tie_word_embeddings);
  if (f.has("bos_token_id")) c.bos_token_id = f.integer("bos_token_id", 0, c.vocab_size - 1);
  c.eos_token_ids = read_eos(f, c.vocab_size);
  if (f.has("pad_token_id")) {  // old Llama conversions write −1 for none
    const int64_t pad = f.integer("pad_token_id", -1, c.vocab_size - 1);
    if (pad >= 0) c.pad_token_id = pad;
  }

  if (type == "fathom") {
    c.routing = routing::RoutingConfig::from_json(f.object("fathom"), c.num_hidden_layers);
  } else if (f.has("fathom")) {
    f.wrong("fathom", describe(f.raw("fathom")), "no such key where model_type is \"llama\"",
            "other programs would run every token through every block; write \"fathom\" as model_type");
  }
  c.validate(where);
  return c;
}

Json ModelConfig::to_json() const {
  Json j = {{"architectures", Json::array({routing.dense() ? "LlamaForCausalLM" : "FathomForCausalLM"})},
            {"model_type", routing.dense() ? "llama" : "fathom"},
            {"vocab_size", vocab_size},
            {"hidden_size", hidden_size},
            {"intermediate_size", intermediate_size},
            {"num_hidden_layers", num_hidden_layers},
            {"num_attention_heads", num_attention_heads},
            {"num_key_value_heads", num_key_value_heads},
            {"head_dim", head_dim},
            {"hidden_act", "silu"},
            {"max_position_embeddings", max_position_embeddings},
            {"rms_norm_eps", rms_norm_eps},
            {"rope_theta", rope_theta},
            {"rope_parameters", {{"rope_theta", rope_theta}, {"rope_type", "default"}}},
            {"initializer_range", initializer_range},
            {"tie_word_embeddings", tie_word_embeddings},
            {"attention_bias", false},
            {"mlp_bias", false},
            {"bos_token_id", nullptr},
            {"eos_token_id", nullptr},
            {"pad_token_id", nullptr}};
  if (bos_token_id) j["bos_token_id"] = *bos_token_id;
  if (eos_token_ids.size() == 1) j["eos_token_id"] = eos_token_ids[0];
  if (eos_token_ids.size() > 1) j["eos_token_id"] = eos_token_ids;
  if (pad_token_id) j["pad_token_id"] = *pad_token_id;
  if (!routing.dense()) j["fathom"] = routing.to_json();
  return j;
}

void ModelConfig::validate(const std::string& where) const {
  using namespace limits;
  const auto hold = [&](bool right, const std::string& field, const std::string& found, const std::string& expected) {
    if (!right) throw UserError({where, field, found, expected, ""});
  };
  const auto within = [&](const char* field, int64_t value, int64_t low, int64_t high) {
    hold(value >= low && value <= high, field, str(value), str("a whole number from ", low, " to ", high));
  };
  within("vocab_size", vocab_size, 1, kVocabulary);
  within("hidden_size", hidden_size, 1, kWidth);
  within("intermediate_size", intermediate_size, 1, kFeedForwardWidth);
  within("num_hidden_layers", num_hidden_layers, 1, kBlocks);
  within("num_attention_heads", num_attention_heads, 1, kHeads);
  within("num_key_value_heads", num_key_value_heads, 1, kHeads);
  within("head_dim", head_dim, 1, kHeadWidth);
  within("max_position_embeddings", max_position_embeddings, 1, kContext);
  hold(num_attention_heads % num_key_value_heads == 0, "num_key_value_heads", str(num_key_value_heads),
       str("a divisor of num_attention_heads ", num_attention_heads));
  hold(head_dim % 2 == 0, "head_dim", str(head_dim), "an even number (rotary positions turn pairs)");
  hold(rms_norm_eps >= kRmsNormEpsLow && rms_norm_eps <= kRmsNormEpsHigh, "rms_norm_eps", str(rms_norm_eps),
       str("a number from ", kRmsNormEpsLow, " to ", kRmsNormEpsHigh));
  hold(rope_theta >= 1 && rope_theta <= kRopeTheta, "rope_theta", str(rope_theta), str("a number from 1 to ", kRopeTheta));
  const int64_t HD = num_attention_heads * head_dim, GD = num_key_value_heads * head_dim;
  for (size_t u = 0; u < routing.units.size(); ++u) {
    const routing::RoutedUnit& unit = routing.units[u];
    const auto field = [u](const std::string& name) { return str("fathom.units[", u, "].", name); };
    hold(unit.block >= 0 && unit.block < num_hidden_layers && (u == 0 || routing.units[u - 1].before(unit)), field("block"), unit.name(),
         str("ascending indices below num_hidden_layers ", num_hidden_layers, ", a block's attention before its MLP"));
    if (const auto [name, expected] = unit.problem(); !name.empty()) {
      const double share = name == "capacity" ? unit.capacity : name == "light_capacity" ? unit.light_capacity : unit.skip_capacity;
      hold(false, field(name), name == "paths" ? unit.paths.text() : name == "light_rank" ? str(unit.light_rank) : str(share), expected);
    }
    // What a token that takes the light path does not pay: keys and values are everybody's with kv keep.
    const bool keeps = routing.kv == routing::KvPolicy::keep && !unit.is_static();
    const int64_t saved = (unit.covers(routing::Part::attention) ? 2 * HD + (keeps ? 0 : 2 * GD) : 0) + (unit.covers(routing::Part::mlp) ? 3 * intermediate_size : 0);
    hold(2 * unit.light_rank < saved, field("light_rank"), str(unit.light_rank), str("below ", (saved + 1) / 2, ", from which on light costs as much as what it stands for"));
  }
  const double H = static_cast<double>(num_attention_heads), G = static_cast<double>(num_key_value_heads);
  const double C = static_cast<double>(hidden_size), D = static_cast<double>(head_dim);
  const double block = C * (2 * (H + G) * D + 3 * static_cast<double>(intermediate_size) + C / 2);
  const double total = static_cast<double>(num_hidden_layers) * block + (tie_word_embeddings ? 1 : 2) * static_cast<double>(vocab_size) * C;
  hold(total <= static_cast<double>(kParameters), "", str("a model of about ", total, " parameters"),
       str("at most ", kParameters));
}

}  // namespace fathom::model
