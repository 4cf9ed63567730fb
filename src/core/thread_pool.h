// The engine's own threads. All pools of a process do one parallel_for at a time, so that two engines take turns instead of each
// other's cores; the caller is its worker 0. A chunk that calls parallel_for runs that by itself.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace fathom {

// With FATHOM_PIN=1 in the environment every thread but the caller stays on one core of the process's affinity mask, the second,
// third, …; which leaves the first to the caller. Else the system places them.
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

// Threads that pay for this process, at least 1: OMP_NUM_THREADS where it is a number, else the cores of its affinity
// mask, no more than its control group's share of time allows (a container's --cpus).
int available_threads();

// The share of time of the control group named in `membership` (the text of /proc/self/cgroup) and of its parents, in
// whole cores rounded up, of the hierarchies mounted at `root` (/sys/fs/cgroup; version 2, or 1 with its cpu controller).
// 0 where nothing bounds it.
int quota_threads(const std::string& root, std::string_view membership);

}  // namespace fathom
