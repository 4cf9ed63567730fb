#include "api/driver.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <stdexcept>
#include <utility>

#include "api/internals.h"
#include "core/limits.h"
#include "infer/generate.h"

namespace fathom {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void check(const EngineOptions& o) {
  const auto refuse = [](const char* field, int64_t found, const std::string& expected) { throw UserError({"engine options", field, str(found), expected, ""}); };
  if (o.threads < 0 || o.threads > limits::kThreads) refuse("threads", o.threads, str("0 to ", limits::kThreads));
  if (o.kv_bytes < 0 || o.kv_bytes > limits::kKvMemory) refuse("kv_bytes", o.kv_bytes, str("0 (no limit) to ", limits::kKvMemory));
  if (o.max_texts < 1 || o.max_texts > limits::kTexts) refuse("max_texts", o.max_texts, str("1 to ", limits::kTexts));
  if (o.step_rows <= o.max_texts || o.step_rows > limits::kStepRows)
    refuse("step_rows", o.step_rows, str("more than max_texts ", o.max_texts, ", at most ", limits::kStepRows));
  if (o.prefill_chunk < 1 || o.prefill_chunk > limits::kStepRows) refuse("prefill_chunk", o.prefill_chunk, str("1 to ", limits::kStepRows));
  if (o.prefix_tokens < 0 || o.prefix_tokens > limits::kPrefixTokens) refuse("prefix_tokens", o.prefix_tokens, str("0 (none) to ", limits::kPrefixTokens));
  if (!kv_type_of(o.kv_type)) refuse("kv_type", static_cast<int64_t>(o.kv_type), "a CacheType: f32, f16, bf16 or q8_0");
}

// What the engine's own options are made of is here alone.
infer::EngineOptions engine_options(const EngineOptions& o) { return {.threads = o.threads, .kv_bytes = o.kv_bytes, .kv_type = *kv_type_of(o.kv_type)}; }

infer::SchedulerOptions scheduler_options(const EngineOptions& o) {
  return {.step_rows = o.step_rows, .prefill_chunk = o.prefill_chunk, .max_texts = o.max_texts, .prefix_tokens = o.prefix_tokens,
          .admit_worst_case = o.admit_worst_case, .clock = seconds};
}

std::vector<TextPart> parts_of(const infer::TextParts& parts) {
  std::vector<TextPart> out;
  for (const infer::TextPart& p : parts) out.push_back({p.token, p.text});
  return out;
}

Event event_of(const infer::TokenEvent& e, double since) {
  Token token{.id = e.id, .position = e.position, .depth = e.depth, .run = {e.run.begin(), e.run.end()}, .log_probs = {}, .seconds = since};
  if (e.log_probs) token.log_probs = {.chosen = e.log_probs->chosen, .top = e.log_probs->top};
  return {.sample = e.prompt, .text = infer::text_of(e.text), .parts = parts_of(e.text), .token = std::move(token), .finish = {}};
}

Finish finish_of(infer::Finish finish) {
  switch (finish) {
    case infer::Finish::length: return Finish::length;
    case infer::Finish::stop_id: return Finish::stop_id;
    case infer::Finish::stop_string: return Finish::stop_string;
    case infer::Finish::context_full: return Finish::context_full;
    case infer::Finish::cancelled: return Finish::cancelled;
    case infer::Finish::deadline: return Finish::deadline;
    case infer::Finish::failed: break;  // is an error of its request
  }
  FATHOM_ASSERT(false, "an end without a name");
}

// Its tokens were told of one by one.
Text text_of(infer::Generated&& g, const model::ModelConfig& config, double since) {
  Text text{.text = std::move(g.text), .finish = finish_of(g.finish), .prompt_tokens = g.prompt_tokens, .cached_tokens = g.cached_tokens, .guessed = g.guessed,
            .guessed_right = g.guessed_right, .preemptions = g.preemptions, .kv_bytes = g.kv_slot_bytes, .kv_bytes_dense = g.kv_slot_bytes_dense, .seconds = since};
  if (g.read_tokens > 0) {
    const infer::TextCost cost = infer::cost_of(config, g);
    text.block_fraction = model::block_fraction(cost.spent, cost.dense);
    text.total_fraction = model::total_fraction(cost.spent, cost.dense);
  }
  return text;
}

std::exception_ptr to_public(std::exception_ptr thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const UserError& e) {
    return std::make_exception_ptr(public_error(e));
  } catch (...) {
    return thrown;
  }
}

}  // namespace

Driver::Driver(Model model, const EngineOptions& options) : model_(std::move(model)), options_(scheduler_options(options)) {
  check(options);
  engine_.emplace(Internals::of(model_).need_weights(), engine_options(options));
  threads_ = engine_->threads();
  instruction_set_ = engine_->kernels().name;
  make_scheduler();
  last_ = count();
}

