// What the next step holds: who runs, who may enter, whose memory is taken for whom, and which guesses there is room for.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "core/error.h"
#include "infer/scheduler_state.h"

namespace fathom::infer {
namespace {

int64_t pages_of(double slots) { return static_cast<int64_t>(std::ceil(slots / static_cast<double>(kPagePositions))); }

}  // namespace

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

// Whether the pool has what the step takes at most.
bool Scheduler::State::fits() const {
  if (engine.pool().page_limit() == INT64_MAX) return true;
  std::vector<Growth> step;
  int64_t silent = 0;  // pages of blocks that keep no keys
  for (const Part& part : parts) {
    step.push_back({part.sequence, part.rows});
    silent += config.silent_blocks() * pages_of(static_cast<double>(part.rows));
  }
  return pages_for(engine.pool(), step) - silent <= engine.pool().pages_left();
}

// Frees kept prefixes, then guesses, then the memory of who comes last in turn, until the step fits, whose last part is `job`'s. False
// when that memory must be `job`'s own or that of one before it.
bool Scheduler::State::make_room(const Job& job) {
  while (!fits()) {
    if (prefixes.evict() || drop_draft()) continue;
    const std::vector<Job*> order = in_turn(running);
    const auto last = std::find_if(order.rbegin(), order.rend(), [&](const Job* j) { return j == &job || j->sequence.pages() > 0; });
    // One that is in the step already comes before `job`.
    if (last == order.rend() || std::any_of(parts.begin(), parts.end(), [&](const Part& p) { return p.job == *last; })) return false;
    preempt(**last);
  }
  return true;
}

// The guesses of who comes last in turn, if a sequence of their own holds memory and is not in the step.
bool Scheduler::State::drop_draft() {
  const std::vector<Job*> order = in_turn(running);
  const auto last = std::find_if(order.rbegin(), order.rend(), [&](const Job* job) {
    return job->draft && job->draft->sequence && std::none_of(parts.begin(), parts.end(), [&](const Part& p) { return p.sequence == &*job->draft->sequence; });
  });
  if (last == order.rend()) return false;
  (*last)->give_up_draft();
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
  if (job.out.preemptions == 0) job.out.cached_tokens = cached;
  running.splice(running.end(), waiting, std::find_if(waiting.begin(), waiting.end(), [&](const Job& j) { return &j == &job; }));
  return true;
}

// Its own rows of this step: the next token, or a part of what it has to read; of the budget also what its guesses may take.
bool Scheduler::State::add(Job& job, int64_t& budget) {
  const int64_t rows = job.decodes() ? 1 : job.next_rows(std::min(options.prefill_chunk, budget));
  if (rows == 0) return true;
  parts.push_back({.job = &job, .work = Work::read, .sequence = &job.sequence, .rows = rows, .room = 0, .ids = {}, .kinds = {}});
  if (!make_room(job)) {
    parts.pop_back();
    return false;
  }
  budget -= rows;
  job.begin_draft(budget / 2, config, around, times);
  if (job.draft && job.draft->ready()) budget -= parts.back().room = std::min(std::ssize(job.draft->ids), budget / 2);  // half: who comes later advances too
  return true;
}

// One guess more in place of its own row, or a check of all. Guesses need memory that the text itself does not: kept prefixes make
// room for them, other texts do not.
void Scheduler::State::add_guesses(Part& part) {
  Job& job = *part.job;
  if (!job.draft) return;
  const Part own = part;
  if (!job.draft->ready()) {
    part.work = Work::draft;
    part.sequence = &*job.draft->sequence;
    part.ids = {job.draft->ids.empty() ? job.tokens.back() : job.draft->ids.back()};
  } else {
    part.work = Work::check;
    part.ids = {job.tokens.back()};
    // Under one policy, and within the step: what does not fit was guessed in vain.
    part.ids.insert(part.ids.end(), job.draft->ids.begin(), job.draft->ids.begin() + part.room);
    for (const PolicyPart& policy : job.policies)
      if (policy.first > job.read()) part.ids.resize(static_cast<size_t>(std::min<int64_t>(std::ssize(part.ids), policy.first - job.read())));
    part.rows = std::ssize(part.ids);
    part.kinds.assign(job.draft->kinds.begin(), job.draft->kinds.begin() + part.rows - 1);
    job.draft.reset();
  }
  while (!fits()) {
    if (prefixes.evict()) continue;
    part = own;
    job.give_up_draft();
    break;
  }
}

void Scheduler::State::assemble() {
  parts.clear();
  int64_t budget = options.step_rows;
  const int64_t decoding = std::count_if(running.begin(), running.end(), [](const Job& job) { return job.decodes(); });
  budget -= decoding;  // their rows are theirs
  around.texts = std::max<int64_t>(1, decoding);  // one that comes back may find all that it had read kept, and decode at once
  around.rows = around.texts + (decoding < std::ssize(running) + std::ssize(waiting) ? prompt_rows : 0);  // as many of prompts as in the last step
  for (Job* job : in_turn(running)) {
    const auto still = std::find_if(running.begin(), running.end(), [&](const Job& j) { return &j == job; });
    if (still == running.end()) continue;  // its memory was taken
    budget += job->decodes();
    if (!add(*job, budget)) preempt(*job);
  }
  for (Job* job : in_turn(waiting)) {
    if (budget <= 0 || !enter(*job)) break;  // nobody overtakes: the first in line gets in some time
    const int64_t waited = std::exchange(job->priority, aged(*job));
    if (!add(*job, budget)) {  // no room yet, and nothing was read
      job->priority = waited;
      job->sequence.clear();
      job->position = 0;
      waiting.splice(waiting.end(), running, std::prev(running.end()));
      break;
    }
    if (job->out.preemptions == 0) stats.cached_tokens += job->out.cached_tokens;
  }
  for (Part& part : parts) add_guesses(part);  // last: what they would take is everybody else's first
  FATHOM_ASSERT(!parts.empty() || (running.empty() && waiting.empty()), "nothing fits into the KV limit");
}

}  // namespace fathom::infer
