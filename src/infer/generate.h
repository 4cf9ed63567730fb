// Text from prompts: prefill in chunks, decode in a batch, one event per token with the depth it went.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "infer/forward.h"
#include "infer/policy.h"
#include "infer/sampler.h"
#include "infer/stop_text.h"
#include "text/tokenizer.h"

namespace fathom::infer {

struct GenerateOptions {
  SamplerOptions sampling;
  RoutingPolicy policy;                 // causal
  int64_t max_new_tokens = 128;
  std::vector<int32_t> stop_ids;        // end a text and are not part of it (the model's eos ids, usually)
  std::vector<std::string> stop;        // stop strings; the text ends before one
  int64_t prefill_chunk = 64;           // rows of a prompt in one step
  // Asked before every step, prefill too: true ends every text as cancelled. It may throw, which ends the call.
  std::function<bool()> cancel;
};

enum class Finish { length, stop_id, stop_string, context_full, cancelled };
extern const std::vector<std::pair<const char*, Finish>> kFinishNames;

struct TokenEvent {
  size_t prompt = 0;                    // index of the prompt
  int32_t id = 0;
  int64_t position = 0;
  TextParts text;                       // what is certain now: no half character, nothing that may begin a stop string
  int64_t depth = 0;                    // blocks that this token ran in full
  std::span<const uint8_t> run;         // [routed blocks]
};
// Called in order, after the token's own forward (only then its depth is known). Return false to cancel that prompt.
using TokenCallback = std::function<bool(const TokenEvent&)>;

struct Generated {
  std::vector<int32_t> ids;             // new ids, without the one that stopped it
  std::string text;                     // what they add to the prompt's text, without the stop string
  TextParts tail;                       // its end that no event carried: held back until it was known to be no stop string
  Finish finish = Finish::length;
  int64_t prompt_tokens = 0;
  routing::Decisions decisions;         // of the prompt and the new tokens that were read: run[r][T]
  int64_t kv_bytes = 0;                 // pages at the end
  int64_t kv_slot_bytes = 0;            // taken slots at the end
  int64_t kv_slot_bytes_dense = 0;      // what every token in every block would take
};

struct GenerateStats {
  int64_t prompt_tokens = 0;            // that were read: all of them unless it was cancelled
  int64_t new_tokens = 0, steps = 0;
  double prefill_seconds = 0;           // steps that held rows of a prompt
  double decode_seconds = 0;            // the others
  int64_t decode_tokens = 0;            // rows of the others
  double block_fraction = 1, total_fraction = 1;  // 1 when nothing was read
  double prefill_rate() const { return prefill_seconds > 0 ? static_cast<double>(prompt_tokens) / prefill_seconds : 0; }
  double decode_rate() const { return decode_seconds > 0 ? static_cast<double>(decode_tokens) / decode_seconds : 0; }
};

struct GenerateResult {
  std::vector<Generated> texts;         // one per prompt
  GenerateStats stats;
};

// Ids in, so that the caller decides about special tokens; a prompt needs at least one. `tokenizer` may be null: then
// no text is made and stop strings are refused.
GenerateResult generate(Engine& engine, const text::Tokenizer* tokenizer, std::span<const std::vector<int32_t>> prompts,
                        const GenerateOptions& options, const TokenCallback& on_token = {});

}  // namespace fathom::infer
