// The scheduler for several threads. One of them makes a step while the others wait, submit and cancel: what they ask for is done
// between two steps. The events of a step reach their requests when it ends.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "fathom/engine.h"
#include "infer/scheduler.h"

namespace fathom {

class Driver {
 public:
  // `model` is kept: requests point into it. UserError: an option out of its bounds.
  Driver(Model model, const EngineOptions& options);
  ~Driver();
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  // A request under way. Whoever holds it reads it through the driver alone.
  struct Ticket {
    double submitted = 0;                     // on the driver's clock
    std::optional<infer::Request> request;    // until the scheduler has it
    infer::RequestId id = 0;                  // from then on
    std::deque<Event> events;                 // not taken yet
    std::vector<Text> texts;                  // [samples]
    size_t open = 0;                          // texts that have not ended
    std::exception_ptr error;                 // why they will not; public
    bool told = false;                        // of the error
  };
  using Shared = std::shared_ptr<Ticket>;

  // `make` gets the clock's time. UserError: what it throws, and what the scheduler refuses.
  Shared submit(const std::function<infer::Request(double now)>& make);
  void cancel(const Shared& ticket);
  void set_policy(const Shared& ticket, infer::RoutingPolicy policy);
  std::optional<Event> next(Ticket& ticket);
  std::optional<Event> try_next(Ticket& ticket);
  bool done(const Ticket& ticket);
  std::vector<Text> wait(Ticket& ticket);

  // Engine::save and load.
  int64_t save(const std::string& path, const std::vector<TokenId>& ids, const std::vector<DialFrom>& dials);
  KeptText load(const std::string& path);

  bool step();
  void start();
  void stop();
  void close();                               // cancels everything; no step is made from then on
  EngineStats stats();

  const Model& model() const { return model_; }
  int threads() const { return threads_; }
  const char* instruction_set() const { return instruction_set_; }

 private:
  using Lock = std::unique_lock<std::mutex>;
  struct Command {
    enum { submit, cancel, policy } what;
    Shared ticket;
    infer::RoutingPolicy policy_from_now = {};
  };
  struct News {
    Ticket* ticket;                           // one of open_
    Event event;
    std::optional<Text> ended;                // with the event that ends a text
    std::exception_ptr failed;                // a text that ends so has no event
  };

  struct Task {
    std::function<void()> body;
    bool done = false;
    std::exception_ptr thrown;
  };

  void make_scheduler();
  void between_steps(std::function<void()> body);  // by whoever makes the steps, without the lock; throws what it throws
  void ask(Command command);
  infer::Request with_callbacks(infer::Request request, Ticket* ticket);
  // With the lock, while nobody makes a step:
  void settle();                              // does what was asked for, and hands the news out
  void deliver();
  void fail(std::exception_ptr why);          // of all that the scheduler has
  EngineStats count() const;

  void run_step(Lock& lock);                  // or tasks in place of one; with the lock, which it lets go while it computes
  static std::optional<Event> take(Ticket& ticket);  // with the lock; throws the error behind the last event
  static void tell(Ticket& ticket);           // with the lock: throws the error, if there is one
  void await(Lock& lock, const std::function<bool()>& ready);  // makes steps where nobody else does
  void loop(uint64_t turn);

  Model model_;
  infer::SchedulerOptions options_;
  int threads_ = 0;
  const char* instruction_set_ = "";
  std::optional<infer::Engine> engine_;
  std::optional<infer::Scheduler> scheduler_;

  std::mutex mutex_;                          // of all that follows; engine and scheduler are whoever's is making a step
  std::condition_variable changed_;
  bool busy_ = false;                         // somebody makes a step
  bool closed_ = false;
  uint64_t made_ = 0;                         // steps
  std::vector<Command> commands_;
  std::vector<Task*> tasks_;                  // of those who wait for them
  std::vector<Shared> open_;                  // in the order of submission
  std::vector<News> news_;                    // of the step at hand; written by who makes it
  EngineStats before_;                        // of schedulers that failed
  EngineStats last_;                          // after the last step
  int64_t submitted_ = 0;
  std::thread thread_;
  uint64_t turn_ = 0, turns_ = 0;             // of the thread that makes the steps; 0: there is none
};

}  // namespace fathom
