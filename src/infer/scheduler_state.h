// The scheduler's own: its texts and the step at hand. Internal to assemble.cpp and scheduler.cpp.
#pragma once
#include <exception>
#include <list>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "infer/job.h"

namespace fathom::infer {

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

  std::vector<std::pair<RequestId, std::shared_ptr<SharedPolicy>>> policies_from_now;  // asked for within a step

  enum class Work { read, draft, check };
  struct Part {
    Job* job;
    Work work;
    Sequence* sequence;        // that reads
    int64_t rows;
    int64_t room;              // rows more that it may have for guesses
    std::vector<int32_t> ids;  // draft, check: that are read
    std::vector<uint8_t> kinds;  // check: of the guesses among them
  };
  std::vector<Part> parts;  // of the step
  StepAround around;        // of the step, without guesses
  StepTimes times;
  int64_t prompt_rows = 0;  // of the last step
  double lone_seconds = 0;  // of the step, when it was one text's
  std::vector<WorkItem> items;
  StepResult result;

  State(Engine& e, const SchedulerOptions& o);

  std::shared_ptr<SharedPolicy> share(const RoutingPolicy& policy);

  // What a step holds (assemble.cpp).
  std::vector<Job*> in_turn(std::list<Job>& jobs) const;
  int64_t aged(const Job& job) const { return job.priority + (stats.steps - job.waiting_since) / options.aging_steps; }
  int64_t pages_at_end(const Job& job) const;
  bool may_enter(const Job& job) const;
  bool fits() const;
  bool make_room(const Job& job);
  bool drop_draft();
  void preempt(Job& job);
  bool enter(Job& job);
  bool add(Job& job, int64_t& budget);
  void add_guesses(Part& part);
  void assemble();

  // What becomes of it (scheduler.cpp).
  void after_forward(std::exception_ptr& thrown);
  void read(const Part& part, size_t item, std::exception_ptr& thrown);
  void check_guesses(const Part& part, size_t item, std::exception_ptr& thrown);
  void tell(Job& job, std::exception_ptr& thrown);
  void change_policy(Job& job);
  void choose(Job& job, std::span<const float> logits);
  void choose_next(Job& job, std::span<const float> logits);
  std::vector<ReadToken> as_read(std::span<const int32_t> tokens, std::span<const PolicyFrom> policies);
  void keep_prefix(std::span<const ReadToken> text, const Sequence& sequence, const routing::Decisions& decisions, bool ends);
  void keep_prefix(Job& job);
  void retire(std::list<Job>& from);
  void end_of_step(std::exception_ptr thrown);
};

}  // namespace fathom::infer
