#include "infer/scheduler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "infer/job.h"

namespace fathom::infer {
namespace {

constexpr size_t kPoliciesRemembered = 1024;  // without a text that goes by them

constexpr int64_t kPauseWithoutMemory = 16;    // tokens that a text writes without guesses

double steady_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int64_t pages_of(double slots) { return static_cast<int64_t>(std::ceil(slots / static_cast<double>(kPagePositions))); }

}  // namespace

struct Scheduler::State {
  Engine& engine;
  const model::ModelConfig& config;
  SchedulerOptions options;
  PrefixCache prefixes;
  std::vector<std::shared_ptr<SharedPolicy>> policies;
  std::list<Job> waiting, running;  // in no order: `in_turn` gives it
  std::list<Job> ended;             // whose on_finish is to be called
  SchedulerStats stats;
  uint32_t next_policy = 0;
  RequestId next_id = 1;
  int64_t asked_tokens = 0, written_tokens = 0;  // new ones, of texts that ended by themselves
  bool in_step = false;
  std::vector<RequestId> cancelled;  // within a step

  enum class Work { read, draft, check };
  struct Part {
    Job* job;
    Work work;
    int64_t rows;
    std::vector<int32_t> ids;  // draft, check: that are read
  };
  std::vector<Part> parts;  // of the step
  std::vector<WorkItem> items;
  StepResult result;

  State(Engine& e, const SchedulerOptions& o) : engine(e), config(e.config()), options(o), prefixes(o.prefix_tokens) {
    if (!options.clock) options.clock = steady_seconds;
    FATHOM_ASSERT(options.max_texts >= 1 && options.step_rows > options.max_texts && options.prefill_chunk >= 1 && options.aging_steps >= 1 && options.overcommit > 0,
                  options.step_rows, " rows for ", options.max_texts, " texts");
  }

  std::shared_ptr<SharedPolicy> share(const RoutingPolicy& policy);
  std::vector<Job*> in_turn(std::list<Job>& jobs) const;
  int64_t aged(const Job& job) const { return job.priority + (stats.steps - job.waiting_since) / options.aging_steps; }
  int64_t pages_at_end(const Job& job) const;
  bool may_enter(const Job& job) const;
  bool make_room(const Job& job, int64_t pages);
  void preempt(Job& job);
  bool enter(Job& job);
  bool add(Job& job, int64_t& budget, int64_t& pages);
  void assemble();
  void after_forward(std::exception_ptr& thrown);
  void check_guesses(const Part& part, size_t item, std::exception_ptr& thrown);
  void tell(Job& job, std::exception_ptr& thrown);
  void choose(Job& job, std::span<const float> logits);
  std::vector<ReadToken> as_read(std::span<const int32_t> tokens, std::span<const PolicyFrom> policies);
  void keep_prefix(std::span<const ReadToken> text, const Sequence& sequence, const routing::Decisions& decisions, bool ends);
  void keep_prefix(Job& job);
  void retire(std::list<Job>& from);
  void end_of_step(std::exception_ptr thrown);
};

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

// Greater priority first, then whoever came first; the samples of a request in their order.
std::vector<Job*> Scheduler::State::in_turn(std::list<Job>& jobs) const {
  std::vector<Job*> out;
  for (Job& job : jobs) out.push_back(&job);
  const bool age = &jobs == &waiting;
  std::sort(out.begin(), out.end(), [&](const Job* a, const Job* b) {
    return std::tuple(-(age ? aged(*a) : a->priority), a->arrival, a->sample) < std::tuple(-(age ? aged(*b) : b->priority), b->arrival, b->sample);
  });
  return out;
}

// Pages that a text will hold at its end: in the worst case, or as texts and its last policy's tokens went so far.
int64_t Scheduler::State::pages_at_end(const Job& job) const {
  const double share = options.admit_worst_case || asked_tokens == 0 ? 1.0 : static_cast<double>(written_tokens) / static_cast<double>(asked_tokens);
  const auto new_tokens = static_cast<int64_t>(share * static_cast<double>(job.request->max_new_tokens));
  const double tokens = static_cast<double>(std::min(std::max(job.prompt() + new_tokens, std::ssize(job.tokens)), config.max_position_embeddings));
  const bool all_write = options.admit_worst_case || config.routing.kv == routing::KvPolicy::keep;
  int64_t pages = 0;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    if (!config.has_part(block, routing::Part::attention)) continue;
    const int u = config.routing.unit_of(block, routing::Part::attention);
    pages += pages_of(u < 0 || all_write ? tokens : tokens * job.policies.back().policy->share(static_cast<size_t>(u)));
  }
  return pages * (job.shared_out ? 1 : job.request->samples);
}

bool Scheduler::State::may_enter(const Job& job) const {
  const int64_t texts = static_cast<int64_t>(running.size()) + (job.shared_out ? 1 : job.request->samples);
  int64_t to_come = 0;  // samples that running prompts will still split into
  for (const Job& r : running) to_come += r.shared_out ? 0 : r.request->samples - 1;
  if (texts + to_come > options.max_texts) return false;
  if (running.empty() || engine.pool().page_limit() == INT64_MAX) return true;
  int64_t pages = pages_at_end(job);
  for (const Job& r : running) pages += pages_at_end(r);
  const double limit = static_cast<double>(engine.pool().page_limit()) * (options.admit_worst_case ? 1.0 : options.overcommit);
  return static_cast<double>(pages) <= limit;
}

