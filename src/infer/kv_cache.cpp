#include "infer/kv_cache.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "core/human.h"

namespace fathom::infer {
namespace {

// A slab fills huge pages of the machine almost to the last byte: the cache is read through few translations, and what is
// resident is what is used. Small models have smaller slabs.
constexpr int64_t kSlabBytes = int64_t{8} << 20, kSlabPages = 1024;

}  // namespace

PagePool::PagePool(int64_t kv_heads, int64_t head_dim, KvType type, int64_t byte_limit)
    : layout_{.type = type, .kv_heads = kv_heads, .head_dim = head_dim}, page_bytes_(layout_.bytes()),
      slab_pages_(std::clamp<int64_t>(kSlabBytes / page_bytes_, 1, kSlabPages)), byte_limit_(byte_limit) {
  FATHOM_ASSERT(byte_limit >= 0, byte_limit);
}

uint32_t PagePool::take() {
  if (in_use_ >= page_limit())
    throw UserError({"KV cache", "", "a text that needs more than " + human_bytes(static_cast<double>(byte_limit_)), "to fit into the limit", {"raise ", Setting::kv_memory, ", or run fewer or shorter texts at once"}});
  if (free_.empty()) {
    const int64_t first = std::ssize(states_), count = std::min(slab_pages_, page_limit() - first);
    free_.reserve(static_cast<size_t>(first + count));  // so that give_back never allocates
    states_.reserve(static_cast<size_t>(first + count));
    slabs_.emplace_back(page_bytes_ / static_cast<int64_t>(sizeof(float)) * count);
    states_.resize(static_cast<size_t>(first + count));
    for (int64_t i = count; i-- > 0;) free_.push_back(static_cast<uint32_t>(first + i));
  }
  FATHOM_ASSERT(!free_.empty(), in_use_, " pages of ", page_limit());
  const uint32_t page = free_.back();
  free_.pop_back();
  states_[page] = {.holders = 1, .written = 0};
  peak_ = std::max(peak_, ++in_use_);
  return page;
}

void PagePool::hold(uint32_t page) {
  FATHOM_ASSERT(states_[page].holders > 0, "page ", page, " is free");
  ++states_[page].holders;
}

void PagePool::give_back(uint32_t page) {
  FATHOM_ASSERT(states_[page].holders > 0, "page ", page, " given back twice");
  if (--states_[page].holders > 0) return;
  --in_use_;
  free_.push_back(page);
}

bool PagePool::claim(uint32_t page, int64_t slots) {
  State& state = states_[page];
  // Alone, slots beyond are leftovers of what was taken back.
  if (state.holders > 1 && state.written != static_cast<uint32_t>(slots)) return false;
  state.written = static_cast<uint32_t>(slots) + 1;
  return true;
}

Sequence::Sequence(std::shared_ptr<PagePool> pool, int64_t blocks) : pool_(std::move(pool)), tables_(blocks) {}

Sequence::~Sequence() {
  if (pool_) clear();
}

Sequence& Sequence::operator=(Sequence&& other) noexcept {
  if (this == &other) return *this;
  if (pool_) clear();
  pool_ = std::move(other.pool_);
  tables_ = std::move(other.tables_);
  position_ = std::exchange(other.position_, 0);
  return *this;
}

void Sequence::clear() {
  for (int64_t block = 0; block < blocks(); ++block) shrink(block, 0);
  position_ = 0;
}

int64_t Sequence::append(int64_t block) {
  Table& table = tables_[block];
  const int64_t in_page = table.length % kPagePositions;
  if (in_page == 0) {
    if (table.pages.size() == table.pages.capacity())  // a page once taken must find its place
      table.pages.reserve(std::max<size_t>(8, 2 * table.pages.size()));
    table.pages.push_back(pool_->take());
    pool_->claim(table.pages.back(), 0);
  } else if (!pool_->claim(table.pages.back(), in_page)) {
    const uint32_t own = pool_->take();
    std::copy_n(pool_->page(table.pages.back()), pool_->page_bytes(), pool_->page(own));
    pool_->give_back(std::exchange(table.pages.back(), own));
    pool_->claim(own, in_page);
  }
  return table.length++;
}

Sequence Sequence::fork() const {
  std::vector<int64_t> lengths;
  for (const Table& table : tables_) lengths.push_back(table.length);
  return fork(position_, lengths);
}

Sequence Sequence::fork(int64_t position, std::span<const int64_t> lengths) const {
  FATHOM_ASSERT(position <= position_ && static_cast<int64_t>(lengths.size()) == blocks(), position, " of ", position_);
  Sequence other(pool_, blocks());
  std::vector<Table> tables(tables_.size());
  for (size_t block = 0; block < tables.size(); ++block) {
    FATHOM_ASSERT(lengths[block] <= tables_[block].length, lengths[block], " of ", tables_[block].length);
    const auto first = tables_[block].pages.begin();
    tables[block].pages.assign(first, first + (lengths[block] + kPagePositions - 1) / kPagePositions);
    tables[block].length = lengths[block];
  }
  for (const Table& table : tables)  // nothing fails from here on
    for (const uint32_t page : table.pages) pool_->hold(page);
  other.tables_ = std::move(tables);
  other.position_ = position;
  return other;
}

void Sequence::rewind(int64_t position, std::span<const int64_t> lengths) {
  FATHOM_ASSERT(position <= position_ && static_cast<int64_t>(lengths.size()) == blocks(), position, " of ", position_);
  for (int64_t block = 0; block < blocks(); ++block) shrink(block, lengths[block]);
  position_ = position;
}

void Sequence::restore(int64_t position, std::span<const int64_t> lengths, const std::function<void(int64_t, size_t, uint8_t*)>& fill) {
  FATHOM_ASSERT(position_ == 0 && pages() == 0 && static_cast<int64_t>(lengths.size()) == blocks(), position_, " ", lengths.size());
  try {
    for (int64_t block = 0; block < blocks(); ++block)
      while (tables_[block].length < lengths[block]) append(block);
  } catch (...) {
    clear();
    throw;
  }
  for (int64_t block = 0; block < blocks(); ++block)
    for (size_t index = 0; index < tables_[block].pages.size(); ++index) fill(block, index, pool_->page(tables_[block].pages[index]));
  position_ = position;
}

void Sequence::shrink(int64_t block, int64_t length) {
  Table& table = tables_[block];
  const size_t pages = static_cast<size_t>((length + kPagePositions - 1) / kPagePositions);
  while (table.pages.size() > pages) {
    pool_->give_back(table.pages.back());
    table.pages.pop_back();
  }
  table.length = length;
}

int64_t Sequence::pages() const {
  int64_t total = 0;
  for (const Table& table : tables_) total += static_cast<int64_t>(table.pages.size());
  return total;
}

int64_t Sequence::kv_bytes() const { return pages() * pool_->page_bytes(); }

int64_t Sequence::slot_bytes() const {
  int64_t slots = 0;
  for (const Table& table : tables_) slots += table.length;
  return slots * pool_->page_bytes() / kPagePositions;
}

int64_t pages_for(const PagePool& pool, std::span<const Growth> step) {
  struct Writers {
    int64_t count = 0;
    bool one_in_place = false;
  };
  std::unordered_map<uint32_t, Writers> shared;  // pages with room, which others hold too
  int64_t pages = 0;
  for (const Growth& growth : step)
    for (const Sequence::Table& table : growth.sequence->tables_) {
      pages += (table.length + growth.rows + kPagePositions - 1) / kPagePositions - std::ssize(table.pages);
      const int64_t in_page = table.length % kPagePositions;
      if (in_page == 0 || growth.rows == 0 || pool.holders(table.pages.back()) == 1) continue;
      Writers& writers = shared[table.pages.back()];
      ++writers.count;
      if (pool.written(table.pages.back()) == in_page) writers.one_in_place = true;
    }
  // All copy but one: who stands at the first empty slot, or the last who is left with it.
  for (const auto& [page, writers] : shared) pages += writers.count - (writers.one_in_place || writers.count == pool.holders(page));
  return pages;
}

}  // namespace fathom::infer
