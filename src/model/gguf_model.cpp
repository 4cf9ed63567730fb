#include "model/gguf_model.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/human.h"
#include "core/limits.h"
#include "model/gguf_write.h"
#include "model/schema.h"
#include "text/gguf_pre_tokenizer.h"
#include "text/gguf_vocabulary.h"

namespace fathom::model {
namespace {

using formats::GgufFile;
using formats::GgufMetadata;
using formats::GgufTensor;

constexpr const char* kArchitectures[] = {"llama", "mistral", "qwen2", "qwen3"};  // files of Mistral and SmolLM models say llama

bool is_llama(const std::string& architecture) { return architecture == "llama" || architecture == "mistral"; }

std::optional<int64_t> token_id(const GgufMetadata& m, const char* key, int64_t vocabulary) {
  if (!m.has(key)) return {};
  // Some writers put 2^32 − 1 where there is none.
  const int64_t id = m.integer(key, 0, UINT32_MAX);
  if (id == UINT32_MAX) return {};
  if (id >= vocabulary) m.wrong(key, str(id), str("an id below the vocabulary's ", vocabulary));
  return id;
}

// How positions are scaled. Without a type a factor is that of linear scaling, as llama.cpp has it.
RopeScaling read_scaling(const GgufFile& file, const ModelConfig& c, const std::string& architecture) {
  using Type = RopeScaling::Type;
  using namespace limits;
  const GgufMetadata& m = file.metadata();
  const auto key = [&](const char* name) { return str(architecture, ".rope.", name); };
  constexpr const char* kNot = "positions that are scaled so cannot be computed here";
  const std::string type = m.string(key("scaling.type"), "linear");
  const bool old = m.has(key("scale_linear")) && !m.has(key("scaling.factor"));
  const std::string factor_key = key(old ? "scale_linear" : "scaling.factor");
  const double factor = m.number(factor_key, 0, kRopeFactorHigh, 0);  // 0 is what some writers put where there is none
  RopeScaling s;
  if (type == "yarn") {
    s.type = Type::yarn;
    s.original_context = m.integer(key("scaling.original_context_length"), 1, kContext, c.max_position_embeddings);
    s.beta_fast = m.number(key("scaling.yarn_beta_fast"), kRopeFactorLow, kRopeFactorHigh, 32);
    s.beta_slow = m.number(key("scaling.yarn_beta_slow"), kRopeFactorLow, kRopeFactorHigh, 1);
  } else if (type == "linear") {
    if (factor != 0 && factor != 1) s.type = Type::linear;
  } else if (type != "none") {
    m.wrong(key("scaling.type"), "\"" + printable(type) + "\"", "\"none\", \"linear\" or \"yarn\"", kNot);
  }
  if (s.type != Type::none) s.factor = m.number(factor_key, 1, kRopeFactorHigh);
  const double attention = m.number(key("scaling.attn_factor"), kRopeFactorLow, kRopeFactorHigh, 1);
  if (s.type == Type::yarn) s.attention_factor = yarn_attention_factor(s.factor) * attention;
  else if (attention != 1) m.wrong(key("scaling.attn_factor"), str(attention), "1", kNot);
  // Releases of llama.cpp read these two differently.
  for (const char* name : {"scaling.yarn_ext_factor", "scaling.yarn_attn_factor"})
    if (const double found = m.number(key(name), -kRopeFactorHigh, kRopeFactorHigh, 1); found != 1) m.wrong(key(name), str(found), "1", kNot);
  const GgufTensor* const divisors = is_llama(architecture) ? file.find(kGgufRopeTensor) : nullptr;
  if (!divisors) return s;
  if (s.type != Type::none) m.wrong(key("scaling.type"), "\"" + printable(type) + "\"", "\"none\"", str(kGgufRopeTensor, " scales the positions already"));
  if (divisors->elements() != c.head_dim / 2)
    throw UserError({file.where(), kGgufRopeTensor, "shape " + shape_text(divisors->shape), shape_text({c.head_dim / 2}), ""});
  s.type = Type::divided;
  s.divisors = divisors->to_f32();
  for (size_t i = 0; i < s.divisors.size(); ++i)
    if (const double d = s.divisors[i]; !(d >= kRopeFactorLow && d <= kRopeFactorHigh))
      throw UserError({file.where(), str(kGgufRopeTensor, "[", i, "]"), str(d), str("a number from ", kRopeFactorLow, " to ", kRopeFactorHigh), ""});
  return s;
}

// Takes the schema's tensors out of the file under the names that `name_of` gives, and refuses any other one.
template <class NameOf>
std::unordered_map<std::string, StoredTensor> match(const GgufFile& file, const ModelConfig& config, const char* other_model, const NameOf& name_of) {
  std::unordered_map<std::string, StoredTensor> out;
  std::unordered_map<std::string_view, bool> used;
  std::vector<std::string> names;
  const std::string architecture = file.metadata().string("general.architecture");
  if (is_llama(architecture)) used[kGgufRopeTensor] = true;
  for (const TensorSpec& spec : schema(config)) {
    const std::string name = name_of(spec.name);
    const GgufTensor* tensor = file.find(name);
    if (!tensor) throw UserError({file.where(), name, "no such tensor", "a tensor of shape " + shape_text(spec.shape), other_model});
    if (tensor->shape != spec.shape) throw UserError({file.where(), name, "shape " + shape_text(tensor->shape), shape_text(spec.shape), other_model});
    out.emplace(spec.name, StoredTensor{.where = file.where(), .name = name, .type = tensor->type, .shape = spec.shape, .bytes = tensor->bytes,
                                        .interleaved_head = gguf_interleaves(architecture, name) ? config.head_dim : 0, .owner = {}});
    used[tensor->name] = true;
    names.push_back(name);
  }
  for (const GgufTensor& tensor : file.tensors()) {
    if (used.count(tensor.name)) continue;
    const std::string near = nearest(std::string(tensor.name), names);
    throw UserError({file.where(), printable(tensor.name, 200), "a tensor that this architecture does not compute", near.empty() ? "" : near + " perhaps",
                     ""});
  }
  return out;
}

}  // namespace

std::string gguf_name(const std::string& name) {
  static const std::pair<const char*, const char*> kWhole[] = {
      {"model.embed_tokens.weight", "token_embd.weight"}, {"model.norm.weight", "output_norm.weight"}, {"lm_head.weight", "output.weight"}};
  for (const auto& [ours, theirs] : kWhole)
    if (name == ours) return theirs;
  static const std::pair<const char*, const char*> kInBlock[] = {  // and then ".weight" or ".bias"
      {"input_layernorm", "attn_norm"}, {"self_attn.q_proj", "attn_q"}, {"self_attn.k_proj", "attn_k"}, {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"}, {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
      {"post_attention_layernorm", "ffn_norm"}, {"mlp.gate_proj", "ffn_gate"}, {"mlp.up_proj", "ffn_up"}, {"mlp.down_proj", "ffn_down"}};
  const std::string prefix = "model.layers.";
  const size_t dot = name.find('.', prefix.size()), end = name.rfind('.');
  for (const auto& [ours, theirs] : kInBlock)
    if (name.starts_with(prefix) && name.substr(dot + 1, end - dot - 1) == ours)
      return "blk." + name.substr(prefix.size(), dot - prefix.size()) + "." + theirs + name.substr(end);
  FATHOM_ASSERT(false, "no GGUF name for ", name);
}

bool gguf_interleaves(const std::string& architecture, const std::string& name) {
  return is_llama(architecture) && (name.find(".attn_q.") != std::string::npos || name.find(".attn_k.") != std::string::npos);
}

ModelConfig gguf_config(const GgufFile& file) {
  using namespace limits;
  const GgufMetadata& m = file.metadata();
  const std::string architecture = m.string("general.architecture");
  if (std::ranges::find(kArchitectures, architecture) == std::end(kArchitectures))
    m.wrong("general.architecture", "\"" + printable(architecture) + "\"", "llama, mistral, qwen2 or qwen3",
            architecture == kFolderArchitecture ? "it holds the weights of a model folder: open the folder" : "other architectures cannot be computed here");
  const auto key = [&](const char* name) { return str(architecture, ".", name); };
  if (const int64_t parts = m.integer("split.count", 0, 1 << 20, 0); parts > 1)
    m.wrong("split.count", str(parts), "1 or no such key", str("it is one of ", parts, " files that hold a model together: merge them first (llama-gguf-split --merge)"));

  ModelConfig c;
  const GgufTensor& embedding = file.at("token_embd.weight");
  if (embedding.shape.size() != 2)
    throw UserError({file.where(), "token_embd.weight", "shape " + shape_text(embedding.shape), "[vocabulary, width]", ""});
  c.vocab_size = embedding.shape[0];
  if (m.has(key("vocab_size")))
    if (const int64_t said = m.integer(key("vocab_size"), 1, kVocabulary); said != c.vocab_size)
      m.wrong(key("vocab_size"), str(said), str(c.vocab_size, ", the rows of token_embd.weight"));
  c.hidden_size = m.integer(key("embedding_length"), 1, kWidth);
  c.num_hidden_layers = m.integer(key("block_count"), 1, kBlocks);
  c.intermediate_size = m.integer(key("feed_forward_length"), 1, kFeedForwardWidth);
  c.num_attention_heads = m.integer(key("attention.head_count"), 1, kHeads);
  c.num_key_value_heads = m.integer(key("attention.head_count_kv"), 1, kHeads, c.num_attention_heads);
  if (!m.has(key("attention.key_length")) && c.hidden_size % c.num_attention_heads != 0)
    m.wrong(key("attention.head_count"), str(c.num_attention_heads), str("a divisor of ", key("embedding_length"), " ", c.hidden_size),
            str("or a file with ", key("attention.key_length")));
  c.head_dim = m.integer(key("attention.key_length"), 1, kHeadWidth, c.hidden_size / c.num_attention_heads);
  for (const char* same : {"attention.value_length", "rope.dimension_count"})
    if (const int64_t found = m.integer(key(same), 1, kHeadWidth, c.head_dim); found != c.head_dim)
      m.wrong(key(same), str(found), str("the head's width ", c.head_dim));
  c.max_position_embeddings = m.integer(key("context_length"), 1, kContext);
  c.rms_norm_eps = m.number(key("attention.layer_norm_rms_epsilon"), kRmsNormEpsLow, kRmsNormEpsHigh);
  c.rope_theta = m.number(key("rope.freq_base"), 1, kRopeTheta, 10000.0);
  // f32 in the file: 1e-5 comes back as 9.99999975e-06, which is what other programs compute with too.

  c.rope_scaling = read_scaling(file, c, architecture);
  c.qkv_bias = architecture == "qwen2" || file.find("blk.0.attn_q.bias");
  c.output_bias = file.find("blk.0.attn_output.bias");
  c.mlp_bias = file.find("blk.0.ffn_gate.bias");
  c.qk_norm = architecture == "qwen3";

  if (const int64_t experts = m.integer(key("expert_count"), 0, 1 << 20, 0); experts != 0)
    m.wrong(key("expert_count"), str(experts), "0", "mixtures of experts cannot be computed here");
  if (const char* clamp = "attention.clamp_kqv"; m.has(key(clamp)) && m.number(key(clamp), -1e9, 1e9) != 0)
    m.wrong(key(clamp), m.find(key(clamp))->text(), "no such key");
  if (m.has(key("attention.causal")) && !m.boolean(key("attention.causal")))
    m.wrong(key("attention.causal"), "false", "true or no such key", "a model whose tokens see what follows them cannot be computed here");
  if (const int64_t pooling = m.integer(key("pooling_type"), -1, 1 << 20, 0); pooling > 0)
    m.wrong(key("pooling_type"), str(pooling), "0 or no such key", "a model that makes one vector of a text cannot be computed here");
  // Up to the window it hides nothing (config.h).
  if (const int64_t window = m.integer(key("attention.sliding_window"), 0, kContext, 0); window > 0)
    c.max_position_embeddings = std::min(c.max_position_embeddings, window);

  c.tie_word_embeddings = !file.find("output.weight");
  // Most files name a begin token; whether a text begins with it, as the model's did in training, is said beside it.
  if (m.has("tokenizer.ggml.add_bos_token") ? m.boolean("tokenizer.ggml.add_bos_token") : text::gguf_adds_bos(m.string("tokenizer.ggml.model", "llama"), m.string("tokenizer.ggml.pre", "")))
    c.bos_token_id = token_id(m, "tokenizer.ggml.bos_token_id", c.vocab_size);
  c.pad_token_id = token_id(m, "tokenizer.ggml.padding_token_id", c.vocab_size);
  for (const char* end : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = token_id(m, end, c.vocab_size); id && std::ranges::find(c.eos_token_ids, *id) == c.eos_token_ids.end())
      c.eos_token_ids.push_back(*id);
  c.validate(file.where());
  return c;
}

std::unordered_map<std::string, StoredTensor> gguf_tensors(const GgufFile& file, const ModelConfig& config) {
  return match(file, config, "the metadata describes another model", gguf_name);
}

std::unordered_map<std::string, StoredTensor> folder_gguf_tensors(const GgufFile& file, const ModelConfig& config) {
  const GgufMetadata& m = file.metadata();
  const std::string architecture = m.string("general.architecture");
  if (architecture != kFolderArchitecture)
    m.wrong("general.architecture", "\"" + printable(architecture) + "\"", str("\"", kFolderArchitecture, "\", the weights of a model folder"),
            "a GGUF file that holds a whole model is opened by its own name");
  m.integer("fathom.version", kFolderVersion, kFolderVersion);
  return match(file, config, "config.json describes another model", [](const std::string& name) { return name; });
}

text::Tokenizer gguf_tokenizer(const GgufFile& file) {
  const GgufMetadata& m = file.metadata();
  const auto key = [](const char* name) { return str("tokenizer.ggml.", name); };
  const auto id = [&](const char* name) -> std::optional<int64_t> {
    const std::optional<int64_t> found = m.has(key(name)) ? std::optional(m.integer(key(name), 0, UINT32_MAX)) : std::nullopt;
    return found == UINT32_MAX ? std::nullopt : found;
  };
  const auto flag = [&](const char* name) -> std::optional<bool> {
    return m.has(key(name)) ? std::optional(m.boolean(key(name))) : std::nullopt;
  };
  const std::string model = m.string(key("model")), pre = m.string(key("pre"), "");
  std::vector<int32_t> types;
  if (m.has(key("token_type")))
    for (const int64_t type : m.integers(key("token_type"), INT32_MIN, INT32_MAX)) types.push_back(static_cast<int32_t>(type));
  std::vector<float> scores;
  if (m.has(key("scores"))) scores = m.floats(key("scores"));
  text::GgufVocabulary v;
  v.model = model, v.pre = pre, v.token_type = types, v.scores = scores;
  v.tokens = m.strings(key("tokens"));
  if (m.has(key("merges"))) v.merges = m.strings(key("merges"));
  v.bos_id = id("bos_token_id"), v.eos_id = id("eos_token_id"), v.unknown_id = id("unknown_token_id"), v.padding_id = id("padding_token_id");
  v.add_bos_token = flag("add_bos_token"), v.add_eos_token = flag("add_eos_token");
  v.add_space_prefix = flag("add_space_prefix"), v.remove_extra_whitespaces = flag("remove_extra_whitespaces");
  return text::Tokenizer::from_gguf(v, file.where());
}

}  // namespace fathom::model