Driver::~Driver() { close(); }

void Driver::make_scheduler() {
  scheduler_.reset();
  scheduler_.emplace(*engine_, options_);
}

infer::Request Driver::with_callbacks(infer::Request request, Ticket* ticket) {
  request.on_token = [this, ticket](const infer::TokenEvent& e) {
    news_.push_back({ticket, event_of(e, seconds() - ticket->submitted), {}, {}});
    return true;
  };
  request.on_finish = [this, ticket](size_t sample, infer::Generated&& g) {
    if (g.error) {
      news_.push_back({ticket, {.sample = sample, .text = {}, .parts = {}, .token = {}, .finish = {}}, {}, to_public(g.error)});
      return;
    }
    Event event{.sample = sample, .text = infer::text_of(g.tail), .parts = parts_of(g.tail), .token = {}, .finish = finish_of(g.finish)};
    news_.push_back({ticket, std::move(event), text_of(std::move(g), engine_->config(), seconds() - ticket->submitted), {}});
  };
  return request;
}

Driver::Shared Driver::submit(const std::function<infer::Request(double now)>& make) {
  const double now = seconds();
  infer::Request request = make(now);  // without the lock: it may have a long text to encode
  const Lock lock(mutex_);
  if (closed_) throw std::bad_alloc();  // the want of memory that ended it
  scheduler_->check(request);
  const auto ticket = std::make_shared<Ticket>();
  ticket->submitted = now;
  ticket->open = static_cast<size_t>(request.samples);
  ticket->texts.resize(ticket->open);
  ticket->request = with_callbacks(std::move(request), ticket.get());
  open_.push_back(ticket);
  ++submitted_;
  ask({Command::submit, ticket});
  return ticket;
}

void Driver::cancel(const Shared& ticket) {
  const Lock lock(mutex_);
  if (ticket->open > 0) ask({Command::cancel, ticket});
}

void Driver::set_policy(const Shared& ticket, infer::RoutingPolicy policy) {
  const Lock lock(mutex_);
  if (ticket->open > 0) ask({Command::policy, ticket, std::move(policy)});
}

void Driver::ask(Command command) {
  commands_.push_back(std::move(command));
  if (!busy_) settle();
  changed_.notify_all();
}

void Driver::settle() {
  if (!scheduler_) return;
  try {
    for (Command& c : std::exchange(commands_, {})) {
      Ticket& t = *c.ticket;
      if (t.open == 0) continue;
      switch (c.what) {
        case Command::submit:
          t.id = scheduler_->submit(std::move(*t.request));
          t.request.reset();
          break;
        case Command::cancel: scheduler_->cancel(t.id); break;
        case Command::policy: scheduler_->set_policy(t.id, std::move(c.policy_from_now)); break;
      }
    }
    deliver();
    last_ = count();
  } catch (...) {
    fail(std::current_exception());
  }
}

void Driver::deliver() {
  for (size_t i = 0; i < news_.size(); ++i) {  // which a cancellation adds to
    News n = std::move(news_[i]);
    Ticket& t = *n.ticket;
    if (n.failed) {
      --t.open;
      if (std::exchange(t.error, n.failed) == nullptr) scheduler_->cancel(t.id);  // its other samples
      continue;
    }
    Text& text = t.texts[n.event.sample];
    if (n.event.token) {
      if (text.tokens.empty()) text.first_token_seconds = n.event.token->seconds;
      text.tokens.push_back(*n.event.token);
    }
    if (n.ended) {
      n.ended->tokens = std::move(text.tokens);
      n.ended->first_token_seconds = text.first_token_seconds;
      text = std::move(*n.ended);
      --t.open;
    }
    t.events.push_back(std::move(n.event));
  }
  news_.clear();
  std::erase_if(open_, [](const Shared& t) { return t->open == 0; });
}

void Driver::fail(std::exception_ptr why) {
  why = to_public(why);
  last_ = before_ = count();
  last_.waiting = last_.running = 0;
  news_.clear();
  commands_.clear();
  for (const Shared& t : open_) {
    t->error = why;
    t->open = 0;
    t->request.reset();
  }
  open_.clear();
  try {
    make_scheduler();  // what it still has would tell of tickets that have ended
  } catch (...) {
    closed_ = true;
  }
}

