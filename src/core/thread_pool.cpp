#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/limits.h"

namespace fathom {

namespace {

void cpu_pause() {  // of a thread that spins: leaves the core to its other half
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// A thread's share of the chunks: the next one and the end in one word, so that a claim sees both of one job. An exhausted
// share stays so until the next job: a thread that wakes late claims nothing, and nobody has to wait for it.
struct alignas(64) Share {
  std::atomic<uint64_t> word{0};

  void set(int64_t next, int64_t end) {
    word.store(static_cast<uint64_t>(end) << 32 | static_cast<uint64_t>(next), std::memory_order_release);
  }
  int64_t claim() {  // −1 when there is none left
    const uint64_t now = word.load(std::memory_order_relaxed);
    if ((now & 0xffffffff) >= now >> 32) return -1;
    const uint64_t was = word.fetch_add(1, std::memory_order_acquire);
    return (was & 0xffffffff) < was >> 32 ? static_cast<int64_t>(was & 0xffffffff) : -1;
  }
  int64_t drop() {  // how many were left
    const uint64_t was = word.exchange(0, std::memory_order_acq_rel);
    return std::max<int64_t>(0, static_cast<int64_t>(was >> 32) - static_cast<int64_t>(was & 0xffffffff));
  }
};

std::mutex turn;                   // of the pool whose threads run
thread_local bool inside = false;  // a chunk of some pool's

}  // namespace

struct ThreadPool::State {
  std::vector<std::thread> threads;
  std::vector<Share> shares;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> generation{0};
  std::atomic<bool> stop{false};
  // The job at hand: set before its shares, and not changed while a chunk of it is claimed and not done.
  const std::function<void(int64_t)>* body = nullptr;
  std::atomic<int64_t> undone{0};
  std::exception_ptr error;

  explicit State(int count) : shares(static_cast<size_t>(count)) {}

  void take_chunks(size_t self) {
    inside = true;
    int64_t done = 0;
    for (size_t i = 0; i < shares.size(); ++i) {
      Share& share = shares[(self + i) % shares.size()];
      for (int64_t chunk = share.claim(); chunk >= 0; chunk = share.claim(), ++done) {
        try {
          (*body)(chunk);
        } catch (...) {
          {
            std::lock_guard lock(mutex);
            if (!error) error = std::current_exception();
          }
          for (Share& s : shares) done += s.drop();
        }
      }
    }
    inside = false;
    if (done > 0) undone.fetch_sub(done, std::memory_order_release);
  }

  void work(size_t self) {
    uint64_t seen = 0;
    while (true) {
      // Spin about 20 µs (a decode step issues many short loops), then sleep.
      for (int spin = 0; spin < 2000 && generation.load(std::memory_order_acquire) == seen && !stop; ++spin) cpu_pause();
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return stop || generation.load(std::memory_order_acquire) != seen; });
      }
      if (stop) return;
      seen = generation.load(std::memory_order_acquire);
      take_chunks(self);
    }
  }
};

namespace {

// Cores that the process might use when it began to ask.
const std::vector<int>& cores() {
  static const std::vector<int> found = [] {
    std::vector<int> out;
    cpu_set_t set;
    if (::sched_getaffinity(0, sizeof set, &set) == 0)
      for (int core = 0; core < CPU_SETSIZE; ++core)
        if (CPU_ISSET(core, &set)) out.push_back(core);
    return out;
  }();
  return found;
}

bool pins() {
  const char* asked = std::getenv("FATHOM_PIN");
  const std::string_view value = asked ? asked : "";
  if (value.size() > 1 || (value.size() == 1 && value != "0" && value != "1")) throw UserError({"FATHOM_PIN", "", "\"" + printable(asked) + "\"", "0 or 1", ""});
  return value == "1";
}

void pin(size_t thread) {
  if (cores().empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cores()[thread % cores().size()], &set);
  (void)::sched_setaffinity(0, sizeof set, &set);  // a wish: refused, it stays where the system puts it
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  FATHOM_ASSERT(threads >= 1, threads);
  state_ = std::make_unique<State>(threads);
  const bool pinned = pins();
  if (pinned) static_cast<void>(cores());  // of this thread, before others ask
  for (int i = 1; i < threads; ++i)
    state_->threads.emplace_back([s = state_.get(), i, pinned] {
      if (pinned) pin(static_cast<size_t>(i));
      s->work(static_cast<size_t>(i));
    });
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
  if (s.threads.empty() || chunks == 1 || inside) {
    for (int64_t i = 0; i < chunks; ++i) body(i);
    return;
  }
  FATHOM_ASSERT(chunks <= INT32_MAX, chunks);
  const std::lock_guard alone(turn);
  s.body = &body;
  s.error = nullptr;
  s.undone.store(chunks, std::memory_order_relaxed);
  const int64_t threads = static_cast<int64_t>(s.shares.size());
  for (int64_t i = 0; i < threads; ++i) s.shares[static_cast<size_t>(i)].set(chunks * i / threads, chunks * (i + 1) / threads);
  {
    std::lock_guard lock(s.mutex);
    s.generation.fetch_add(1, std::memory_order_release);
  }
  s.wake.notify_all();
  s.take_chunks(0);
  for (int spin = 0; s.undone.load(std::memory_order_acquire) != 0; ++spin)
    if (spin < 10000) cpu_pause(); else std::this_thread::yield();
  if (s.error) std::rethrow_exception(s.error);
}

int quota_threads(const std::string& root, std::string_view membership) {
  double cores = 0;
  auto bound = [&](const std::string& folder) {
    double quota = 0, period = 0;
    if (std::string limit; std::ifstream(folder + "/cpu.max") >> limit >> period) quota = std::atof(limit.c_str());  // "max": 0
    else if (std::ifstream(folder + "/cpu.cfs_quota_us") >> quota) std::ifstream(folder + "/cpu.cfs_period_us") >> period;
    if (quota > 0 && period > 0) cores = cores > 0 ? std::min(cores, quota / period) : quota / period;
  };
  std::istringstream lines{std::string(membership)};
  for (std::string line; std::getline(lines, line);) {  // hierarchy:controllers:path
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controllers != ",," && controllers.find(",cpu,") == std::string::npos) continue;
    const std::string mount = controllers == ",," ? root : root + "/cpu";
    // Inside a container the path may be the host's: what the mount does not show is looked over, up to its root.
    for (std::string path = line.substr(second + 1); !path.empty(); path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/')))
      if (path != "/") bound(mount + path);
    bound(mount);
  }
  return static_cast<int>(std::ceil(std::min(cores, 1e6)));
}

int available_threads() {
  static const int threads = [] {
    if (const char* wanted = std::getenv("OMP_NUM_THREADS"))
      if (const int n = std::atoi(wanted); n > 0) return std::min(n, static_cast<int>(limits::kThreads));
    cpu_set_t set;
    const bool known = ::sched_getaffinity(0, sizeof set, &set) == 0;
    const int cores = std::max(1, known ? CPU_COUNT(&set) : static_cast<int>(std::thread::hardware_concurrency()));
    std::ostringstream membership;
    membership << std::ifstream("/proc/self/cgroup").rdbuf();
    const int quota = quota_threads("/sys/fs/cgroup", membership.str());
    return quota > 0 ? std::min(cores, quota) : cores;
  }();
  return threads;
}

}  // namespace fathom