// Frees kept prefixes, then the memory of who comes last in turn, until `pages` can be taken; false when that must be `job` or one before it.
bool Scheduler::State::make_room(const Job& job, int64_t pages) {
  while (engine.pool().pages_left() < pages) {
    if (prefixes.evict()) continue;
    const std::vector<Job*> order = in_turn(running);
    const auto last = std::find_if(order.rbegin(), order.rend(), [&](const Job* j) { return j == &job || j->sequence.pages() > 0; });
    if (last == order.rend() || *last == &job) return false;
    // One that is in the step already comes before `job`.
    if (std::any_of(parts.begin(), parts.end(), [&](const Part& p) { return p.job == *last; })) return false;
    preempt(**last);
  }
  return true;
}

void Scheduler::State::preempt(Job& job) {
  job.give_up_memory();
  job.waiting_since = stats.steps;
  ++stats.preemptions;
  waiting.splice(waiting.end(), running, std::find_if(running.begin(), running.end(), [&](const Job& j) { return &j == &job; }));
}

bool Scheduler::State::enter(Job& job) {
  if (!may_enter(job)) return false;
  PrefixCache::Found found = prefixes.find(job.sequence, job.as_read(static_cast<int64_t>(job.tokens.size())), static_cast<int64_t>(job.tokens.size()) - 1);
  const int64_t cached = job.position = found.sequence.position();
  job.sequence = std::move(found.sequence);
  if (cached > job.decided) {
    routing::append(job.out.decisions, found.decisions, static_cast<size_t>(job.decided), static_cast<size_t>(cached - job.decided));
    job.decided = cached;
  }
  if (job.out.preemptions == 0) {
    job.out.cached_tokens = cached;
    stats.cached_tokens += cached;
  }
  job.priority = aged(job);
  running.splice(running.end(), waiting, std::find_if(waiting.begin(), waiting.end(), [&](const Job& j) { return &j == &job; }));
  return true;
}

// Its rows of this step: the next token and guesses of more, one guess more, or a part of what it has to read.
bool Scheduler::State::add(Job& job, int64_t& budget, int64_t& pages) {
  Part part{.job = &job, .work = Work::read, .rows = 0, .ids = {}};
  Sequence* sequence = &job.sequence;
  job.begin_draft(budget - 1, config);
  if (!job.draft) {
    part.rows = job.decodes() ? 1 : job.next_rows(std::min(options.prefill_chunk, budget));
  } else if (!job.draft->ready()) {
    part.work = Work::draft;
    part.rows = 1;
    part.ids = {job.draft->ids.empty() ? job.tokens.back() : job.draft->ids.back()};
    sequence = &*job.draft->sequence;
  } else {
    part.work = Work::check;
    part.ids = {job.tokens.back()};
    // Under one policy, and within the step: what does not fit was guessed in vain.
    const int64_t guesses = std::min(std::ssize(job.draft->ids), budget - 1);
    part.ids.insert(part.ids.end(), job.draft->ids.begin(), job.draft->ids.begin() + guesses);
    for (const PolicyPart& policy : job.policies)
      if (policy.first > job.read()) part.ids.resize(static_cast<size_t>(std::min<int64_t>(std::ssize(part.ids), policy.first - job.read())));
    part.rows = std::ssize(part.ids);
    job.draft.reset();
  }
  if (part.rows == 0) return true;
  const int64_t more = sequence->pages_for(part.rows) - config.silent_blocks() * pages_of(static_cast<double>(part.rows));
  if (!make_room(job, pages + more)) {
    if (part.work == Work::read) return false;
    job.draft.reset();  // guesses need memory that the text itself does not
    job.pause = kPauseWithoutMemory;
    return add(job, budget, pages);
  }
  pages += more;
  budget -= part.rows;
  parts.push_back(std::move(part));
  return true;
}

void Scheduler::State::assemble() {
  parts.clear();
  int64_t budget = options.step_rows, pages = 0;
  for (const Job& job : running) budget -= job.decodes();  // their rows are theirs
  const std::vector<Job*> order = in_turn(running);
  for (Job* job : order) {
    const auto still = std::find_if(running.begin(), running.end(), [&](const Job& j) { return &j == job; });
    if (still == running.end()) continue;  // its memory was taken
    budget += job->decodes();
    if (!add(*job, budget, pages)) preempt(*job);
  }
  for (Job* job : in_turn(waiting)) {
    if (budget <= 0 || !enter(*job)) break;  // nobody overtakes: the first in line gets in some time
    if (!add(*job, budget, pages)) {  // no room yet, and nothing was read
      job->sequence.clear();
      job->position = 0;
      waiting.splice(waiting.end(), running, std::prev(running.end()));
      break;
    }
  }
  FATHOM_ASSERT(!parts.empty() || (running.empty() && waiting.empty()), "nothing fits into the KV limit");
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
  if (options.prefix_tokens > 0) keep_prefix(job.as_read(job.keepable()), job.sequence, job.out.decisions, job.finished);
}

