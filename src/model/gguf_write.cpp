#include "model/gguf_write.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "core/human.h"
#include "formats/gguf.h"
#include "model/rope_config.h"
#include "text/gguf_export.h"

namespace fathom::model {
namespace {

using formats::GgmlType;
using formats::GgufEntries;

constexpr const char *kVersionKey = "general.quantization_version", *kTypeKey = "general.file_type";
constexpr uint32_t kQuantizationVersion = 2;  // of the block layouts, as llama.cpp counts them

// llama.cpp's word for a file whose matrices are mostly of a type (its LLAMA_FTYPE_…); it is shown, nothing follows from it.
uint32_t file_type(GgmlType type) {
  switch (type) {
    case GgmlType::F32: return 0;
    case GgmlType::F16: return 1;
    case GgmlType::Q4_0: return 2;
    case GgmlType::Q4_1: return 3;
    case GgmlType::Q8_0: return 7;
    case GgmlType::Q5_0: return 8;
    case GgmlType::Q5_1: return 9;
    case GgmlType::Q4_K: return 14;
    case GgmlType::Q5_K: return 16;
    case GgmlType::Q6_K: return 18;
    case GgmlType::BF16: return 32;
  }
  FATHOM_ASSERT(false, "a type without a number");
}

void add_types(GgufEntries& out, GgmlType type) {
  if (!out.has(kVersionKey)) out.u32(kVersionKey, kQuantizationVersion);
  if (!out.has(kTypeKey)) out.u32(kTypeKey, file_type(type));
}

GgufEntries copied(const formats::GgufMetadata& source, GgmlType type) {
  GgufEntries out;
  for (const formats::GgufValue& value : source.values()) {
    if (value.key == kVersionKey) out.u32(kVersionKey, kQuantizationVersion);
    else if (value.key == kTypeKey) out.u32(kTypeKey, file_type(type));
    else if (value.key != "general.alignment") out.copy(value);
  }
  add_types(out, type);
  return out;
}

uint32_t u32(int64_t value) {
  FATHOM_ASSERT(value >= 0 && value <= UINT32_MAX, value);
  return static_cast<uint32_t>(value);
}

void add_rope(GgufEntries& out, const std::string& at, const ModelConfig& c) {
  const RopeScaling& s = c.rope_scaling;
  const auto f32 = [](double value) { return static_cast<float>(value); };
  if (s.type != RopeScaling::Type::linear && s.type != RopeScaling::Type::yarn) return;  // the others are a tensor
  out.string(at + "rope.scaling.type", s.type == RopeScaling::Type::linear ? "linear" : "yarn");
  out.f32(at + "rope.scaling.factor", f32(s.factor));
  if (s.type == RopeScaling::Type::linear) return;
  out.u32(at + "rope.scaling.original_context_length", u32(s.original_context));
  out.f32(at + "rope.scaling.yarn_beta_fast", f32(s.beta_fast));
  out.f32(at + "rope.scaling.yarn_beta_slow", f32(s.beta_slow));
  const double usual = yarn_attention_factor(s.factor);  // which readers put in by themselves
  if (s.attention_factor != usual) out.f32(at + "rope.scaling.attn_factor", f32(s.attention_factor / usual));
}

void add_shape(GgufEntries& out, const std::string& architecture, const ModelConfig& c, const std::string& where) {
  const float theta = static_cast<float>(c.rope_theta);
  if (static_cast<double>(theta) != c.rope_theta)
    throw UserError({where, "rope_theta", str(c.rope_theta), "a number that f32 holds", "GGUF keeps it in f32: write a model folder instead"});
  const std::string at = architecture + ".";
  out.u32(at + "vocab_size", u32(c.vocab_size));
  out.u32(at + "context_length", u32(c.max_position_embeddings));
  out.u32(at + "embedding_length", u32(c.hidden_size));
  out.u32(at + "block_count", u32(c.num_hidden_layers));
  out.u32(at + "feed_forward_length", u32(c.intermediate_size));
  out.u32(at + "attention.head_count", u32(c.num_attention_heads));
  out.u32(at + "attention.head_count_kv", u32(c.num_key_value_heads));
  out.u32(at + "attention.key_length", u32(c.head_dim));
  out.u32(at + "attention.value_length", u32(c.head_dim));
  out.u32(at + "rope.dimension_count", u32(c.head_dim));
  out.f32(at + "attention.layer_norm_rms_epsilon", static_cast<float>(c.rms_norm_eps));
  out.f32(at + "rope.freq_base", theta);
  add_rope(out, at, c);
}

void add_tokenizer(GgufEntries& out, const ModelFolder& folder) {
  const ModelConfig& c = folder.config();
  const std::string where = folder.path() + ": tokenizer.json";
  const text::Tokenizer tokenizer = folder.tokenizer();
  if (tokenizer.vocab_size() > c.vocab_size)
    throw UserError({where, "", str(tokenizer.vocab_size(), " tokens"), str("at most the model's vocab_size ", c.vocab_size), "the folder holds another model's tokenizer"});
  const text::GgufTokenizer t = text::gguf_tokenizer_of(tokenizer, c.vocab_size, where);
  out.string("tokenizer.ggml.model", "gpt2");
  out.string("tokenizer.ggml.pre", t.pre);
  out.strings("tokenizer.ggml.tokens", t.tokens);
  out.i32s("tokenizer.ggml.token_type", t.token_type);
  out.strings("tokenizer.ggml.merges", t.merges);
  if (t.bos_id) out.u32("tokenizer.ggml.bos_token_id", u32(*t.bos_id));
  // What ends a document comes first, under the key that says so; what ends a text besides it follows.
  std::vector<int64_t> ends = folder.generation().eos_token_ids.empty() ? c.eos_token_ids : folder.generation().eos_token_ids;
  if (t.eos_id && (t.add_eos || !ends.empty())) {
    std::erase(ends, *t.eos_id);
    out.u32("tokenizer.ggml.eos_token_id", u32(*t.eos_id));
  }
  constexpr const char* kMore[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
  if (ends.size() > std::size(kMore))
    throw UserError({folder.path(), "eos_token_id", str(ends.size(), " ids that end a text beside the tokenizer's own"), str("at most ", std::size(kMore)),
                     "GGUF has no key for more: write a model folder instead"});
  for (size_t i = 0; i < ends.size(); ++i) out.u32(kMore[i], u32(ends[i]));
  if (c.pad_token_id) out.u32("tokenizer.ggml.padding_token_id", u32(*c.pad_token_id));
  out.boolean("tokenizer.ggml.add_bos_token", t.bos_id && (c.bos_token_id || t.add_bos));
  out.boolean("tokenizer.ggml.add_eos_token", t.add_eos);
  if (const auto chat = folder.chat_format()) out.string("tokenizer.chat_template", chat->chat_template.source());
}

}  // namespace

std::string gguf_architecture(const ModelFolder& folder) {
  if (folder.gguf()) return folder.gguf()->metadata().string("general.architecture");
  const ModelConfig& c = folder.config();
  const auto refuse = [&](const char* field, const std::string& found, const char* expected) {
    throw UserError({folder.path(), field, found, expected, "no architecture of llama.cpp has both: write a model folder instead"});
  };
  // By what llama.cpp's graphs of the architectures read: any biases and rope_freqs.weight in llama alone, QK norms in qwen3 alone.
  const bool divided = c.rope_scaling.type == RopeScaling::Type::llama3 || c.rope_scaling.type == RopeScaling::Type::divided;
  if (c.qk_norm) {
    if (c.qkv_bias || c.output_bias || c.mlp_bias) refuse("attention_bias", "norms of queries and keys beside biases", "one of the two");
    if (divided) refuse("rope_parameters", describe_rope(c.rope_scaling) + ", beside norms of queries and keys", "positions that are not scaled, or linear or yarn");
    return "qwen3";
  }
  return c.qkv_bias && !c.output_bias && !c.mlp_bias && !divided ? "qwen2" : "llama";
}

GgufEntries gguf_entries(const ModelFolder& folder, GgmlType type) {
  const ModelConfig& c = folder.config();
  if (!c.routing.dense())
    throw UserError({folder.path(), c.routing.to_json().contains("units") ? "fathom.units" : "fathom.routed_blocks", str(c.routing.routed_blocks(), " routed blocks"), "a dense model for a .gguf file",
                     "other programs know no routers and would run every block; name a folder instead"});
  if (folder.gguf()) return copied(folder.gguf()->metadata(), type);
  GgufEntries out;
  const std::string architecture = gguf_architecture(folder);
  out.string("general.architecture", architecture);
  const std::string name = std::filesystem::absolute(folder.path()).lexically_normal().filename().string();
  out.string("general.name", printable(name.empty() ? "model" : name));
  add_types(out, type);
  add_shape(out, architecture, c, folder.path());
  add_tokenizer(out, folder);
  return out;
}

GgufEntries folder_gguf_entries(GgmlType type) {
  GgufEntries out;
  out.string("general.architecture", kFolderArchitecture);
  out.u32("fathom.version", kFolderVersion);
  add_types(out, type);
  return out;
}

}  // namespace fathom::model
