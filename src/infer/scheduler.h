// Continuous batching: every step mixes decode rows of many texts with chunks of prompts under a row budget. Texts come and
// go at any step; what a text becomes does not depend on who else is there, nor on when it was cut, stopped short for memory and
// read again, or found half read in the prefix cache.
//
// Deterministic: the order of submissions and the clock decide everything; what a text becomes, the request alone. By the machine's clock, how many
// tokens are guessed and so how many steps a text takes differ from run to run. Not for several threads at once.
#pragma once
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "infer/forward.h"
#include "infer/policy.h"
#include "infer/prefix_cache.h"
#include "infer/sampler.h"
#include "infer/speculation.h"
#include "infer/stop_text.h"
#include "text/tokenizer.h"

namespace fathom::infer {

enum class Finish { length, stop_id, stop_string, context_full, cancelled, deadline, failed };
extern const std::vector<std::pair<const char*, Finish>> kFinishNames;

struct TokenEvent {
  size_t prompt = 0;                    // index of the prompt (generate), or of the sample (Scheduler)
  int32_t id = 0;
  int64_t position = 0;
  TextParts text;                       // what is certain now: no half character, nothing that may begin a stop string
  int64_t depth = 0;                    // blocks that this token ran in full, attention and MLP
  std::span<const uint8_t> run;         // [units] routing::Path
  const LogProbs* log_probs = nullptr;  // when the request asked for them
};
// Called in order, after the token's own forward (only then its depth is known). Return false to cancel that text. What it
// throws cancels the text and comes out of the step, after the step's other texts had theirs.
using TokenCallback = std::function<bool(const TokenEvent&)>;

struct Generated {
  std::vector<int32_t> ids;             // new ids, without the one that stopped it
  std::string text;                     // what they add to the prompt's text, without the stop string
  TextParts tail;                       // its end that no event carried: held back until it was known to be no stop string
  Finish finish = Finish::length;
  std::exception_ptr error;             // of Finish::failed: what its step or its own choice threw
  int64_t prompt_tokens = 0;
  int64_t read_tokens = 0;              // of the prompt and the new ones that were read at the end
  int64_t cached_tokens = 0;            // of the prompt that the prefix cache held when it was first read
  int64_t guessed = 0, guessed_right = 0;  // tokens, by speculation
  int64_t preemptions = 0;              // times it lost its memory and was read again
  routing::Decisions decisions;         // of the prompt and the new tokens that were read: run[u][T]
  std::vector<LogProbs> log_probs;      // of `ids`, when the request asked for them
  int64_t kv_bytes = 0;                 // pages at the end
  int64_t kv_slot_bytes = 0;            // taken slots at the end
  int64_t kv_slot_bytes_dense = 0;      // what every token in every block would take
};

struct PolicyFrom {
  int64_t position = 0;                 // of the first token that is read under it
  RoutingPolicy policy;                 // causal, random or imposed: nothing that looks ahead
};

struct Request {
  std::vector<int32_t> prompt = {};          // at least one id
  std::vector<PolicyFrom> policies = {};     // ascending from position 0: a conversation may change its dial
  SamplerOptions sampling = {};
  uint64_t stream = 0;                  // tells apart texts that share a seed; sample i draws from stream + i
  int64_t samples = 1;                  // texts from one prompt, which is read once
  int64_t max_new_tokens = 128;
  std::vector<int32_t> stop_ids = {};        // end a text and are not part of it (the model's eos ids, usually)
  std::vector<std::string> stop = {};        // stop strings; the text ends before one
  const text::Tokenizer* tokenizer = nullptr;  // outlives the request; null: no text is made and stop strings are refused
  std::optional<Speculation> speculation = {};
  std::optional<int64_t> log_probs = {};     // of every new token, and as many of the likeliest beside it
  int64_t priority = 0;                 // greater goes first
  std::optional<double> deadline = {};       // on the scheduler's clock; a text that is not done by then ends
  TokenCallback on_token = {};
  std::function<void(size_t sample, Generated&&)> on_finish = {};
};
using RequestId = uint64_t;

struct SchedulerOptions {
  int64_t step_rows = 256;              // rows of a step at most; more than `max_texts`, so that a prompt always advances
  int64_t prefill_chunk = 128;          // rows of one prompt in a step at most
  int64_t max_texts = 64;               // that run at once
  int64_t prefix_tokens = 0;            // that the prefix cache keeps; 0: none
  // Let a text in only when all that run could need all of their new tokens and every block for each, so that none ever loses its
  // memory; else when what their policies and the texts that ended did so far says that there will be room.
  bool admit_worst_case = false;
  double overcommit = 1;                // that expectation may reach so many times the KV limit; beyond it texts lose their memory more often
  int64_t aging_steps = 256;            // a waiting request rises by one priority in as many steps: nobody starves
  std::function<double()> clock = {};        // seconds; null: the machine's, steady
};

struct SchedulerStats {
  int64_t submitted = 0, finished = 0, preemptions = 0, steps = 0;
  int64_t prompt_rows = 0, decode_rows = 0, draft_rows = 0;
  int64_t guessed = 0, guessed_right = 0;  // tokens, by speculation
  int64_t cached_tokens = 0;            // of prompts, found in the prefix cache
};

class Scheduler {
 public:
  // The engine's KV limit (EngineOptions::kv_bytes) is the scheduler's: it admits, evicts kept prefixes and takes memory from the
  // last in line so that the limit is obeyed and the first in line always advances. The engine must have no other user's sequences.
  explicit Scheduler(Engine& engine, const SchedulerOptions& options = {});
  ~Scheduler();

  // UserError: a bad field, a prompt beyond the model's context, a text that could never fit into the KV limit.
  RequestId submit(Request request);
  void check(const Request& request) const;  // the same refusals and nothing else; from any thread
  // Ends its texts (Finish::cancelled) and frees what they hold; within a callback at the end of that step. Unknown ids are ignored.
  void cancel(RequestId id);
  // Tokens behind the prompt that are not read yet go by this policy from now on; asked for by a text's own callback, all after the one that it tells of.
  void set_policy(RequestId id, RoutingPolicy policy);

  struct Step {
    int64_t rows = 0, prompt_rows = 0, decode_rows = 0, draft_rows = 0;  // decode_rows: with the guesses that they check
  };
  // One forward, or none when nothing waits or runs (rows 0). A text whose logits or scores are no numbers ends as failed, as do all that
  // run when a step cannot be made (no memory); the others go on. Throws what callbacks threw.
  Step step();
  bool idle() const;
  int64_t waiting() const;
  int64_t running() const;
  const SchedulerStats& stats() const;
  const PrefixCache& prefixes() const;
  void forget_prefixes();
  // What the prefix cache holds of a text that was read under these policies: its longest beginning, at position 0 when that is none.
  PrefixCache::Found kept(std::span<const int32_t> tokens, std::span<const PolicyFrom> policies);
  // Lets it hold what was read elsewhere (cache_file.h) of such a text.
  void keep(std::span<const int32_t> tokens, std::span<const PolicyFrom> policies, const PrefixCache::Found& read);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fathom::infer
