#include "infer/job.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/limits.h"

namespace fathom::infer {

const std::vector<std::pair<const char*, Finish>> kFinishNames = {{"length", Finish::length},
                                                                 {"stop_id", Finish::stop_id},
                                                                 {"stop_string", Finish::stop_string},
                                                                 {"context_full", Finish::context_full},
                                                                 {"cancelled", Finish::cancelled},
                                                                 {"deadline", Finish::deadline}};

void check_request(const Request& r, const model::ModelConfig& config) {
  const auto refuse = [](const std::string& field, const std::string& found, const std::string& expected, const char* hint = "") {
    throw UserError({"generation", field, found, expected, hint});
  };
  r.sampling.validate();
  if (r.max_new_tokens < 1 || r.max_new_tokens > limits::kNewTokens)
    refuse("max_new_tokens", str(r.max_new_tokens), str("1 to ", limits::kNewTokens));
  if (r.samples < 1) refuse("samples", str(r.samples), "1 or more");
  if (r.stop.size() > limits::kStopStrings) refuse("stop", str(r.stop.size(), " strings"), str("at most ", limits::kStopStrings));
  for (const std::string& stop : r.stop)
    if (stop.empty() || static_cast<int64_t>(stop.size()) > limits::kStopBytes)
      refuse("stop", str(stop.size(), " bytes"), str("1 to ", limits::kStopBytes));
  if (!r.stop.empty() && !r.tokenizer) refuse("stop", "stop strings", "none", "they need a tokenizer");
  if (r.prompt.empty()) refuse("prompt", "no token", "at least one");
  if (static_cast<int64_t>(r.prompt.size()) > config.max_position_embeddings)
    refuse("prompt", str(r.prompt.size(), " tokens"), str("at most ", config.max_position_embeddings), "shorten it");
  for (const int32_t id : r.prompt)  // before others travel with it
    if (id < 0 || id >= config.vocab_size)
      refuse("prompt", str("id ", id), str("0 to ", config.vocab_size - 1), "does the tokenizer belong to this model?");
  FATHOM_ASSERT(!r.policies.empty() && r.policies[0].position == 0, "a request without a policy from its first token");
  for (size_t i = 0; i < r.policies.size(); ++i) {
    FATHOM_ASSERT(i == 0 || r.policies[i - 1].position < r.policies[i].position, "policies out of order");
    FATHOM_ASSERT(r.policies[i].policy.rule != Rule::topk, "topk looks into the future");
  }
}

Job::Job(RequestId id, size_t sample, std::shared_ptr<const Request> r, Sequence sequence)
    : id(id), sample(sample), request(std::move(r)), tokens(request->prompt), sequence(std::move(sequence)),
      sampler(request->sampling, request->stream + sample), told(prompt()), priority(request->priority) {
  if (request->tokenizer) stream.emplace(*request->tokenizer, request->stop, request->prompt);
  sampler.observe(request->prompt);
  out.prompt_tokens = prompt();
}

Job Job::another(size_t sample) const {
  Job other(id, sample, request, sequence.fork());
  other.policies = policies;
  other.out.decisions = out.decisions;
  other.out.cached_tokens = out.cached_tokens;
  other.decided = decided;
  other.priority = priority;
  other.arrival = arrival;
  other.shared_out = true;
  return other;
}

const PolicyPart& Job::policy_at(int64_t position) const {
  return *std::prev(std::upper_bound(policies.begin(), policies.end(), position, [](int64_t p, const PolicyPart& part) { return p < part.first; }));
}

int64_t Job::next_rows(int64_t most) const {
  int64_t rows = std::min(left(), most);
  for (const PolicyPart& part : policies)
    if (part.first > read()) return std::min(rows, part.first - read());
  return rows;
}

std::vector<ReadToken> Job::as_read(int64_t count) const {
  std::vector<ReadToken> out(static_cast<size_t>(count));
  for (size_t p = 0, position = 0; p < policies.size(); ++p) {
    const auto end = static_cast<size_t>(p + 1 < policies.size() ? std::min(policies[p + 1].first, count) : count);
    for (; position < end; ++position) out[position] = {tokens[position], policies[p].policy->number};
  }
  return out;
}

int64_t Job::keepable() const {
  for (const PolicyPart& part : policies)
    if (!part.policy->keepable()) return std::min(part.first, read());
  return read();
}

void Job::take_decisions(const StepResult& result, size_t item, int64_t rows) {
  const int64_t fresh = std::max<int64_t>(0, read() - decided), first = result.items[item].first_row;
  routing::append(out.decisions, result.decisions, static_cast<size_t>(first + rows - fresh), static_cast<size_t>(fresh));
  decided += fresh;
  SharedPolicy& policy = *policy_at(read() - 1).policy;
  policy.rows += rows;
  policy.slots.resize(result.decisions.run.size());
  for (size_t r = 0; r < policy.slots.size(); ++r) {
    const auto begin = result.decisions.run[r].begin() + first;
    policy.slots[r] += std::count(begin, begin + rows, 1);
  }
}

void Job::tell(int64_t dense_blocks) {
  if (left() > 0 || told == static_cast<int64_t>(tokens.size())) return;
  const int32_t id = tokens[static_cast<size_t>(told++)];
  std::vector<uint8_t> run;
  for (const auto& r : out.decisions.run) run.push_back(r.back());
  TokenEvent event{.prompt = sample, .id = id, .position = read() - 1, .text = {},
                   .depth = dense_blocks + std::count(run.begin(), run.end(), 1), .run = run};
  if (stream) {
    event.text = stream->push(id);
    if (stream->stopped()) finish(Finish::stop_string);
  }
  out.text += text_of(event.text);
  if (!request->on_token) return;
  try {
    if (!request->on_token(event)) finish(Finish::cancelled);
  } catch (...) {
    finish(Finish::cancelled);
    throw;
  }
}

void Job::choose_next(std::span<const float> logits, const model::ModelConfig& config, const kernels::Kernels& kernels) {
  if (static_cast<int64_t>(tokens.size()) - prompt() == request->max_new_tokens) return finish(Finish::length);
  if (read() == config.max_position_embeddings) return finish(Finish::context_full);
  const int32_t id = sampler.sample(logits, kernels);
  if (std::find(request->stop_ids.begin(), request->stop_ids.end(), id) != request->stop_ids.end()) return finish(Finish::stop_id);
  tokens.push_back(id);
}

void Job::finish(Finish why) {
  if (std::exchange(finished, true)) return;
  out.finish = why;
  out.read_tokens = decided;
  out.kv_bytes = sequence.kv_bytes();
  out.kv_slot_bytes = sequence.slot_bytes();
}

void Job::give_up_memory() {
  sequence.clear();
  ++out.preemptions;
}

Generated Job::result(int64_t slot_bytes_per_token) {
  // A token that no event told of was seen by nobody: it is no part of the text.
  out.ids.assign(tokens.begin() + prompt(), tokens.begin() + told);
  if (stream && out.finish != Finish::stop_string) out.text += text_of(out.tail = stream->finish());
  out.kv_slot_bytes_dense = out.read_tokens * slot_bytes_per_token;
  return std::move(out);
}

}  // namespace fathom::infer
