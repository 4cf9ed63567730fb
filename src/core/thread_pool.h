// The engine's own threads. One pool does one parallel_for at a time; the caller is its worker 0.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

namespace fathom {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // >= 1; 1 runs everything on the caller
  ~ThreadPool();
  int size() const;
  // Calls body(chunk) for every chunk in [0, chunks), each on one thread; returns when all are done. Every thread begins
  // with its own stretch of chunks, the same for the same `chunks` (so that weights stay in that core's cache), then helps
  // the others: results must not depend on which thread runs a chunk. The first exception is rethrown.
  void parallel_for(int64_t chunks, const std::function<void(int64_t)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Cores that this process may use (its affinity mask), at least 1.
int available_threads();

}  // namespace fathom
