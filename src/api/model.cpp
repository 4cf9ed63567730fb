#include "fathom/model.h"

#include <utility>

#include "api/internals.h"
#include "core/file.h"
#include "core/limits.h"
#include "model/cost.h"

namespace fathom {

const char* name(CacheType type) {
  const std::optional<KvType> own = kv_type_of(type);
  return own ? kKvTypeNames[static_cast<size_t>(*own)].first : "";
}

std::optional<KvType> kv_type_of(CacheType type) {
  switch (type) {
    case CacheType::f32: return KvType::f32;
    case CacheType::f16: return KvType::f16;
    case CacheType::bf16: return KvType::bf16;
    case CacheType::q8_0: return KvType::q8_0;
  }
  return {};
}

namespace {

// The value of `get`, or why there is none.
template <class Value>
void take(std::optional<Value>& value, std::optional<UserError>& why_not, const std::function<std::optional<Value>()>& get) {
  try {
    value = get();
  } catch (const UserError& e) {
    why_not = e;
  }
}

ModelInfo info_of(const Internals::ModelState& s) {
  const model::ModelConfig& c = s.folder->config();
  ModelInfo info;
  info.path = s.folder->path();
  info.vocab_size = c.vocab_size, info.hidden_size = c.hidden_size, info.intermediate_size = c.intermediate_size;
  info.num_hidden_layers = c.num_hidden_layers;
  info.num_attention_heads = c.num_attention_heads, info.num_key_value_heads = c.num_key_value_heads, info.head_dim = c.head_dim;
  info.max_position_embeddings = c.max_position_embeddings;
  for (const routing::RoutedUnit& unit : c.routing.units) {
    info.routed_blocks.push_back(unit.block);
    info.routed_parts.push_back(name_of(unit.part, routing::kPartNames));
    info.capacity.push_back(unit.capacity);
  }
  info.parameters = model::parameters(c).total();
  info.weight_bytes = s.weights ? s.weights->bytes() : 0;
  for (const CacheType type : {CacheType::f32, CacheType::f16, CacheType::bf16, CacheType::q8_0})
    info.kv_bytes_per_token[type] = model::kv_bytes_per_token_and_block(c, *kv_type_of(type)) * (c.num_hidden_layers - c.silent_blocks());
  info.has_tokenizer = s.tokenizer.has_value();
  info.has_chat_template = s.chat_format.has_value();
  info.begin_token = s.ends.begin;
  info.end_tokens = model::end_ids(*s.folder, s.ends);
  if (const auto& table = s.folder->dial()) {
    info.default_dial = table->default_dial;
    info.lowest_dial = table->points.front().dial;
    for (const routing::DialPoint& p : table->points)
      info.dial_points.push_back({.dial = p.dial, .block_fraction = p.block_fraction, .loss = p.loss, .capacity = p.capacity});
  }
  return info;
}

}  // namespace

const text::Tokenizer& Model::State::need_tokenizer() const {
  if (!tokenizer) throw *no_tokenizer;
  return *tokenizer;
}

const std::shared_ptr<const infer::Weights>& Model::State::need_weights() const {
  if (!weights) throw UserError({folder->path(), "", "a model that was opened without its weights", "one with them", "set ModelOptions::weights"});
  return weights;
}

const std::string& Model::State::identity() const {
  std::call_once(identified, [this] { identity_ = folder->fingerprint() + (tokenizer ? tokenizer->identity() : ""); });
  return identity_;
}

infer::RoutingPolicy Model::State::policy(std::optional<double> dial) const {
  try {
    return infer::RoutingPolicy::at_dial(folder->config(), folder->dial(), dial);
  } catch (const UserError& e) {  // of several models, whose
    const ErrorParts& p = e.parts();
    throw UserError({folder->path(), p.where, p.found, p.expected, p.hint});
  }
}

Model Model::open(const std::string& path, const ModelOptions& options) {
  return at_border([&] {
    if (options.threads < 0 || options.threads > limits::kThreads) throw UserError({"model options", "threads", str(options.threads), str("0 to ", limits::kThreads), ""});
    auto s = std::make_shared<State>();
    const std::string of_run = join_path(path, "model");
    s->folder = model::ModelFolder::open(is_folder(path) && !model::has_weights(path) && is_folder(of_run) ? of_run : path);
    // A model without them still runs, from ids to ids.
    take<text::Tokenizer>(s->tokenizer, s->no_tokenizer, [&] { return s->folder->tokenizer(); });
    take<model::ChatFormat>(s->chat_format, s->no_chat_format, [&] { return s->folder->chat_format(); });
    if (s->tokenizer) s->ends = model::document_ends(s->folder->config(), *s->tokenizer);
    if (options.weights) s->weights = infer::Weights::load(*s->folder, options.threads);
    s->info = info_of(*s);
    const model::GenerationConfig& own = s->folder->generation();
    s->sampling = {.temperature = own.temperature, .top_k = own.top_k, .top_p = own.top_p, .repetition_penalty = own.repetition_penalty};
    return Model(std::move(s));
  });
}

const ModelInfo& Model::info() const { return state_->info; }

Sampling Model::sampling() const { return state_->sampling; }

std::vector<TokenId> Model::encode(std::string_view text, const EncodeOptions& options) const {
  return at_border([&] {
    const text::Tokenizer& tokenizer = state_->need_tokenizer();
    if (options.begin) return model::prompt_ids(tokenizer, state_->ends, text, {.begin = true, .allow_special = options.special});
    return tokenizer.encode(text, {.add_special_tokens = false, .allow_special = options.special});
  });
}

std::string Model::decode(std::span<const TokenId> ids, bool special) const {
  return at_border([&] { return state_->need_tokenizer().decode(ids, !special); });
}

std::string Model::token_bytes(TokenId id) const {
  return at_border([&] { return state_->need_tokenizer().token_bytes(id); });
}

bool Model::is_special(TokenId id) const {
  return at_border([&] { return state_->need_tokenizer().is_special(id); });
}

std::string Model::chat_text(const std::vector<ChatMessage>& messages) const {
  return at_border([&] {
    if (state_->no_chat_format) throw *state_->no_chat_format;
    if (!state_->chat_format)
      throw UserError({state_->folder->path(), "", "no chat template", "chat_template.jinja, tokenizer_config.json with a chat_template, or a GGUF file's tokenizer.chat_template", ""});
    std::vector<text::ChatMessage> own;
    for (const ChatMessage& m : messages) own.push_back({m.role, m.content});
    return state_->chat_format->render(own);
  });
}

std::vector<TokenId> Model::chat(const std::vector<ChatMessage>& messages) const { return encode(chat_text(messages), {.begin = false, .special = true}); }

}  // namespace fathom
