#include "nn/memory.h"

#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

namespace fathom::nn {

namespace {

constexpr size_t kLarge = size_t{1} << 18;       // smaller blocks stay with the C library, which is fast at them
constexpr size_t kHuge = size_t{1} << 21;        // a huge page; blocks of that size ask for them
constexpr size_t kUnit = size_t{1} << 16;

class KeptMemory final : public c10::Allocator {
 public:
  at::DataPtr allocate(size_t bytes) override {
    void* p = bytes < kLarge ? c10::alloc_cpu(bytes) : take((bytes + kUnit - 1) / kUnit * kUnit);
    return {p, p, &give, at::Device(at::DeviceType::CPU)};
  }
  at::DeleterFnPtr raw_deleter() const override { return &give; }
  void copy_data(void* to, const void* from, size_t count) const override { std::memcpy(to, from, count); }

  MemoryUse use() {
    const std::lock_guard lock(mutex_);
    return {in_use_, peak_, kept_};
  }
  void release() {
    {
      const std::lock_guard lock(mutex_);
      while (!free_.empty()) unmap_oldest();
    }
    ::malloc_trim(0);
  }

  static KeptMemory& instance() {
    static KeptMemory* memory = new KeptMemory;  // outlives every tensor, static ones included
    return *memory;
  }

 private:
  struct Block {
    void* data;
    size_t bytes;
  };
  using Free = std::list<Block>;  // oldest first

  static void give(void* p) {
    // A block of ours begins a page; few of the C library's do, and those are told apart by the table.
    if (reinterpret_cast<uintptr_t>(p) % 4096 != 0 || !instance().put_back(p)) c10::free_cpu(p);
  }

  void* take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    in_use_ += static_cast<int64_t>(bytes);
    peak_ = std::max(peak_, in_use_);
    // Exact sizes: a step repeats its own, and a larger block handed out would be missed a moment later.
    const auto found = by_size_.find(bytes);
    if (found != by_size_.end()) {
      const Block block = *found->second;
      free_.erase(found->second);
      by_size_.erase(found);
      kept_ -= static_cast<int64_t>(bytes);
      out_[block.data] = bytes;
      return block.data;
    }
    // The sizes do not all peak at one time: without slack a step would unmap what its other half maps again.
    while (!free_.empty() && in_use_ + kept_ > peak_ + peak_ / 3) unmap_oldest();
    void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
      in_use_ -= static_cast<int64_t>(bytes);
      throw std::bad_alloc();
    }
    if (bytes >= kHuge) ::madvise(p, bytes, MADV_HUGEPAGE);  // fails where there are none: small pages then
    out_[p] = bytes;
    return p;
  }

  bool put_back(void* p) {
    const std::lock_guard lock(mutex_);
    const auto it = out_.find(p);
    if (it == out_.end()) return false;
    const size_t bytes = it->second;
    out_.erase(it);
    in_use_ -= static_cast<int64_t>(bytes);
    kept_ += static_cast<int64_t>(bytes);
    free_.push_back({p, bytes});
    by_size_.emplace(bytes, std::prev(free_.end()));
    return true;
  }

  void unmap_oldest() {
    const Block block = free_.front();
    const auto [from, to] = by_size_.equal_range(block.bytes);
    by_size_.erase(std::find_if(from, to, [&](const auto& e) { return e.second == free_.begin(); }));
    free_.pop_front();
    kept_ -= static_cast<int64_t>(block.bytes);
    ::munmap(block.data, block.bytes);
  }

  std::mutex mutex_;
  Free free_;
  std::multimap<size_t, Free::iterator> by_size_;
  std::unordered_map<void*, size_t> out_;
  int64_t in_use_ = 0, peak_ = 0, kept_ = 0;
};

}  // namespace

void use_kept_memory() {
  static const bool once = [] {
    c10::SetCPUAllocator(&KeptMemory::instance(), /*priority=*/100);
    // oneDNN takes its scratch memory from the C library: let that keep it too. 32 MiB is the most it accepts.
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
    // oneDNN and its caller keep code and scratch memory for each shape, 1,024 of them by themselves. A step needs some fifty; those of evaluation,
    // where every batch has its own number of running rows, come once and would stay for hundreds of megabytes.
    for (const char* cache : {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"}) ::setenv(cache, "128", /*overwrite=*/0);
    return true;
  }();
  (void)once;
}

MemoryUse memory_use() { return KeptMemory::instance().use(); }
void release_kept_memory() { KeptMemory::instance().release(); }

}  // namespace fathom::nn
