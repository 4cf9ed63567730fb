#include "infer/job.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/limits.h"

namespace fathom::infer {

const std::vector<std::pair<const char*, Finish>> kFinishNames = {{"length", Finish::length},
                                                                 {"stop_id", Finish::stop_id},
                                                                 {"stop_string", Finish::stop_string},
                                                                 {"context_full", Finish::context_full},
                                                                 {"cancelled", Finish::cancelled},
                                                                 {"deadline", Finish::deadline},
                                                                 {"failed", Finish::failed}};

void check_request(const Request& r, const model::ModelConfig& config) {
  const auto refuse = [](const std::string& field, const std::string& found, const std::string& expected, const char* hint = "") {
    throw UserError({"request", field, found, expected, hint});
  };
  r.sampling.validate();
  if (r.max_new_tokens < 1 || r.max_new_tokens > limits::kNewTokens)
    refuse("max_tokens", str(r.max_new_tokens), str("1 to ", limits::kNewTokens));
  if (r.log_probs && (*r.log_probs < 0 || *r.log_probs > limits::kTopLogProbs)) refuse("log_probs", str(*r.log_probs), str("0 to ", limits::kTopLogProbs));
  if (r.speculation) {
    if (r.speculation->most < 1 || r.speculation->most > limits::kGuesses) refuse("speculation.most", str(r.speculation->most), str("1 to ", limits::kGuesses));
    if (r.speculation->same < 1 || r.speculation->same > limits::kGuesses) refuse("speculation.same", str(r.speculation->same), str("1 to ", limits::kGuesses));
    if (!r.speculation->repeats && !r.speculation->draft) refuse("speculation", "neither repeats nor a draft dial", "one of them, or no speculation");
    FATHOM_ASSERT(!r.speculation->draft || r.speculation->draft->rule != Rule::topk, "topk looks into the future");
  }
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
  const auto never = [](const auto& bias) { return std::isinf(bias.second); };  // sampling.validate() has refused +infinity
  const auto last = r.sampling.logit_bias.lower_bound(static_cast<int32_t>(config.vocab_size));
  if (std::count_if(r.sampling.logit_bias.begin(), last, never) == config.vocab_size)
    refuse("logit_bias", str("-infinity for all ", config.vocab_size, " tokens"), "one that may be chosen");
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
  if (request->speculation) guessing.emplace(*request->speculation);
  out.prompt_tokens = prompt();
}

Job Job::another(size_t sample) const {
  Job other(id, sample, request, sequence.fork());
  other.policies = policies;
  other.position = position;
  other.draft_policy = draft_policy;
  other.out.decisions = out.decisions;
  other.out.cached_tokens = out.cached_tokens;
  other.decided = decided;
  other.priority = priority;
  other.arrival = arrival;
  other.shared_out = true;
  return other;
}

void Job::set_policy(std::shared_ptr<SharedPolicy> policy) {
  // How much of a prompt was read by now depends on what else ran and what the cache had: all of it keeps what was asked for.
  const int64_t first = policies.empty() ? 0 : std::max(decided, prompt());
  while (!policies.empty() && policies.back().first >= first) policies.pop_back();
  policies.push_back({first, std::move(policy)});
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

std::vector<int64_t> slots_at(const routing::Decisions& decisions, int64_t position, const model::ModelConfig& config) {
  std::vector<int64_t> slots(static_cast<size_t>(config.num_hidden_layers), position);
  for (size_t u = 0; u < config.routing.units.size(); ++u) {
    const routing::RoutedUnit& unit = config.routing.units[u];
    if (!unit.covers(routing::Part::attention) || (config.routing.kv == routing::KvPolicy::keep && !unit.is_static())) continue;
    const auto first = decisions.run[u].begin();
    slots[static_cast<size_t>(unit.block)] = std::count(first, first + position, static_cast<uint8_t>(routing::Path::full));
  }
  return slots;
}

void Job::take(const StepResult& result, int64_t first, int64_t rows) {
  position += rows;
  const int64_t fresh = std::max<int64_t>(0, position - decided);
  routing::append(out.decisions, result.decisions, static_cast<size_t>(first + rows - fresh), static_cast<size_t>(fresh));
  decided += fresh;
  SharedPolicy& policy = *policy_at(position - 1).policy;
  policy.rows += rows;
  policy.full.resize(result.decisions.run.size());
  for (size_t u = 0; u < policy.full.size(); ++u) {
    const auto begin = result.decisions.run[u].begin() + first;
    policy.full[u] += std::count(begin, begin + rows, static_cast<uint8_t>(routing::Path::full));
  }
}

void Job::tell(const model::ModelConfig& config) {
  if (left() > 0 || told == static_cast<int64_t>(tokens.size())) return;
  const int32_t id = tokens[static_cast<size_t>(told++)];
  std::vector<uint8_t> run;
  for (const auto& r : out.decisions.run) run.push_back(r.back());
  TokenEvent event{.prompt = sample, .id = id, .position = read() - 1, .text = {},
                   .depth = config.least_depth() + config.routing.full_blocks(run), .run = run,
                   .log_probs = request->log_probs ? &out.log_probs.back() : nullptr};
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
  if (guessing) guessing->wrote();
  if (request->log_probs) out.log_probs.push_back(infer::log_probs(logits, id, *request->log_probs, kernels));
}

void Job::finish(Finish why) {
  if (!std::exchange(finished, true)) out.finish = why;
}

void Job::fail(std::exception_ptr why) {
  if (finished) return;
  finish(Finish::failed);
  out.error = std::move(why);
}

void Job::close() {
  out.read_tokens = decided;
  out.kv_bytes = sequence.kv_bytes();
  out.kv_slot_bytes = sequence.slot_bytes();
  draft.reset();
  sequence.clear();
}

void Job::give_up_memory() {
  draft.reset();
  sequence.clear();
  position = 0;
  ++out.preemptions;
}

void Job::begin_draft(int64_t room, const model::ModelConfig& config, const StepAround& step, const StepTimes& times) {
  if (draft || !request->speculation || !decodes()) return;
  if (pause > 0) {
    --pause;
    return;
  }
  const int64_t to_come = prompt() + request->max_new_tokens - std::ssize(tokens);
  Guessing::Plan plan = guessing->plan(tokens, std::min({room, to_come, config.max_position_embeddings - position - 1}), step, times);
  if (plan.ids.empty() && plan.drafts == 0) return guessing->fade();
  draft.emplace();
  draft->wanted = plan.drafts;
  draft->ids = std::move(plan.ids);
  draft->kinds = std::move(plan.kinds);
  if (plan.drafts == 0) return;
  draft->sequence = sequence.fork();
  draft->sampler = sampler;
}

void Job::guess(std::span<const float> logits, const kernels::Kernels& kernels, const StepAround& step, const StepTimes& times, double seconds) {
  guessing->drafted(step, times, seconds);
  const int32_t id = draft->sampler->sample(logits, kernels);
  if (std::find(request->stop_ids.begin(), request->stop_ids.end(), id) == request->stop_ids.end()) {
    draft->ids.push_back(id);
    draft->kinds.push_back(Guessing::kind_of(std::exp(infer::log_probs(logits, id, 0, kernels).chosen)));
    if (guessing->another(draft->kinds, step, times)) return;
  }
  draft->wanted = std::ssize(draft->ids);
}

void Job::give_up_draft() {
  constexpr int64_t kPause = 16;
  draft.reset();
  pause = kPause;
}

void Job::checked(std::span<const uint8_t> kinds, int64_t right, const StepAround& step, const StepTimes& times, double seconds) {
  out.guessed += std::ssize(kinds);
  out.guessed_right += right;
  guessing->checked(kinds, right, step, times, seconds);
}

Generated Job::result(int64_t slot_bytes_per_token) {
  // A token that no event told of was seen by nobody: it is no part of the text.
  out.ids.assign(tokens.begin() + prompt(), tokens.begin() + told);
  if (request->log_probs) out.log_probs.resize(out.ids.size());
  if (stream && out.finish != Finish::stop_string) out.text += text_of(out.tail = stream->finish());
  out.kv_slot_bytes_dense = out.read_tokens * slot_bytes_per_token;
  return std::move(out);
}

}  // namespace fathom::infer
