// Texts from prompts that all are there at once: the scheduler's simplest user.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "infer/scheduler.h"
#include "model/cost.h"

namespace fathom::infer {

inline constexpr int64_t kPlainSteps = 8;

struct GenerateOptions {
  SamplerOptions sampling;
  RoutingPolicy policy;                 // causal
  int64_t max_new_tokens = 128;
  std::vector<int32_t> stop_ids;        // end a text and are not part of it (the model's eos ids, usually)
  std::vector<std::string> stop;        // stop strings; the text ends before one
  int64_t samples = 1;                  // texts from every prompt, which is read once
  std::optional<int64_t> log_probs = {};  // of every new token, and as many of the likeliest beside it
  int64_t prefill_chunk = 64;           // rows of a prompt in one step
  std::optional<Speculation> speculation = {};
  // Of one text with guesses: when fewer than kPlainSteps steps were without any, as many of its last tokens are read again at the end, one
  // by one, so that there is something to hold the guesses against (GenerateStats::probe_steps).
  bool probe_plain_steps = false;
  // Asked before every step, prefill too: true ends every text as cancelled. It may throw, which ends the call.
  std::function<bool()> cancel;
};

struct GenerateStats {
  int64_t prompt_tokens = 0;            // that were read: all of them unless it was cancelled
  int64_t new_tokens = 0, steps = 0;
  double prefill_seconds = 0;           // steps that held rows of a prompt
  double decode_seconds = 0;            // the others
  int64_t decode_tokens = 0;            // that the others wrote
  // Of the others, those that made or checked guesses, and what they wrote; and those that did neither.
  int64_t guess_steps = 0, guess_tokens = 0, plain_steps = 0, probe_steps = 0;
  double guess_seconds = 0, plain_seconds = 0, probe_seconds = 0;
  double block_fraction = 1, total_fraction = 1;  // 1 when nothing was read
  // A step of a scheduler that had `running` texts before it, wrote `told` tokens and took so long.
  void count(const Scheduler::Step& step, int64_t running, int64_t told, double seconds);
  double prefill_rate() const { return prefill_seconds > 0 ? static_cast<double>(prompt_tokens) / prefill_seconds : 0; }
  double decode_rate() const { return decode_seconds > 0 ? static_cast<double>(decode_tokens) / decode_seconds : 0; }
};

struct GenerateResult {
  std::vector<Generated> texts;         // [prompts · samples] those of the first prompt first
  GenerateStats stats;
};

// What was computed for a text, and what the same text costs with every token in full. Some of it was read.
struct TextCost {
  model::ForwardCost spent, dense;
};
TextCost cost_of(const model::ModelConfig& config, const Generated& text);

// Ids in, so that the caller decides about special tokens; a prompt needs at least one. `tokenizer` may be null: then
// no text is made and stop strings are refused. An event's `prompt` is the text's place in the result.
GenerateResult generate(Engine& engine, const text::Tokenizer* tokenizer, std::span<const std::vector<int32_t>> prompts,
                        const GenerateOptions& options, const TokenCallback& on_token = {});

}  // namespace fathom::infer
