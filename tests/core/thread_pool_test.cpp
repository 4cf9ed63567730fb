#include "core/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/error.h"

namespace fathom {
namespace {

TEST(ThreadPool, RunsEveryChunkOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (int64_t chunks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(chunks));
      pool.parallel_for(chunks, [&](int64_t i) { ++seen[static_cast<size_t>(i)]; });
      for (const auto& s : seen) ASSERT_EQ(s, 1);
    }
  }
}

TEST(ThreadPool, UsesMoreThanOneThread) {
  ThreadPool pool(3);
  std::mutex mutex;
  std::set<std::thread::id> ids;
  for (int attempt = 0; attempt < 50 && ids.size() < 2; ++attempt)
    pool.parallel_for(64, [&](int64_t) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::lock_guard lock(mutex);
      ids.insert(std::this_thread::get_id());
    });
  EXPECT_GT(ids.size(), 1u);
}

TEST(ThreadPool, ManyShortJobs) {
  ThreadPool pool(4);
  int64_t sum = 0;
  for (int job = 0; job < 5000; ++job) {
    std::atomic<int64_t> part{0};
    pool.parallel_for(5, [&](int64_t i) { part += i; });
    sum += part;
  }
  EXPECT_EQ(sum, 5000 * 10);
}

TEST(ThreadPool, TheFirstExceptionComesBackAndThePoolLives) {
  ThreadPool pool(3);
  for (int attempt = 0; attempt < 20; ++attempt) {
    EXPECT_THROW(pool.parallel_for(100, [](int64_t i) {
      if (i % 10 == 3) throw std::runtime_error("chunk");
    }),
                 std::runtime_error);
    std::atomic<int> n{0};
    pool.parallel_for(50, [&](int64_t) { ++n; });
    EXPECT_EQ(n, 50);
  }
}

// Two engines of a process: never more threads at work than the larger pool has.
TEST(ThreadPool, PoolsTakeTurns) {
  std::atomic<int> now{0}, most{0}, ran{0};
  const auto use = [&] {
    ThreadPool pool(2);
    for (int job = 0; job < 200; ++job)
      pool.parallel_for(4, [&](int64_t) {
        const int at = ++now;
        for (int seen = most; seen < at && !most.compare_exchange_weak(seen, at);) {}
        std::this_thread::sleep_for(std::chrono::microseconds(20));
        --now, ++ran;
      });
  };
  std::thread other(use);
  use();
  other.join();
  EXPECT_EQ(ran, 2 * 200 * 4);
  EXPECT_LE(most, 2);
}

TEST(ThreadPool, AChunkMayUseAPool) {
  ThreadPool outer(2), inner(2);
  std::atomic<int> ran{0};
  outer.parallel_for(8, [&](int64_t) { inner.parallel_for(8, [&](int64_t) { ++ran; }); });
  EXPECT_EQ(ran, 64);
}

TEST(ThreadPool, WhatNeitherPinsNorLeavesFreeIsRefused) {
  ::setenv("FATHOM_PIN", "yes", 1);
  std::string said;
  try {
    ThreadPool pool(2);
  } catch (const UserError& e) {
    said = e.what();
  }
  ::unsetenv("FATHOM_PIN");
  EXPECT_EQ(said, "FATHOM_PIN: found \"yes\", expected 0 or 1");
}

TEST(ThreadPool, ThreadsStayOnACoreWhereAskedTo) {
  cpu_set_t whole;
  ASSERT_EQ(::sched_getaffinity(0, sizeof whole, &whole), 0);
  for (const bool asked : {false, true}) {
    if (asked) ::setenv("FATHOM_PIN", "1", 1);
    ThreadPool pool(3);
    ::unsetenv("FATHOM_PIN");
    const auto caller = std::this_thread::get_id();
    std::atomic<int> others{0};
    for (int round = 0; round < 200 && others == 0; ++round)
      pool.parallel_for(64, [&](int64_t) {
        cpu_set_t set;
        ASSERT_EQ(::sched_getaffinity(0, sizeof set, &set), 0);
        if (std::this_thread::get_id() == caller) {
          EXPECT_EQ(CPU_COUNT(&set), CPU_COUNT(&whole)) << "the caller goes where it likes";
        } else {
          ++others;
          EXPECT_EQ(CPU_COUNT(&set), asked ? 1 : CPU_COUNT(&whole));
        }
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      });
    EXPECT_GT(others, 0);
  }
}

TEST(ThreadPool, AvailableThreads) { EXPECT_GE(available_threads(), 1); }

TEST(ThreadPool, AContainersShareOfTimeBoundsThem) {
  namespace fs = std::filesystem;
  const fs::path root = fs::path(testing::TempDir()) / "cgroups";
  fs::remove_all(root);
  auto put = [&](const std::string& name, const std::string& text) {
    fs::create_directories((root / name).parent_path());
    std::ofstream(root / name) << text;
  };
  EXPECT_EQ(quota_threads(root, "0::/\n"), 0);
  put("cpu.max", "max 100000\n");
  EXPECT_EQ(quota_threads(root, "0::/\n"), 0);
  put("user/cpu.max", "250000 100000\n");
  put("user/job/cpu.max", "max 100000\n");
  EXPECT_EQ(quota_threads(root, "0::/user/job\n"), 3);            // the parent's bound
  EXPECT_EQ(quota_threads(root, "0::/of-the-host/job\n"), 0);     // not shown by the mount
  put("cpu/cpu.cfs_quota_us", "-1\n");
  put("cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota_threads(root, "4:memory:/user\n1:cpu,cpuacct:/user\n"), 0);
  put("cpu/user/cpu.cfs_quota_us", "50000\n");
  put("cpu/user/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota_threads(root, "4:memory:/user\n1:cpu,cpuacct:/user\n"), 1);
  EXPECT_EQ(quota_threads(root, "not a line\n"), 0);
  fs::remove_all(root);
}

}  // namespace
}  // namespace fathom
