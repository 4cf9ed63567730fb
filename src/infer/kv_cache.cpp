#include "infer/kv_cache.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/human.h"

namespace fathom::infer {

PagePool::PagePool(int64_t kv_heads, int64_t head_dim, int64_t byte_limit)
    : kv_heads_(kv_heads), head_dim_(head_dim), page_floats_(2 * kv_heads * head_dim * kPagePositions), byte_limit_(byte_limit) {
  FATHOM_ASSERT(kv_heads > 0 && head_dim > 0 && byte_limit >= 0, kv_heads, " ", head_dim, " ", byte_limit);
}

uint32_t PagePool::take() {
  if (byte_limit_ > 0 && (in_use_ + 1) * page_bytes() > byte_limit_)
    throw UserError({"KV cache", "", "a text that needs more than " + human_bytes(static_cast<double>(byte_limit_)), "to fit into the limit", "raise the limit, or run fewer or shorter texts at once"});
  if (free_.empty()) {
    const uint32_t first = static_cast<uint32_t>(slabs_.size() * kSlabPages);
    free_.reserve((slabs_.size() + 1) * kSlabPages);  // so that give_back never allocates
    slabs_.emplace_back(page_floats_ * kSlabPages);
    for (uint32_t i = kSlabPages; i-- > 0;) free_.push_back(first + i);
  }
  const uint32_t page = free_.back();
  free_.pop_back();
  peak_ = std::max(peak_, ++in_use_);
  return page;
}

void PagePool::give_back(uint32_t page) {
  FATHOM_ASSERT(in_use_ > 0, "page ", page, " given back twice");
  --in_use_;
  free_.push_back(page);
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
  if (table.length % kPagePositions == 0) {
    if (table.pages.size() == table.pages.capacity())  // a page once taken must find its place
      table.pages.reserve(std::max<size_t>(8, 2 * table.pages.size()));
    table.pages.push_back(pool_->take());
  }
  return table.length++;
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

}  // namespace fathom::infer
