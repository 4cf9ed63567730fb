// Runs a model for many requests at once: every step carries rows of all that are under way.
//
//   fathom::Engine engine(fathom::Model::open("model/"));
//   for (const fathom::Event& e : engine.submit({.prompt = "The sea", .dial = 0.6})) std::cout << e.text;
//
// Steps are made by whoever waits in Stream::next(), by calls of Engine::step(), or by a thread of the engine's own between
// Engine::start() and Engine::stop(). Every member of Engine and Stream may be called from several threads; one stream's events
// each go to one of the callers. What a text becomes does not depend on who makes the steps, nor on what else is under way.
#pragma once
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fathom/events.h"
#include "fathom/model.h"
#include "fathom/request.h"

namespace fathom {

struct EngineOptions {
  int threads = 0;               // that compute; 0: all cores that this process may use
  int64_t kv_bytes = 0;          // limit of the memory for keys and values, which is obeyed: requests wait for their turn; 0: none
  int64_t max_texts = 64;        // 1 to 4,096 that run at once; each sample is one
  int64_t step_rows = 256;       // tokens that a step reads at most; more than max_texts, at most 65,536
  int64_t prefill_chunk = 128;   // of those, of one prompt: what a long prompt may delay the others by
  int64_t prefix_tokens = 4096;  // of texts' beginnings that are kept for other requests; 0: none
  bool admit_worst_case = false; // let a text in only when all that run could need all of their tokens and blocks: no text ever loses its memory
  CacheType kv_type = CacheType::f32;  // how keys and values are held; what a text becomes depends on it
};

struct EngineStats {
  int64_t submitted = 0, finished = 0;      // requests; texts
  int64_t waiting = 0, running = 0;         // texts at the moment
  int64_t steps = 0;
  int64_t prompt_rows = 0, decode_rows = 0, draft_rows = 0;  // tokens read: of prompts, new ones and checked guesses, guesses
  int64_t cached_tokens = 0;                // of prompts, found in the prefix cache
  int64_t preemptions = 0;
  int64_t guessed = 0, guessed_right = 0;   // tokens, by speculation
  int64_t kv_bytes = 0, kv_peak_bytes = 0;  // pages at the moment, kept beginnings with them; the most so far
  std::vector<int64_t> block_rows = {};     // [blocks] tokens that ran the block in full
};

// A text that was read, of which some may be kept.
struct KeptText {
  std::vector<TokenId> ids = {};
  std::vector<DialFrom> dials = {};         // that they were read at, as Request::dials; none: the model's own
  int64_t kept = 0;                         // of the ids, from the first, that a request for them finds read
};

// A request under way. When the last handle goes away before its texts have ended, they are cancelled. It may outlive its engine.
class FATHOM_API Stream {
 public:
  Stream(Stream&&) noexcept;
  Stream& operator=(Stream&&) noexcept;
  ~Stream();

  // The next event, waiting for it; nothing when every text has ended and every event was taken. Error (or std::bad_alloc) when it
  // failed: behind the events that came before, and again whenever it is asked.
  std::optional<Event> next();
  std::optional<Event> try_next();  // the same without waiting: nothing, too, when there is none yet
  bool done() const;                // nothing is to come: every event was taken, and the error thrown once, if there is one
  // Waits for the end; returns all texts [samples]. Events that were not taken are dropped.
  std::vector<Text> wait();

  void cancel();                    // ends its texts and frees what they hold, between two steps; texts that have ended stay as they are
  void set_dial(double dial);       // for tokens after the prompt that are not read yet

  class Iterator;
  Iterator begin();                 // takes events by next()
  std::default_sentinel_t end() const { return {}; }

 private:
  friend class Engine;
  struct State;
  explicit Stream(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

class Stream::Iterator {
 public:
  using value_type = Event;
  using difference_type = std::ptrdiff_t;
  explicit Iterator(Stream& stream) : stream_(&stream), event_(stream.next()) {}
  const Event& operator*() const { return *event_; }
  const Event* operator->() const { return &*event_; }
  Iterator& operator++() {
    event_ = stream_->next();
    return *this;
  }
  void operator++(int) { ++*this; }
  bool operator==(std::default_sentinel_t) const { return !event_; }

 private:
  Stream* stream_;
  std::optional<Event> event_;
};
inline Stream::Iterator Stream::begin() { return Iterator(*this); }

// A text whose scores or logits are no numbers fails alone, with the other samples of its request: their stream throws what happened, once
// its events are taken. A step that cannot be made at all (no memory) fails for every stream that it was to go on with. The engine goes on.
class FATHOM_API Engine {
 public:
  // Error: an option out of its bounds, or a model that was opened without its weights.
  explicit Engine(Model model, const EngineOptions& options = {});
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();                        // cancels what is under way

  // Requests of equal priority enter in the order of their submission. Error names the field that is out of its bounds, a prompt
  // beyond the model's context, a dial that the model does not run at, a text that could never fit into kv_bytes.
  Stream submit(const Request& request);
  Text generate(const Request& request);  // of one text: submits it and waits

  // Writes a text with the keys and values that are kept of it (EngineOptions::prefix_tokens) into a file, so that an engine that loads
  // it need not read it again: a prompt and what came of it, say. `dials` as Request::dials; none: the model's own. Returns how many of
  // the ids were kept. Between two steps; replaces a file of this kind, atomically, and no other. Error: no id or more than the model's
  // max_position_embeddings, one outside the vocabulary, the dials, what stands at `path`, no room on the disk.
  int64_t save(const std::string& path, const std::vector<TokenId>& ids, const std::vector<DialFrom>& dials = {});
  // Keeps what `save` wrote: a request whose prompt begins with these ids, at these dials, finds them read and becomes what it would
  // have become, to the bit. Between two steps; where kv_bytes limits the memory, other beginnings give way. Error: no such file, a
  // damaged one, one of another model, kv_type or program, an engine that keeps no beginnings, more than kv_bytes or prefix_tokens hold.
  KeptText load(const std::string& path);

  // One step by this thread, or the rest of the one that another thread is making. False when nothing is under way.
  bool step();
  void start();                     // a thread makes the steps from now on
  void stop();                      // it ends after the step that it is making; what is under way stays so

  EngineStats stats() const;
  const Model& model() const;
  int threads() const;
  const char* instruction_set() const;  // "avx512vnni", "avx2", …: every one computes the same bits

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace fathom
