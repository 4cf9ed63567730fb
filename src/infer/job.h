// One text that the scheduler writes: what it has read, what comes next, and what of it was told. Internal to the scheduler.
#pragma once
#include <exception>
#include <memory>
#include <optional>
#include <vector>

#include "infer/guessing.h"
#include "infer/scheduler.h"

namespace fathom::infer {

// A policy that requests share, with what it did so far: how much memory a text under it may expect to need.
struct SharedPolicy {
  uint32_t number = 0;              // never given twice
  RoutingPolicy policy;
  int64_t rows = 0;                 // read under it
  std::vector<int64_t> full;        // [units] that they ran in full
  // Whether what was read under it may be kept for others: only what a token's own past decides.
  bool keepable() const { return policy.rule == Rule::causal || policy.rule == Rule::random; }
  double share(size_t u) const { return rows == 0 ? 1.0 : static_cast<double>(full[u]) / static_cast<double>(rows); }
};

struct PolicyPart {
  int64_t first = 0;                // position
  std::shared_ptr<SharedPolicy> policy;
};

// Guesses of what follows a text's pending token.
struct Draft {
  std::optional<Sequence> sequence;  // that reads them under the draft's policy; none when they come out of the text itself
  std::optional<Sampler> sampler;    // draws as the text's own will
  std::vector<int32_t> ids;
  std::vector<uint8_t> kinds;        // of each (guessing.h)
  int64_t wanted = 0;
  bool ready() const { return !sequence || std::ssize(ids) >= wanted; }
};

struct Job {
  RequestId id = 0;
  size_t sample = 0;
  std::shared_ptr<const Request> request;
  std::vector<PolicyPart> policies;   // ascending from 0
  std::vector<int32_t> tokens;        // the prompt, then what was sampled
  Sequence sequence;
  int64_t position = 0;               // tokens read and taken; the sequence is ahead of it only while guesses are checked
  Sampler sampler;
  std::optional<StopText> stream;
  std::optional<Draft> draft;
  std::shared_ptr<SharedPolicy> draft_policy;
  std::optional<Guessing> guessing;
  int64_t pause = 0;                  // tokens to write without guesses
  Generated out;
  int64_t decided = 0;                // tokens whose decisions `out` holds; behind it what is read is read again
  int64_t told = 0;                   // tokens of the prompt, and new ones that an event told of
  int64_t priority = 0;               // with what waiting added
  uint64_t arrival = 0;               // of the request
  int64_t waiting_since = 0;          // step
  bool shared_out = false;            // the prompt's other samples have been made
  bool finished = false;

  Job(RequestId id, size_t sample, std::shared_ptr<const Request> request, Sequence sequence);
  // Another sample, which goes on from here.
  Job another(size_t sample) const;

  int64_t prompt() const { return static_cast<int64_t>(request->prompt.size()); }
  int64_t read() const { return position; }
  int64_t left() const { return static_cast<int64_t>(tokens.size()) - read(); }
  bool decodes() const { return left() == 1 && read() >= prompt(); }
  const PolicyPart& policy_at(int64_t position) const;
  void set_policy(std::shared_ptr<SharedPolicy> policy);  // of tokens that are not decided yet
  // Unread tokens that share a policy, `most` of them at most.
  int64_t next_rows(int64_t most) const;
  std::vector<ReadToken> as_read(int64_t count) const;  // its first tokens, as the prefix cache knows them
  int64_t keepable() const;                             // tokens from the first that may be kept

  // Rows of a step, from `first`, are read: what they decided, then the event of a token not told yet.
  void take(const StepResult& result, int64_t first, int64_t rows);
  void tell(const model::ModelConfig& config);
  void choose_next(std::span<const float> logits, const model::ModelConfig& config, const kernels::Kernels& kernels);
  void finish(Finish why);            // the first reason counts
  void fail(std::exception_ptr why);  // ends it with this error
  void give_up_memory();              // to be read again
  void close();                       // gives its pages back
  // Guesses, when it is time for some: after this, `draft` is there or not. At most `room` rows may be added to a step.
  void begin_draft(int64_t room, const model::ModelConfig& config, const StepAround& step, const StepTimes& times);
  // The draft's next; `seconds` as for Guessing.
  void guess(std::span<const float> logits, const kernels::Kernels& kernels, const StepAround& step, const StepTimes& times, double seconds);
  void checked(std::span<const uint8_t> kinds, int64_t right, const StepAround& step, const StepTimes& times, double seconds);
  void give_up_draft();               // and makes none for some tokens
  Generated result(int64_t slot_bytes_per_token);
};

// [L] slots that were taken when a text with these decisions had read so much.
std::vector<int64_t> slots_at(const routing::Decisions& decisions, int64_t position, const model::ModelConfig& config);

// Checks a request against the limits and the engine; UserError names the field.
void check_request(const Request& request, const model::ModelConfig& config);

}  // namespace fathom::infer
