#include "infer/scheduler.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <new>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "infer/scheduler_state.h"

namespace fathom::infer {
namespace {

constexpr size_t kPoliciesRemembered = 1024;  // without a text that goes by them

double steady_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Scheduler::State::State(Engine& e, const SchedulerOptions& o) : engine(e), config(e.config()), options(o), prefixes(o.prefix_tokens) {
  if (!options.clock) options.clock = steady_seconds;
  FATHOM_ASSERT(options.max_texts >= 1 && options.step_rows > options.max_texts && options.prefill_chunk >= 1 && options.aging_steps >= 1 && options.overcommit > 0,
                options.step_rows, " rows for ", options.max_texts, " texts");
}

std::shared_ptr<SharedPolicy> Scheduler::State::share(const RoutingPolicy& policy) {
  for (const auto& p : policies)
    if (p->policy == policy) return p;
  if (policies.size() >= kPoliciesRemembered) {
    const auto unused = std::find_if(policies.begin(), policies.end(), [](const auto& p) { return p.use_count() == 1; });
    if (unused != policies.end()) policies.erase(unused);
  }
  policies.push_back(std::make_shared<SharedPolicy>(SharedPolicy{.number = next_policy++, .policy = policy, .rows = 0, .full = {}}));
  return policies.back();
}

std::vector<ReadToken> Scheduler::State::as_read(std::span<const int32_t> tokens, std::span<const PolicyFrom> parts) {
  std::vector<ReadToken> out;
  size_t part = 0;
  uint32_t number = 0;
  for (int64_t position = 0; position < std::ssize(tokens); ++position) {
    for (; part < parts.size() && parts[part].position <= position; ++part) number = share(parts[part].policy)->number;
    out.push_back({tokens[static_cast<size_t>(position)], number});
  }
  return out;
}

void Scheduler::State::keep_prefix(std::span<const ReadToken> text, const Sequence& sequence, const routing::Decisions& decisions, bool ends) {
  prefixes.keep(text, [&](int64_t position) {
    PrefixCache::Snapshot out{.sequence = sequence.fork(position, slots_at(decisions, position, config)), .decisions = {}};
    const auto tokens = static_cast<size_t>(PrefixCache::tokens_of(position));
    routing::append(out.decisions, decisions, static_cast<size_t>(position) - tokens, tokens);
    return out;
  }, ends);
}

void Scheduler::State::keep_prefix(Job& job) {
  if (options.prefix_tokens == 0) return;
  try {
    keep_prefix(job.as_read(job.keepable()), job.sequence, job.out.decisions, job.finished);
  } catch (const std::bad_alloc&) {  // others read it themselves
  }
}

// Row after row as if each had been a step of its own, until a guess was not what is chosen.
void Scheduler::State::check_guesses(const Part& part, size_t item, std::exception_ptr& thrown) {
  Job& job = *part.job;
  const int64_t before = job.position;
  const SharedPolicy* const under = job.policy_at(before).policy.get();
  for (int64_t row = 0; row < part.rows; ++row) {
    result.refuse_nan_scores(config, result.items[item].first_row + row, 1);  // not of wrong guesses
    job.take(result, result.items[item].first_row + row, 1);
    tell(job, thrown);
    if (job.finished) break;
    choose_next(job, result.logits_of(item, row));
    if (job.finished || row + 1 == part.rows) break;
    if (job.tokens.back() != part.ids[static_cast<size_t>(row) + 1] || job.policy_at(job.position).policy.get() != under) break;
  }
  if (job.position < job.sequence.position()) job.sequence.rewind(job.position, slots_at(job.out.decisions, job.position, config));
  if (part.rows == 1) return;
  const int64_t right = job.position - before - 1;
  job.checked(part.kinds, right, around, times, lone_seconds);
  stats.guessed += part.rows - 1;
  stats.guessed_right += right;
}

// Callbacks may ask for another policy. What this step has read of other texts was read under the one before: theirs changes when they
// have taken it.
void Scheduler::State::tell(Job& job, std::exception_ptr& thrown) {
  try {
    job.tell(config);
  } catch (...) {
    if (!thrown) thrown = std::current_exception();
  }
  change_policy(job);
}

void Scheduler::State::change_policy(Job& job) {
  for (const auto& [id, policy] : policies_from_now)
    if (id == job.id) job.set_policy(policy);
}

void Scheduler::State::read(const Part& part, size_t item, std::exception_ptr& thrown) {
  Job& job = *part.job;
  if (part.work != Work::check) result.refuse_nan_scores(config, result.items[item].first_row, part.rows);
  if (part.work == Work::draft) return job.guess(result.logits_of(item), engine.kernels(), around, times, lone_seconds);
  const int64_t before = job.read();
  if (part.work == Work::check) {
    check_guesses(part, item, thrown);
  } else {
    job.take(result, result.items[item].first_row, part.rows);
    tell(job, thrown);
    if (!job.finished && job.left() == 0) choose(job, result.logits_of(item));
  }
  if (!job.out.error && before / PrefixCache::kStride != job.read() / PrefixCache::kStride) keep_prefix(job);
}

void Scheduler::State::after_forward(std::exception_ptr& thrown) {
  for (size_t i = 0; i < parts.size(); ++i) {
    try {
      read(parts[i], i, thrown);
    } catch (...) {
      if (parts[i].work == Work::draft) parts[i].job->give_up_draft();  // it was but a guess
      else parts[i].job->fail(std::current_exception());
    }
  }
}

// The next token, of every sample when the prompt has just been read.
void Scheduler::State::choose(Job& job, std::span<const float> logits) {
  if (!job.shared_out) {
    std::list<Job> others;
    for (int64_t sample = 1; sample < job.request->samples; ++sample) others.push_back(job.another(static_cast<size_t>(sample)));
    job.shared_out = true;
    for (Job& other : others) choose_next(other, logits);
    running.splice(running.end(), others);
  }
  choose_next(job, logits);
}

void Scheduler::State::choose_next(Job& job, std::span<const float> logits) {
  try {
    job.choose_next(logits, config, engine.kernels());
  } catch (...) {  // of this text alone
    job.fail(std::current_exception());
  }
}

void Scheduler::State::retire(std::list<Job>& from) {
  for (auto job = from.begin(); job != from.end();) {
    const auto next = std::next(job);
    if (job->finished) {
      if (!job->out.error) keep_prefix(*job);
      job->close();
      ended.splice(ended.end(), from, job);
    }
    job = next;
  }
}

// Cancellations that callbacks asked for, then the news of every text that ended; a callback may submit and cancel.
void Scheduler::State::end_of_step(std::exception_ptr thrown) {
  const int64_t slot_bytes = engine.pool().layout().slot_bytes() * config.num_hidden_layers;
  while (true) {
    for (const RequestId id : std::exchange(cancelled, {}))
      for (std::list<Job>* jobs : {&waiting, &running})
        for (Job& job : *jobs)
          if (job.id == id) job.finish(Finish::cancelled);
    for (Job& job : waiting) change_policy(job);
    for (Job& job : running) change_policy(job);
    policies_from_now.clear();
    retire(running);
    retire(waiting);
    if (ended.empty()) break;
    ended.sort([](const Job& a, const Job& b) { return std::tuple(a.arrival, a.sample) < std::tuple(b.arrival, b.sample); });
    std::list<Job> first;
    first.splice(first.end(), ended, ended.begin());
    Job& job = first.front();
    stats.finished += 1;
    if (job.out.finish != Finish::cancelled && job.out.finish != Finish::deadline && job.out.finish != Finish::failed) {
      asked_tokens += job.request->max_new_tokens;
      written_tokens += std::ssize(job.tokens) - job.prompt();
    }
    // A prompt that ended before its other samples were made ends for them too.
    const int64_t texts = job.shared_out ? 1 : job.request->samples;
    const Generated out = job.result(slot_bytes);
    for (int64_t i = 0; i < texts && job.request->on_finish; ++i) {
      try {
        job.request->on_finish(job.sample + static_cast<size_t>(i), Generated(out));
      } catch (...) {
        if (!thrown) thrown = std::current_exception();
      }
    }
  }
  in_step = false;
  if (thrown) std::rethrow_exception(thrown);
}

Scheduler::Scheduler(Engine& engine, const SchedulerOptions& options) : state_(std::make_unique<State>(engine, options)) {}

Scheduler::~Scheduler() = default;

void Scheduler::check(const Request& request) const {
  const State& s = *state_;
  check_request(request, s.config);
  if (request.samples > s.options.max_texts)
    throw UserError({"request", "samples", str(request.samples), str("at most ", s.options.max_texts, ", the texts that run at once"), ""});
  const int64_t tokens = std::min(static_cast<int64_t>(request.prompt.size()) + request.max_new_tokens, s.config.max_position_embeddings);
  s.engine.require_room(tokens, s.options.admit_worst_case ? request.samples : 1);
}

RequestId Scheduler::submit(Request request) {
  State& s = *state_;
  check(request);
  std::vector<PolicyPart> policies;
  for (const PolicyFrom& part : request.policies) policies.push_back({part.position, s.share(part.policy)});
  const RequestId id = s.next_id++;
  Job job(id, 0, std::make_shared<const Request>(std::move(request)), s.engine.new_sequence());
  job.policies = std::move(policies);
  if (job.request->speculation && job.request->speculation->draft) job.draft_policy = s.share(*job.request->speculation->draft);
  job.arrival = id;
  job.waiting_since = s.stats.steps;
  s.waiting.push_back(std::move(job));
  ++s.stats.submitted;
  return id;
}

void Scheduler::cancel(RequestId id) {
  state_->cancelled.push_back(id);
  if (!std::exchange(state_->in_step, true)) state_->end_of_step(nullptr);
}

void Scheduler::set_policy(RequestId id, RoutingPolicy policy) {
  FATHOM_ASSERT(policy.rule != Rule::topk, "topk looks into the future");
  State& s = *state_;
  s.policies_from_now.emplace_back(id, s.share(policy));
  if (!std::exchange(s.in_step, true)) s.end_of_step(nullptr);
}

Scheduler::Step Scheduler::step() {
  State& s = *state_;
  FATHOM_ASSERT(!s.in_step, "a step within a step");
  s.in_step = true;
  const double now = s.options.clock();
  for (std::list<Job>* jobs : {&s.waiting, &s.running}) {
    for (Job& job : *jobs)
      if (job.request->deadline && now >= *job.request->deadline) job.finish(Finish::deadline);
    s.retire(*jobs);
  }
  Step out;
  std::exception_ptr thrown;
  try {
    s.assemble();
  } catch (...) {  // no memory to say what the step holds
    s.parts.clear();
    for (Job& job : s.running) job.fail(std::current_exception());
  }
  if (!s.parts.empty()) {
    s.items.clear();
    for (const State::Part& part : s.parts) {
      const bool draft = part.work == State::Work::draft, reads = part.work == State::Work::read;
      Job& job = *part.job;
      (draft ? out.draft_rows : reads && !job.decodes() ? out.prompt_rows : out.decode_rows) += part.rows;
      s.items.push_back({.sequence = part.sequence,
                         .tokens = reads ? std::span<const int32_t>(job.tokens).subspan(static_cast<size_t>(job.read()), static_cast<size_t>(part.rows)) : part.ids,
                         .policy = draft ? &job.draft_policy->policy : &job.policy_at(job.read()).policy->policy,
                         .logits = reads && part.rows < job.left() ? Logits::none : reads || draft ? Logits::last : Logits::all});
    }
    out.rows = out.prompt_rows + out.decode_rows + out.draft_rows;
    s.stats.steps += 1;
    s.stats.prompt_rows += out.prompt_rows;
    s.stats.decode_rows += out.decode_rows;
    s.stats.draft_rows += out.draft_rows;
    try {
      const double began = s.options.clock();
      s.engine.forward(s.items, s.result);
      const double seconds = s.options.clock() - began;
      if (out.rows == out.decode_rows) s.times.saw(out.rows, seconds);
      s.lone_seconds = s.parts.size() == 1 && s.around.rows == 1 ? seconds : 0;
      s.prompt_rows = out.prompt_rows;
      s.after_forward(thrown);
    } catch (...) {  // the forward: every sequence is as it was
      for (const State::Part& part : s.parts) part.job->fail(std::current_exception());
    }
  }
  s.end_of_step(thrown);
  return out;
}

bool Scheduler::idle() const { return state_->waiting.empty() && state_->running.empty(); }
int64_t Scheduler::waiting() const { return static_cast<int64_t>(state_->waiting.size()); }
int64_t Scheduler::running() const { return static_cast<int64_t>(state_->running.size()); }
const SchedulerStats& Scheduler::stats() const { return state_->stats; }
const PrefixCache& Scheduler::prefixes() const { return state_->prefixes; }
void Scheduler::forget_prefixes() { state_->prefixes.clear(); }

PrefixCache::Found Scheduler::kept(std::span<const int32_t> tokens, std::span<const PolicyFrom> policies) {
  return state_->prefixes.find(state_->engine.new_sequence(), state_->as_read(tokens, policies), std::ssize(tokens));
}

void Scheduler::keep(std::span<const int32_t> tokens, std::span<const PolicyFrom> policies, const PrefixCache::Found& read) {
  const auto count = static_cast<size_t>(read.sequence.position());
  FATHOM_ASSERT(count <= tokens.size(), count, " of ", tokens.size());
  state_->keep_prefix(state_->as_read(tokens.first(count), policies), read.sequence, read.decisions, true);
}

}  // namespace fathom::infer