// Row after row as if each had been a step of its own, until a guess was not what is chosen.
void Scheduler::State::check_guesses(const Part& part, size_t item, std::exception_ptr& thrown) {
  Job& job = *part.job;
  const int64_t before = job.position;
  for (int64_t row = 0; row < part.rows; ++row) {
    job.take(result, result.items[item].first_row + row, 1);
    tell(job, thrown);
    if (job.finished) break;
    job.choose_next(result.logits_of(item, row), config, engine.kernels());
    if (job.finished || (row + 1 < part.rows && job.tokens.back() != part.ids[static_cast<size_t>(row) + 1])) break;
  }
  if (job.position < job.sequence.position()) job.sequence.rewind(job.position, slots_at(job.out.decisions, job.position, config));
  if (part.rows == 1) return;
  const int64_t right = job.position - before - 1;
  job.checked(part.rows - 1, right);
  stats.guessed += part.rows - 1;
  stats.guessed_right += right;
}

void Scheduler::State::tell(Job& job, std::exception_ptr& thrown) {
  try {
    job.tell(config);
  } catch (...) {
    if (!thrown) thrown = std::current_exception();
  }
}

void Scheduler::State::after_forward(std::exception_ptr& thrown) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    Job& job = *part.job;
    if (part.work == Work::draft) {
      job.guess(result.logits_of(i), engine.kernels());
      continue;
    }
    const int64_t before = job.read();
    if (part.work == Work::check) {
      check_guesses(part, i, thrown);
    } else {
      job.take(result, result.items[i].first_row, part.rows);
      tell(job, thrown);
      if (!job.finished && job.left() == 0) choose(job, result.logits_of(i));
    }
    if (before / PrefixCache::kStride != job.read() / PrefixCache::kStride) keep_prefix(job);
  }
}

// The next token, of every sample when the prompt has just been read.
void Scheduler::State::choose(Job& job, std::span<const float> logits) {
  if (!std::exchange(job.shared_out, true))
    for (int64_t sample = 1; sample < job.request->samples; ++sample) {
      running.push_back(job.another(static_cast<size_t>(sample)));
      running.back().choose_next(logits, config, engine.kernels());
    }
  job.choose_next(logits, config, engine.kernels());
}

void Scheduler::State::retire(std::list<Job>& from) {
  for (auto job = from.begin(); job != from.end();) {
    const auto next = std::next(job);
    if (job->finished) {
      keep_prefix(*job);
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
    retire(running);
    retire(waiting);
    if (ended.empty()) break;
    ended.sort([](const Job& a, const Job& b) { return std::tuple(a.arrival, a.sample) < std::tuple(b.arrival, b.sample); });
    std::list<Job> first;
    first.splice(first.end(), ended, ended.begin());
    Job& job = first.front();
    stats.finished += 1;
    if (job.out.finish != Finish::cancelled && job.out.finish != Finish::deadline) {
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
    throw UserError({"generation", "samples", str(request.samples), str("at most ", s.options.max_texts, ", the texts that run at once"), ""});
  const int64_t tokens = std::min(static_cast<int64_t>(request.prompt.size()) + request.max_new_tokens, s.config.max_position_embeddings);
  s.engine.require_room(tokens);
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
  const std::shared_ptr<SharedPolicy> shared = state_->share(policy);
  for (std::list<Job>* jobs : {&state_->waiting, &state_->running})
    for (Job& job : *jobs) {
      if (job.id != id) continue;
      job.set_policy(shared);
    }
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
  s.assemble();
  Step out;
  std::exception_ptr thrown;
  if (!s.parts.empty()) {
    s.items.clear();
    for (const State::Part& part : s.parts) {
      Job& job = *part.job;
      const bool draft = part.work == State::Work::draft, reads = part.work == State::Work::read;
      (draft ? out.draft_rows : reads && !job.decodes() ? out.prompt_rows : out.decode_rows) += part.rows;
      s.items.push_back({.sequence = draft ? &*job.draft->sequence : &job.sequence,
                         .tokens = reads ? std::span<const int32_t>(job.tokens).subspan(static_cast<size_t>(job.read()), static_cast<size_t>(part.rows)) : part.ids,
                         .policy = draft ? &job.draft_policy->policy : &job.policy_at(job.read()).policy->policy,
                         .logits = reads && part.rows < job.left() ? Logits::none : reads || draft ? Logits::last : Logits::all});
    }
    s.engine.forward(s.items, s.result);
    s.result.refuse_nan_scores(s.config);
    out.rows = out.prompt_rows + out.decode_rows + out.draft_rows;
    s.stats.steps += 1;
    s.stats.prompt_rows += out.prompt_rows;
    s.stats.decode_rows += out.decode_rows;
    s.stats.draft_rows += out.draft_rows;
    s.after_forward(thrown);
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
