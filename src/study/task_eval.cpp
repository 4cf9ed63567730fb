#include "study/task_eval.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <list>

#include "infer/forward.h"

namespace fathom::study {
namespace {

// A beginning of a choice's text that has been read: the shared one, or that with the choice's own tokens.
struct Branch {
  infer::Sequence sequence;
  routing::Decisions decisions;
  int64_t read = 0;                // of its own tokens
};

struct ChoiceBranch {
  std::optional<Branch> branch;    // from when the context has been read until its last token
  double log_likelihood = 0;
  bool greedy = true;
  bool done = false;
};

// An item on its way through the engine.
struct Reading {
  size_t item = 0;
  TaskRequest request;
  int64_t kv_bytes = 0;            // that it may need
  Branch context;
  std::vector<ChoiceBranch> choices;
  ItemResult result;

  bool context_read() const { return context.read == std::ssize(request.shared); }
};

// Rows of a step and whose they are.
struct Part {
  Reading* reading;
  std::optional<size_t> choice;    // nothing: the context
  int64_t rows;
};

class Evaluator {
 public:
  Evaluator(const Subject& subject, const Task& task, const TaskOptions& options)
      : engine_(*subject.engine), config_(subject.engine->config()), task_(task), options_(options),
        encoder_(*subject.tokenizer, config_.max_position_embeddings), policy_(policy_of(subject, infer::Rule::causal, options.dial)) {
    FATHOM_ASSERT(options.rows_per_step >= 1, options.rows_per_step);
  }

  void run(TaskResult& result) {
    std::vector<size_t> unread;
    result.items.resize(task_.items.size());
    for (size_t i = 0; i < task_.items.size(); ++i) {
      const ItemResult* known = options_.known ? options_.known(i) : nullptr;
      if (known) result.items[i] = *known;
      else unread.push_back(i);
    }
    int64_t done = std::ssize(task_.items) - std::ssize(unread);
    result.read = std::ssize(unread);
    for (Next next = unread.cbegin(); next != unread.cend() || !open_.empty();) {
      plan(next, unread.cend());
      engine_.forward(work_, step_);
      for (size_t i = 0; i < parts_.size(); ++i) take(parts_[i], i);
      for (auto r = open_.begin(); r != open_.end();) {
        if (!std::ranges::all_of(r->choices, &ChoiceBranch::done)) {
          ++r;
          continue;
        }
        result.items[r->item] = std::move(r->result);
        if (options_.done) options_.done(r->item, result.items[r->item], ++done);
        r = open_.erase(r);
      }
    }
  }

 private:
  using Next = std::vector<size_t>::const_iterator;

  // The rows of the next step: those of open items in order, then new items as long as there are rows and memory left.
  void plan(Next& next, Next end) {
    work_.clear(), parts_.clear();
    left_ = options_.rows_per_step;
    int64_t kv_bytes = 0;
    for (Reading& r : open_) {
      kv_bytes += r.kv_bytes;
      add(r);
    }
    while (left_ > 0 && next != end) {
      if (!waiting_) waiting_ = open(*next);
      if (!open_.empty() && waiting_->kv_bytes > engine_.pool().byte_limit() - kv_bytes) break;
      kv_bytes += waiting_->kv_bytes;
      open_.push_back(std::move(*waiting_));
      waiting_.reset();
      ++next;
      add(open_.back());
    }
  }

  Reading open(size_t item) {
    Reading r{.item = item, .request = encoder_.request(task_.items[item], str(task_.path, ": item ", item + 1)), .context = {engine_.new_sequence(), {}, 0}, .choices = {}, .result = {}};
    const int64_t shared = std::ssize(r.request.shared);
    int64_t longest = 0;
    for (const TaskRequest::Choice& c : r.request.choices) longest = std::max(longest, std::ssize(c.tokens));
    // As if the choices shared nothing: pages that they write into are copied.
    const int64_t texts = std::ssize(r.request.choices) + 1;
    engine_.require_room(shared + longest, texts);
    r.kv_bytes = texts * engine_.kv_bytes_for(shared + longest);
    r.choices.resize(r.request.choices.size());
    r.result.log_likelihood.resize(r.choices.size());
    r.result.cut = r.request.cut;
    if (r.context_read()) fork(r);
    return r;
  }

  void fork(Reading& r) {
    for (ChoiceBranch& c : r.choices) c.branch = Branch{r.context.sequence.fork(), r.context.decisions, 0};
    r.context.sequence.clear();
    count(r.result, r.context.decisions, std::ssize(r.request.shared), 0, 1 - std::ssize(r.choices));
  }

