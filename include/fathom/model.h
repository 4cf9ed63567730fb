// A model: its weights, facts, tokenizer and chat template.
//
// A Model is a handle to something that never changes: copies are cheap, and every member may be called from several threads.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/error.h"

namespace fathom {

using TokenId = int32_t;

// How the cache of attention holds the numbers of keys and values.
enum class CacheType {
  f32,
  f16,
  bf16,
  q8_0,  // 8 bits each, and an f16 scale for every 32 numbers of a key or value
};
FATHOM_API const char* name(CacheType type);  // "f32", "f16", …

struct ModelOptions {
  int threads = 0;      // that read the weights; 0: all cores that this process may use
  bool weights = true;  // false: facts, tokenizer and chat template alone; no engine runs it
};

// One point of what the model was calibrated for. Between points the engine interpolates.
struct DialPoint {
  double dial = 1;                    // block fraction that was asked for
  double block_fraction = 1;          // that it came to on the calibration text
  double loss = 0;                    // nats per token on that text; NaN where it was not measured
  std::vector<double> capacity = {};  // [units, those with a light path or an exit more than once] shares of tokens
};

struct ModelInfo {
  std::string path = {};
  // The shape, under the names of config.json.
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0;
  int64_t num_hidden_layers = 0;              // blocks
  int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  int64_t max_position_embeddings = 0;        // tokens of a text at most, its prompt counted
  // What tokens may do less than in full is decided unit by unit: a block, or its attention and its MLP each for itself. None: a dense model.
  std::vector<int> routed_blocks = {};          // [units] the unit's block, ascending from 0
  std::vector<std::string> routed_parts = {};   // [units] "block", "attention" or "mlp"
  std::vector<double> capacity = {};            // [units] shares of tokens that run it in full, as it was trained
  int64_t parameters = 0;
  int64_t weight_bytes = 0;                   // in memory; 0 without weights
  std::map<CacheType, int64_t> kv_bytes_per_token = {};  // of keys and values, by how they are held, of a token that runs every block
  bool has_tokenizer = false, has_chat_template = false;
  std::optional<TokenId> begin_token = {};    // what stands before a text; nothing: the model was trained without
  std::vector<TokenId> end_tokens = {};       // each ends a text
  // Block fractions that a request may ask for are (0, 1]; those below `lowest_dial` run at it. Both are 1 for a dense model.
  double default_dial = 1, lowest_dial = 1;
  std::vector<DialPoint> dial_points = {};    // ascending; none for a dense model
};

// How the next token is chosen. Applied in this order: logit bias, penalties, temperature, top-k, typical, top-p, min-p.
struct Sampling {
  double temperature = 1.0;         // 0 to 100; 0: the most likely token, ties to the lowest id
  int64_t top_k = 0;                // keep so many of the most likely; 0: off
  double top_p = 1.0;               // (0, 1] keep the most likely that make up this probability; 1: off
  double typical_p = 1.0;           // (0, 1] the same of those whose surprise is nearest to the expected one; 1: off
  double min_p = 0.0;               // [0, 1] keep those of at least so many times the greatest probability
  double repetition_penalty = 1.0;  // 0.01 to 100; weakens ids that stand in the prompt or the text; 1: off
  double presence_penalty = 0;      // ±100; taken from the logits of ids that the text has
  double frequency_penalty = 0;     // ±100; the same, times as often as it has them
  std::map<TokenId, float> logit_bias = {};  // of the vocabulary, added to an id's logit; minus infinity forbids it
};

struct ChatMessage {
  std::string role = {};     // "system", "user", "assistant", or what else the model's template knows
  std::string content = {};
};

struct EncodeOptions {
  bool begin = false;    // put the model's begin token before the text, where it has one; an empty text becomes what begins one
  bool special = false;  // special tokens that are spelled out in the text become such; false: they are plain text
};

class FATHOM_API Model {
 public:
  // `path`: a folder as Hugging Face lays it out (config.json, *.safetensors, tokenizer.json), Fathom's own, the folder of a
  // training run, or a .gguf file. Error names file and field of what does not fit.
  static Model open(const std::string& path, const ModelOptions& options = {});

  const ModelInfo& info() const;
  Sampling sampling() const;        // what the model's files recommend, else Sampling{}

  // Error where the model has no tokenizer, or one that Fathom does not read.
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // Always UTF-8; broken characters become U+FFFD. `special`: special tokens too, which otherwise stand for no text.
  std::string decode(std::span<const TokenId> ids, bool special = false) const;
  std::string token_bytes(TokenId id) const;  // what it stands for inside a text (" the"); may be half a character
  bool is_special(TokenId id) const;

  // A conversation by the model's chat template, up to where its answer begins. Error where the model has no template, where the
  // template refuses the conversation, or uses what Fathom's Jinja does not have.
  std::string chat_text(const std::vector<ChatMessage>& messages) const;
  std::vector<TokenId> chat(const std::vector<ChatMessage>& messages) const;  // the same as a prompt

 private:
  friend struct Internals;
  struct State;
  explicit Model(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace fathom
