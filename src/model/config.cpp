#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "core/limits.h"
#include "model/rope_config.h"

namespace fathom::model {
namespace {

// What transformers' classes assume where a config.json leaves a key out.
struct Family {
  const char* model_type;
  const char* architecture;
  int64_t kv_heads = 0;  // 0: as many as heads
  int64_t head_dim = 0;  // 0: the heads' share of the width
  int64_t context = 2048;
};
constexpr Family kLlama{"llama", "LlamaForCausalLM"}, kFathom{"fathom", "FathomForCausalLM"}, kMistral{"mistral", "MistralForCausalLM", 8, 0, 131072},
    kQwen2{"qwen2", "Qwen2ForCausalLM", 32, 0, 32768}, kQwen3{"qwen3", "Qwen3ForCausalLM", 32, 128, 32768};
constexpr double kAbsentRmsNormEps = 1e-6;
constexpr int64_t kAbsentWindow = 4096, kAbsentWindowBlocks = 28;  // Mistral's and Qwen's

Family read_family(const Fields& fields) {
  const std::string type = fields.string("model_type");
  std::string names;
  for (const Family& family : {kLlama, kMistral, kQwen2, kQwen3, kFathom}) {
    if (type == family.model_type) return family;
    names += str(names.empty() ? "" : ", ", family.model_type);
  }
  fields.wrong("model_type", "\"" + printable(type) + "\"", "one of " + names, "other architectures cannot be computed here");
}

// The family whose models have just these properties.
Family family_of(const ModelConfig& c) {
  const bool same_biases = c.qkv_bias == c.output_bias;
  if (!c.routing.dense() || c.adapters.rank > 0) return kFathom;
  if (!c.qk_norm && same_biases) return kLlama;
  if (c.qk_norm && same_biases && !c.mlp_bias) return kQwen3;
  if (!c.qk_norm && c.qkv_bias && !c.mlp_bias) return kQwen2;
  return kFathom;
}

void read_biases(const Fields& fields, const std::string& type, ModelConfig& c) {
  if (type == "mistral") return;
  c.qkv_bias = type == "qwen2" || fields.boolean("attention_bias", false);
  c.output_bias = type != "qwen2" && c.qkv_bias;
  c.qk_norm = type == "qwen3";
  if (type == "llama" || type == "fathom") c.mlp_bias = fields.boolean("mlp_bias", false);
  if (type != "fathom") return;
  c.output_bias = fields.boolean("attention_output_bias", c.qkv_bias);
  c.qk_norm = fields.boolean("qk_norm", false);
}

// The window of attention: how many positions up to its own a token sees in at least one block. Nothing where it sees them all.
std::optional<int64_t> read_window(const Fields& fields, const std::string& type, int64_t blocks) {
  const auto window = [&] { return fields.integer("sliding_window", 1, limits::kContext, kAbsentWindow); };
  const bool null = fields.value().contains("sliding_window") && !fields.has("sliding_window");
  if (type == "mistral" && !null) return window();
  if (!type.starts_with("qwen") || null || !fields.boolean("use_sliding_window", false)) return {};
  bool used = fields.integer("max_window_layers", 0, limits::kBlocks, kAbsentWindowBlocks) < blocks;
  if (fields.has("layer_types")) {
    const std::vector<std::string> types = fields.strings("layer_types");
    for (size_t i = 0; i < types.size(); ++i)
      if (types[i] != "full_attention" && types[i] != "sliding_attention")
        fields.wrong(str("layer_types[", i, "]"), "\"" + printable(types[i]) + "\"", "\"full_attention\" or \"sliding_attention\"");
    used = std::ranges::find(types, "sliding_attention") != types.end();
  }
  return used ? std::optional(window()) : std::nullopt;
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

Adapters read_adapters(const Fields& fields) {
  Adapters out;
  out.rank = fields.integer("rank", 1, limits::kWidth);
  out.projections = fields.strings("projections");
  size_t next = 0;
  for (const std::string& name : out.projections) {
    while (next < std::size(kProjections) && name != kProjections[next]) ++next;
    if (next++ == std::size(kProjections)) fields.wrong("projections", "\"" + printable(name) + "\"", "some of q, k, v, o, gate, up, down, in this order and each once");
  }
  if (out.projections.empty()) fields.wrong("projections", "none", "at least one of q, k, v, o, gate, up, down");
  fields.done();
  return out;
}

}  // namespace

bool Adapters::on(const std::string& projection) const { return std::ranges::find(projections, projection) != projections.end(); }

ModelConfig ModelConfig::from_json(const Json& json, const std::string& where) {
  using namespace limits;
  const Fields f(json, where);
  const ModelConfig d;
  ModelConfig c;

  const Family family = read_family(f);
  const std::string type = family.model_type;
  if (f.has("quantization_config"))
    f.wrong("quantization_config", describe(f.raw("quantization_config")), "no such key", "quantised checkpoints cannot be read here");
  const std::string activation = f.string("hidden_act", "silu");
  if (activation != "silu") f.wrong("hidden_act", "\"" + printable(activation) + "\"", "\"silu\"");
  read_biases(f, type, c);

  c.vocab_size = f.integer("vocab_size", 1, kVocabulary);
  c.hidden_size = f.integer("hidden_size", 1, kWidth);
  c.intermediate_size = f.integer("intermediate_size", 1, kFeedForwardWidth);
  c.num_hidden_layers = f.integer("num_hidden_layers", 1, kBlocks);
  c.num_attention_heads = f.integer("num_attention_heads", 1, kHeads);
  // A null is no key left out: it means as many as heads, and the heads' share of the width.
  const bool absent_groups = family.kv_heads > 0 && !json.contains("num_key_value_heads"), absent_width = family.head_dim > 0 && !json.contains("head_dim");
  c.num_key_value_heads = f.integer("num_key_value_heads", 1, kHeads, absent_groups ? family.kv_heads : c.num_attention_heads);
  if (!f.has("head_dim") && !absent_width && c.hidden_size % c.num_attention_heads != 0)
    f.missing("head_dim", str("a head width, since hidden_size ", c.hidden_size, " is no multiple of num_attention_heads ",
                              c.num_attention_heads));
  c.head_dim = f.integer("head_dim", 1, kHeadWidth, absent_width ? family.head_dim : c.hidden_size / c.num_attention_heads);
  c.max_position_embeddings = f.integer("max_position_embeddings", 1, kContext, family.context);
  c.rms_norm_eps = f.number("rms_norm_eps", kRmsNormEpsLow, kRmsNormEpsHigh, kAbsentRmsNormEps);
  const RopeConfig rope = read_rope(f, c.head_dim, c.max_position_embeddings);
  c.rope_theta = rope.theta, c.rope_scaling = rope.scaling;
  if (const auto window = read_window(f, type, c.num_hidden_layers)) c.max_position_embeddings = std::min(c.max_position_embeddings, *window);
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
    if (f.has("adapters")) c.adapters = read_adapters(f.object("adapters"));
  } else if (f.has("fathom")) {
    f.wrong("fathom", describe(f.raw("fathom")), str("no such key where model_type is \"", type, "\""),
            "other programs would run every token through every block; write \"fathom\" as model_type");
  }
  c.validate(where);
  return c;
}

Json ModelConfig::to_json() const {
  const Family family = family_of(*this);
  const bool fathom = family.model_type == std::string_view("fathom");
  Json j = {{"architectures", Json::array({family.architecture})},
            {"model_type", family.model_type},
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
            {"rope_parameters", rope_parameters(rope_theta, rope_scaling, max_position_embeddings)},
            {"initializer_range", initializer_range},
            {"tie_word_embeddings", tie_word_embeddings},
            {"attention_bias", qkv_bias},
            {"mlp_bias", mlp_bias},
            {"bos_token_id", nullptr},
            {"eos_token_id", nullptr},
            {"pad_token_id", nullptr}};
  if (bos_token_id) j["bos_token_id"] = *bos_token_id;
  if (eos_token_ids.size() == 1) j["eos_token_id"] = eos_token_ids[0];
  if (eos_token_ids.size() > 1) j["eos_token_id"] = eos_token_ids;
  if (pad_token_id) j["pad_token_id"] = *pad_token_id;
  if (rope_scaling.type != RopeScaling::Type::none) j["rope_scaling"] = j["rope_parameters"];  // where transformers looked before 5
  if (fathom && output_bias != qkv_bias) j["attention_output_bias"] = output_bias;
  if (fathom && qk_norm) j["qk_norm"] = true;
  if (adapters.rank > 0) j["adapters"] = {{"rank", adapters.rank}, {"projections", adapters.projections}};
  if (fathom) j["fathom"] = routing.to_json();
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
  if (adapters.rank > 0) within("adapters.rank", adapters.rank, 1, hidden_size);
  validate_rope(rope_scaling, rope_theta, head_dim, where);
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

int64_t ModelConfig::silent_blocks() const {
  int64_t count = 0;
  for (int64_t block = 0; block < num_hidden_layers; ++block) count += !has_part(block, routing::Part::attention);
  return count;
}

}  // namespace fathom::model