  // What `times` texts of so many tokens cost, of whose predictions the head computes `scored`.
  void count(ItemResult& result, const routing::Decisions& decisions, int64_t tokens, int64_t scored, int64_t times) const {
    if (tokens == 0) return;
    const model::ForwardCost spent = model::forward_cost(config_, tokens, decisions, scored), dense = model::dense_cost(config_, tokens, scored);
    result.rows += times * tokens;
    result.blocks += times * spent.blocks_total(), result.total += times * spent.total();
    result.dense_blocks += times * dense.blocks_total(), result.dense_total += times * dense.total();
  }

  void add(Reading& r) {
    if (!r.context_read()) return add(r, std::nullopt, r.context, r.request.shared, {});
    for (size_t c = 0; c < r.choices.size(); ++c)
      if (!r.choices[c].done) add(r, c, *r.choices[c].branch, r.request.choices[c].tokens, r.request.choices[c].targets);
  }

  void add(Reading& r, std::optional<size_t> choice, Branch& branch, std::span<const int32_t> tokens, std::span<const int32_t> targets) {
    const int64_t rows = std::min(left_, std::ssize(tokens) - branch.read);
    if (rows == 0) return;
    const size_t at = static_cast<size_t>(branch.read), count = static_cast<size_t>(rows);
    work_.push_back({.sequence = &branch.sequence, .tokens = tokens.subspan(at, count), .policy = &policy_, .logits = infer::Logits::none,
                     .targets = targets.empty() ? targets : targets.subspan(at, count)});
    parts_.push_back({&r, choice, rows});
    left_ -= rows;
  }

  // What the step found out about one part of it.
  void take(const Part& part, size_t i) {
    Reading& r = *part.reading;
    const infer::StepResult::Item& at = step_.items[i];
    step_.refuse_nan_scores(config_, at.first_row, at.rows);
    Branch& branch = part.choice ? *r.choices[*part.choice].branch : r.context;
    step_.append_decisions(i, branch.decisions);
    if (!part.choice) {
      branch.read += part.rows;
      if (r.context_read()) fork(r);
      return;
    }
    const TaskRequest::Choice& choice = r.request.choices[*part.choice];
    ChoiceBranch& c = r.choices[*part.choice];
    for (int64_t row = 0; row < part.rows; ++row) {
      const int32_t target = choice.targets[static_cast<size_t>(branch.read + row)];
      if (target < 0) continue;
      const float nll = step_.nll[static_cast<size_t>(at.first_row + row)];
      if (!std::isfinite(nll))
        throw UserError({"the model", str(task_.path, ": item ", r.item + 1), "a loss that is not finite", "numbers", "are its weights damaged?"});
      c.log_likelihood -= nll;
      c.greedy &= step_.best[static_cast<size_t>(at.first_row + row)] == target;
    }
    branch.read += part.rows;
    if (branch.read < std::ssize(choice.tokens)) return;
    count(r.result, branch.decisions, std::ssize(r.request.shared) + std::ssize(choice.tokens), choice.scored(), 1);
    r.result.log_likelihood[*part.choice] = c.log_likelihood;
    if (task_.continuations) r.result.greedy = c.greedy;
    c.branch.reset();
    c.done = true;
  }

  infer::Engine& engine_;
  const model::ModelConfig& config_;
  const Task& task_;
  const TaskOptions& options_;
  const TaskEncoder encoder_;
  const infer::RoutingPolicy policy_;
  std::list<Reading> open_;          // parts of a step point into it
  std::optional<Reading> waiting_;   // for memory
  std::vector<infer::WorkItem> work_;
  std::vector<Part> parts_;          // [work_]
  int64_t left_ = 0;                 // rows of the step
  infer::StepResult step_;
};

}  // namespace

TaskResult evaluate_task(const Subject& subject, const Task& task, const TaskOptions& options) {
  TaskResult result{.name = task.name, .file = task.path, .hash = task.hash, .continuations = task.continuations, .items = {}, .right = {}, .right_by_length = {}};
  result.dial = dial_of(subject, options.dial);
  const auto begin = std::chrono::steady_clock::now();
  Evaluator(subject, task, options).run(result);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  for (size_t i = 0; i < task.items.size(); ++i) {
    result.right.push_back(answered(task, i, result.items[i]));
    if (!task.continuations) result.right_by_length.push_back(answered(task, i, result.items[i], true));
    result.rows += result.items[i].rows, result.cut += result.items[i].cut;
  }
  return result;
}

}  // namespace fathom::study
