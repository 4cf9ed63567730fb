#include "core/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#else
static inline void _mm_pause() {}
#endif
#include <sched.h>

#include <algorithm>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/error.h"

namespace fathom {

struct ThreadPool::State {
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> generation{0};
  std::atomic<bool> stop{false};
  // The job of this generation. Workers of an earlier generation are all done before it changes (`running` is 0).
  const std::function<void(int64_t)>* body = nullptr;
  int64_t chunks = 0;
  std::atomic<int64_t> next{0};
  std::atomic<int> running{0};
  std::exception_ptr error;

  void take_chunks() {
    while (true) {
      const int64_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= chunks) return;
      try {
        (*body)(i);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
        next.store(chunks, std::memory_order_relaxed);
      }
    }
  }

  void work() {
    uint64_t seen = 0;
    while (true) {
      // Spin about 20 µs (a decode step issues many short loops), then sleep.
      for (int spin = 0; spin < 2000 && generation.load(std::memory_order_acquire) == seen && !stop; ++spin) _mm_pause();
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return stop || generation.load(std::memory_order_acquire) != seen; });
      }
      if (stop) return;
      seen = generation.load(std::memory_order_acquire);
      take_chunks();
      running.fetch_sub(1, std::memory_order_release);
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  FATHOM_ASSERT(threads >= 1, threads);
  for (int i = 1; i < threads; ++i) state_->threads.emplace_back([s = state_.get()] { s->work(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_all();
  for (auto& t : state_->threads) t.join();
}

int ThreadPool::size() const { return static_cast<int>(state_->threads.size()) + 1; }

void ThreadPool::parallel_for(int64_t chunks, const std::function<void(int64_t)>& body) {
  State& s = *state_;
  if (chunks <= 0) return;
  if (s.threads.empty() || chunks == 1) {
    for (int64_t i = 0; i < chunks; ++i) body(i);
    return;
  }
  s.body = &body;
  s.chunks = chunks;
  s.error = nullptr;
  s.next.store(0, std::memory_order_relaxed);
  s.running.store(static_cast<int>(s.threads.size()), std::memory_order_relaxed);
  {
    std::lock_guard lock(s.mutex);
    s.generation.fetch_add(1, std::memory_order_release);
  }
  s.wake.notify_all();
  s.take_chunks();
  for (int spin = 0; s.running.load(std::memory_order_acquire) != 0; ++spin)
    if (spin < 10000) _mm_pause(); else std::this_thread::yield();
  if (s.error) std::rethrow_exception(s.error);
}

int available_threads() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace fathom