void Driver::run_step(Lock& lock) {
  settle();
  if (!scheduler_) return;
  busy_ = true;
  const std::vector<Task*> tasks = std::exchange(tasks_, {});
  lock.unlock();
  std::exception_ptr thrown;
  for (Task* task : tasks) {
    try {
      task->body();
    } catch (...) {
      task->thrown = std::current_exception();
    }
  }
  try {
    if (tasks.empty()) scheduler_->step();
  } catch (...) {
    thrown = std::current_exception();
  }
  lock.lock();
  busy_ = false;
  ++made_;
  for (Task* task : tasks) task->done = true;
  if (thrown) fail(thrown);
  settle();
  if (!closed_ && !open_.empty() && scheduler_->idle()) fail(std::make_exception_ptr(std::logic_error("a request that the scheduler has forgotten; please report this")));
  changed_.notify_all();
}

void Driver::await(Lock& lock, const std::function<bool()>& ready) {
  while (!ready()) {
    if (busy_ || closed_ || turn_ != 0) {
      changed_.wait(lock);
      continue;
    }
    run_step(lock);
  }
}

std::optional<Event> Driver::next(Ticket& ticket) {
  Lock lock(mutex_);
  await(lock, [&] { return !ticket.events.empty() || ticket.open == 0; });
  return take(ticket);
}

std::optional<Event> Driver::try_next(Ticket& ticket) {
  const Lock lock(mutex_);
  return take(ticket);
}

std::optional<Event> Driver::take(Ticket& ticket) {
  if (ticket.events.empty()) {
    tell(ticket);
    return {};
  }
  std::optional<Event> event = std::move(ticket.events.front());
  ticket.events.pop_front();
  return event;
}

void Driver::tell(Ticket& ticket) {
  if (!ticket.error) return;
  ticket.told = true;
  std::rethrow_exception(ticket.error);
}

bool Driver::done(const Ticket& ticket) {
  const Lock lock(mutex_);
  return ticket.open == 0 && ticket.events.empty() && (!ticket.error || ticket.told);
}

std::vector<Text> Driver::wait(Ticket& ticket) {
  Lock lock(mutex_);
  await(lock, [&] { return ticket.open == 0; });
  tell(ticket);
  ticket.events.clear();
  return ticket.texts;
}

void Driver::between_steps(std::function<void()> body) {
  Task task{.body = std::move(body), .done = false, .thrown = {}};
  Lock lock(mutex_);
  tasks_.push_back(&task);
  changed_.notify_all();
  try {
    await(lock, [&] { return task.done || (closed_ && !busy_); });
  } catch (...) {
    std::erase(tasks_, &task);
    throw;
  }
  std::erase(tasks_, &task);
  if (task.thrown) std::rethrow_exception(task.thrown);
  if (!task.done) throw std::bad_alloc();  // the want of memory that closed it
}

bool Driver::step() {
  Lock lock(mutex_);
  if (busy_) changed_.wait(lock, [this, at = made_] { return made_ != at; });
  else if (!closed_) run_step(lock);
  return !open_.empty();
}

void Driver::start() {
  const Lock lock(mutex_);
  if (turn_ != 0 || closed_) return;
  thread_ = std::thread([this, turn = turns_ + 1] { loop(turn); });
  turn_ = ++turns_;
}

void Driver::stop() {
  std::thread ending;
  {
    const Lock lock(mutex_);
    turn_ = 0;
    ending = std::move(thread_);
    changed_.notify_all();
  }
  if (ending.joinable()) ending.join();
}

void Driver::loop(uint64_t turn) {
  Lock lock(mutex_);
  while (turn_ == turn) {
    if (busy_ || closed_ || (open_.empty() && tasks_.empty())) changed_.wait(lock);
    else run_step(lock);
  }
}

void Driver::close() {
  stop();
  Lock lock(mutex_);
  closed_ = true;
  changed_.wait(lock, [this] { return !busy_; });
  if (!scheduler_) return;
  for (const Shared& t : std::vector(open_)) commands_.push_back({Command::cancel, t});
  settle();
  scheduler_.reset();
  engine_.reset();
  changed_.notify_all();
}

EngineStats Driver::stats() {
  const Lock lock(mutex_);
  EngineStats stats = last_;
  stats.submitted = submitted_;
  return stats;
}

EngineStats Driver::count() const {
  const infer::SchedulerStats& s = scheduler_->stats();
  EngineStats out = before_;
  out.finished += s.finished;
  out.waiting = scheduler_->waiting(), out.running = scheduler_->running();
  out.steps += s.steps;
  out.prompt_rows += s.prompt_rows, out.decode_rows += s.decode_rows, out.draft_rows += s.draft_rows;
  out.cached_tokens += s.cached_tokens;
  out.preemptions += s.preemptions;
  out.guessed += s.guessed, out.guessed_right += s.guessed_right;
  out.kv_bytes = engine_->pool().bytes_in_use();
  out.kv_peak_bytes = engine_->pool().peak_pages() * engine_->pool().page_bytes();
  out.block_rows = engine_->counters().block_rows;
  return out;
}

}  // namespace fathom
