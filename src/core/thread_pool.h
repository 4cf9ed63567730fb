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
  // Calls body(chunk) for every chunk in [0, chunks), each on one thread; returns when all are done. Chunks are taken
  // in order by whoever is free, so results must not depend on which thread runs one. The first exception is rethrown.
  void parallel_for(int64_t chunks, const std::function<void(int64_t)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Cores that this process may use (its affinity mask), at least 1.
int available_threads();

}  // namespace fathom
