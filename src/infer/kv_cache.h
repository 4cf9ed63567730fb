// Keys and values in pages of 16 positions. Every sequence has its own page table and length per block, because a token
// that skips a block takes no slot there (kv drop). Keys are stored after RoPE, so a slot needs no position.
//
// A page is kernels/kv_page.h's, in the pool's type: all pages of a pool have one size, whatever their block.
//
// Pages are shared by sequences that begin alike (a fork, a kept prefix). A slot is written once and never changed while
// somebody may read it, so whoever stands at a page's first empty slot writes on in place, though others hold the page too;
// whoever stands before it copies the page first.
#pragma once
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <span>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/kv_page.h"

namespace fathom::infer {

inline constexpr int64_t kPagePositions = 16;

// Not for several threads at once: an engine's steps take and give pages one after the other.
class PagePool {
 public:
  // byte_limit 0 = none. Memory is taken in slabs as it is needed, never more than the limit, and kept until the pool dies.
  PagePool(int64_t kv_heads, int64_t head_dim, KvType type = KvType::f32, int64_t byte_limit = 0);

  uint32_t take();                   // an empty page with one holder; UserError when the limit is reached
  void hold(uint32_t page);          // one holder more
  void give_back(uint32_t page);     // one less; the last one frees it
  // Whether a holder who sees `slots` slots of the page may write the next one in place; from then on it counts as written.
  bool claim(uint32_t page, int64_t slots);
  uint8_t* page(uint32_t page) { return reinterpret_cast<uint8_t*>(slabs_[page / slab_pages_].data()) + page % slab_pages_ * page_bytes_; }

  const kernels::KvPage& layout() const { return layout_; }
  int64_t page_bytes() const { return page_bytes_; }
  int64_t page_limit() const { return byte_limit_ > 0 ? byte_limit_ / page_bytes() : INT64_MAX; }
  int64_t byte_limit() const { return byte_limit_ > 0 ? page_limit() * page_bytes() : INT64_MAX; }  // of whole pages
  int64_t pages_in_use() const { return in_use_; }
  int64_t pages_left() const { return page_limit() - in_use_; }
  int64_t peak_pages() const { return peak_; }
  int64_t bytes_in_use() const { return in_use_ * page_bytes(); }
  int64_t bytes_reserved() const { return std::ssize(states_) * page_bytes_; }
  int64_t holders(uint32_t page) const { return states_[page].holders; }
  int64_t written(uint32_t page) const { return states_[page].written; }  // slots of it, from the first

 private:
  struct State {
    uint32_t holders = 0, written = 0;  // written: slots, from the first
  };
  kernels::KvPage layout_;
  int64_t page_bytes_, slab_pages_, byte_limit_;
  int64_t in_use_ = 0, peak_ = 0;
  std::vector<kernels::Buffer> slabs_;
  std::vector<State> states_;   // [pages of all slabs]
  std::vector<uint32_t> free_;  // last given back is taken first: it is the one in the cache
};

// What the engine remembers of one text: how many tokens it has read, and per block the keys and values of those that
// ran there. Gives its pages back when it dies. Engine::new_sequence makes one.
class Sequence {
 public:
  Sequence(std::shared_ptr<PagePool> pool, int64_t blocks);
  ~Sequence();
  Sequence(Sequence&&) noexcept = default;
  Sequence& operator=(Sequence&& other) noexcept;

  int64_t position() const { return position_; }                     // tokens read; the next one's position
  int64_t blocks() const { return static_cast<int64_t>(tables_.size()); }
  int64_t length(int64_t block) const { return tables_[block].length; }  // slots taken in a block
  int64_t pages() const;
  int64_t kv_bytes() const;      // of its pages
  int64_t slot_bytes() const;    // of its taken slots: what a perfect fit would need
  const std::vector<uint32_t>& page_table(int64_t block) const { return tables_[block].pages; }
  const kernels::KvPage& layout() const { return pool_->layout(); }
  const uint8_t* page(int64_t block, size_t index) const { return pool_->page(tables_[block].pages[index]); }
  // The slot of the next token that writes into a block; takes a page where one begins or the last one is not its own to
  // write. For the engine's steps.
  int64_t append(int64_t block);
  // Another sequence that has read the same: no key or value is computed or copied.
  Sequence fork() const;
  // The same as it was at an earlier position, when `lengths` [L] slots were taken.
  Sequence fork(int64_t position, std::span<const int64_t> lengths) const;
  void rewind(int64_t position, std::span<const int64_t> lengths);  // back to there
  void clear();                  // back to position 0, pages returned
  // From position 0, as if it had read what was read elsewhere: `lengths` [L] slots, whose pages `fill` writes. UserError, and still
  // at position 0, when the pool's limit is reached.
  void restore(int64_t position, std::span<const int64_t> lengths, const std::function<void(int64_t block, size_t index, uint8_t* page)>& fill);

 private:
  friend class Engine;
  friend class StepGuard;
  friend int64_t pages_for(const PagePool& pool, std::span<const struct Growth> step);
  struct Table {
    std::vector<uint32_t> pages;
    int64_t length = 0;
  };
  void shrink(int64_t block, int64_t length);

  std::shared_ptr<PagePool> pool_;
  std::vector<Table> tables_;  // [L]
  int64_t position_ = 0;
};

// Rows of a step that a sequence is to read.
struct Growth {
  const Sequence* sequence;
  int64_t rows;
};
// Pages of the pool that a step takes at most, as if every row wrote into every block: new ones, and copies of shared ones.
int64_t pages_for(const PagePool& pool, std::span<const Growth> step);

}  // namespace fathom::infer
