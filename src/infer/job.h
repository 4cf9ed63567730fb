// One text that the scheduler writes: what it has read, what comes next, and what of it was told. Internal to the scheduler.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "infer/scheduler.h"

namespace fathom::infer {

// A policy that requests share, with what it did so far: how much memory a text under it may expect to need.
struct SharedPolicy {
  uint32_t number = 0;              // never given twice
  RoutingPolicy policy;
  int64_t rows = 0;                 // read under it
  std::vector<int64_t> slots;       // [routed blocks] that they took
  // Whether what was read under it may be kept for others: only what a token's own past decides.
  bool keepable() const { return policy.rule == Rule::causal || policy.rule == Rule::random; }
  double share(size_t r) const { return rows == 0 ? 1.0 : static_cast<double>(slots[r]) / static_cast<double>(rows); }
};

struct PolicyPart {
  int64_t first = 0;                // position
  std::shared_ptr<SharedPolicy> policy;
};

struct Job {
  RequestId id = 0;
  size_t sample = 0;
  std::shared_ptr<const Request> request;
  std::vector<PolicyPart> policies;   // ascending from 0
  std::vector<int32_t> tokens;        // the prompt, then what was sampled
  Sequence sequence;
  Sampler sampler;
  std::optional<StopText> stream;
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
  int64_t read() const { return sequence.position(); }
  int64_t left() const { return static_cast<int64_t>(tokens.size()) - read(); }
  bool decodes() const { return left() == 1 && read() >= prompt(); }
  const PolicyPart& policy_at(int64_t position) const;
  // Unread tokens that share a policy, `most` of them at most.
  int64_t next_rows(int64_t most) const;
  std::vector<ReadToken> as_read(int64_t count) const;  // its first tokens, as the prefix cache knows them
  int64_t keepable() const;                             // tokens from the first that may be kept

  // After its rows [0, rows) of `item` went through a step: decisions, then the event of a token not told yet.
  void take_decisions(const StepResult& result, size_t item, int64_t rows);
  void tell(int64_t dense_blocks);
  void choose_next(std::span<const float> logits, const model::ModelConfig& config, const kernels::Kernels& kernels);
  void finish(Finish why);            // the first reason counts
  void give_up_memory();              // to be read again
  Generated result(int64_t slot_bytes_per_token);
};

// Checks a request against the limits and the engine; UserError names the field.
void check_request(const Request& request, const model::ModelConfig& config);

}  // namespace fathom::infer
