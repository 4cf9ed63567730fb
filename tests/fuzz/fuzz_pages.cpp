// Pages of keys and values under any order of operations: texts that are read on, forked, rewound, cleared, moved and ended, pages held
// by hand, beginnings kept and looked up, and a limit that is met. What a slot must hold follows from the tokens alone, so every sequence
// is looked over against its own text: nobody writes where somebody else reads. In the end no page is lost.
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "core/error.h"
#include "infer/kv_cache.h"
#include "infer/prefix_cache.h"

using namespace fathom;
using namespace fathom::infer;

namespace {

constexpr size_t kTexts = 8, kOperations = 400, kHeld = 16;
constexpr int64_t kTokens = 300;  // of a text, at most

void check(bool holds) {
  if (!holds) std::abort();
}

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool left() const { return at_ < size_; }
  size_t below(size_t n) { return (at_ < size_ ? data_[at_++] : 0) % n; }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

using Text = std::vector<ReadToken>;

// Which blocks a token ran, and what it left there: a causal rule's, so both follow from the tokens up to it.
struct Meaning {
  std::vector<std::vector<uint32_t>> slots;  // [L][length]
  std::vector<std::vector<uint8_t>> run;     // [L][T]

  uint32_t hash = 1;

  Meaning(std::span<const ReadToken> text, int64_t blocks) : slots(static_cast<size_t>(blocks)), run(slots.size()) {
    for (const ReadToken& token : text) add(token);
  }
  void add(const ReadToken& token) {
    hash = (hash ^ (static_cast<uint32_t>(token.id) + token.policy * 251)) * 2654435761u + 12345;
    for (size_t block = 0; block < slots.size(); ++block) {
      run[block].push_back(block == 0 || (hash >> (16 + block) & 1));
      if (run[block].back()) slots[block].push_back(hash + static_cast<uint32_t>(block));
    }
  }
  std::vector<int64_t> lengths() const {
    std::vector<int64_t> out;
    for (const auto& list : slots) out.push_back(std::ssize(list));
    return out;
  }
};

struct Reader {
  Sequence sequence;
  Text text;
};

class Operations {
 public:
  Operations(Bytes bytes)
      : bytes_(bytes), blocks_(1 + static_cast<int64_t>(bytes_.below(3))), limit_(static_cast<int64_t>(bytes_.below(60))),
        pool_(std::make_shared<PagePool>(1, 2, KvType::f32, limit_ * PagePool(1, 2, KvType::f32).page_bytes())), cache_(static_cast<int64_t>(bytes_.below(8)) * PrefixCache::kStride) {}

  void run() {
    for (size_t n = 0; n < kOperations && bytes_.left(); ++n) {
      one();
      look(n % 8 == 0);
    }
    look(true);
    readers_.clear();
    while (!held_.empty()) give_back();
    cache_.clear();
    check(pool_->pages_in_use() == 0);
    for (int64_t i = 0; i < limit_; ++i) pool_->take();
    check(pool_->pages_in_use() == limit_ && (limit_ == 0 || pool_->pages_left() == 0));
  }

 private:
  void one() {
    const size_t operation = bytes_.below(12);
    if (operation == 0 || readers_.empty()) return add({.sequence = Sequence(pool_, blocks_), .text = {}});
    Reader& reader = readers_[bytes_.below(readers_.size())];
    const int64_t position = operation == 4 || operation == 5 ? static_cast<int64_t>(bytes_.below(256)) % (std::ssize(reader.text) + 1) : 0;
    const Text before(reader.text.begin(), reader.text.begin() + position);
    switch (operation) {
      case 1: return add({.sequence = reader.sequence.fork(), .text = reader.text});
      case 2: return keep(reader);
      case 3: return find(reader);
      case 4: return add({.sequence = reader.sequence.fork(0, Meaning(before, blocks_).lengths()), .text = before});
      case 5:
        reader.sequence.rewind(0, Meaning(before, blocks_).lengths());
        reader.text = before;
        return;
      case 6:
        if (bytes_.below(2)) return reader.sequence.clear(), reader.text.clear();
        std::swap(reader, readers_.back());
        return readers_.pop_back();
      case 7: {
        Reader& other = readers_[bytes_.below(readers_.size())];
        if (&other == &reader) return;
        other.sequence = std::move(reader.sequence), other.text = std::move(reader.text);
        reader = {.sequence = Sequence(pool_, blocks_), .text = {}};
        return;
      }
      case 8: return bytes_.below(2) ? hand() : step();
      default: return read(reader);
    }
  }

  void add(Reader&& reader) {
    if (readers_.size() < kTexts) readers_.push_back(std::move(reader));
  }

  // Some tokens more, each a step of its own: where memory ends the step changes nothing.
  void read(Reader& reader) {
    const int64_t count = std::min<int64_t>(1 + static_cast<int64_t>(bytes_.below(80)), kTokens - std::ssize(reader.text));
    const size_t style = bytes_.below(8);
    const ReadToken token{.id = static_cast<int32_t>(style % 4), .policy = static_cast<uint32_t>(style / 4)};
    Meaning now(reader.text, blocks_);
    for (int64_t i = 0; i < count; ++i) {
      const std::vector<int64_t> lengths = now.lengths();
      now.add(token);
      const int64_t in_use = pool_->pages_in_use(), most = pages_for(*pool_, std::vector{Growth{&reader.sequence, 1}});
      try {
        for (int64_t block = 0; block < blocks_; ++block)
          if (now.run[static_cast<size_t>(block)].back()) {
            const int64_t slot = reader.sequence.append(block);
            check(slot == lengths[static_cast<size_t>(block)]);
            std::memcpy(place(reader.sequence, block, slot), &now.slots[static_cast<size_t>(block)].back(), 4);
          }
        check(pool_->pages_in_use() - in_use <= most);
        reader.text.push_back(token);
      } catch (const UserError&) {
        check(limit_ > 0 && pool_->pages_left() == 0);
        reader.sequence.rewind(0, lengths);
        cache_.evict();
        return;
      }
    }
  }

  // Several texts at once, as a step of the engine reads them: what is counted before is enough.
  void step() {
    std::vector<Growth> growths;
    std::vector<std::pair<Reader*, ReadToken>> reading;
    for (Reader& reader : readers_) {
      const size_t style = bytes_.below(16);
      const int64_t rows = std::min<int64_t>(1 + static_cast<int64_t>(bytes_.below(20)), kTokens - std::ssize(reader.text));
      if (style >= 8 || rows <= 0) continue;
      growths.push_back({&reader.sequence, rows});
      reading.emplace_back(&reader, ReadToken{.id = static_cast<int32_t>(style % 4), .policy = static_cast<uint32_t>(style / 4)});
    }
    const int64_t most = pages_for(*pool_, growths), in_use = pool_->pages_in_use();
    if (most > pool_->pages_left()) return;
    for (int64_t block = 0; block < blocks_; ++block)  // block by block, text by text
      for (size_t i = 0; i < reading.size(); ++i) {
        auto& [reader, token] = reading[i];
        Meaning now(reader->text, blocks_);
        for (int64_t row = 0; row < growths[i].rows; ++row) {
          now.add(token);
          if (!now.run[static_cast<size_t>(block)].back()) continue;
          const int64_t slot = reader->sequence.append(block);
          std::memcpy(place(reader->sequence, block, slot), &now.slots[static_cast<size_t>(block)].back(), 4);
        }
      }
    for (size_t i = 0; i < reading.size(); ++i) reading[i].first->text.insert(reading[i].first->text.end(), static_cast<size_t>(growths[i].rows), reading[i].second);
    check(pool_->pages_in_use() - in_use <= most);
  }

  void keep(const Reader& reader) {
    cache_.keep(reader.text, [&](int64_t position) {
      const Meaning now(std::span(reader.text).first(static_cast<size_t>(position)), blocks_);
      PrefixCache::Snapshot out{.sequence = reader.sequence.fork(0, now.lengths()), .decisions = {}};
      for (const auto& run : now.run) {
        const int64_t tokens = PrefixCache::tokens_of(position);
        out.decisions.run.emplace_back(run.end() - tokens, run.end());
        out.decisions.score.emplace_back(tokens);
      }
      return out;
    }, bytes_.below(2));
  }

  void find(const Reader& reader) {
    const auto most = static_cast<int64_t>(bytes_.below(256));
    PrefixCache::Found found = cache_.find(Sequence(pool_, blocks_), reader.text, most);
    const int64_t tokens = found.decisions.run.empty() ? 0 : std::ssize(found.decisions.run[0]);
    check(tokens <= most && tokens <= std::ssize(reader.text));
    const Text begin(reader.text.begin(), reader.text.begin() + tokens);
    if (tokens > 0) check(found.decisions.run == Meaning(begin, blocks_).run);
    Reader other{.sequence = std::move(found.sequence), .text = begin};
    look_over(other);
    add(std::move(other));
  }

  // Pages in other hands, which the sequences must not get.
  void hand() {
    if (bytes_.below(2) && !held_.empty()) return give_back();
    if (held_.size() == kHeld) return;
    if (bytes_.below(3) == 0 && !held_.empty()) {
      pool_->hold(held_.back());
      return held_.push_back(held_.back());
    }
    try {
      const uint32_t page = pool_->take();
      check(pool_->holders(page) == 1);
      held_.push_back(page);
    } catch (const UserError&) {
      check(limit_ > 0 && pool_->pages_left() == 0);
    }
  }
  void give_back() {
    pool_->give_back(held_.back());
    held_.pop_back();
  }

  char* place(const Sequence& sequence, int64_t block, int64_t slot) {  // four bytes of a page for each of its slots
    return reinterpret_cast<char*>(pool_->page(sequence.page_table(block)[static_cast<size_t>(slot / kPagePositions)])) + slot % kPagePositions * 4;
  }

  void look_over(const Reader& reader) {
    const Meaning expected(reader.text, blocks_);
    for (int64_t block = 0; block < blocks_; ++block) {
      const std::vector<uint32_t>& slots = expected.slots[static_cast<size_t>(block)];
      check(reader.sequence.length(block) == std::ssize(slots));
      check(std::ssize(reader.sequence.page_table(block)) == (std::ssize(slots) + kPagePositions - 1) / kPagePositions);
      for (size_t i = 0; i < slots.size(); ++i) check(std::memcmp(place(reader.sequence, block, static_cast<int64_t>(i)), &slots[i], 4) == 0);
    }
  }

  void look(bool at_everything) {
    check(limit_ == 0 || pool_->pages_in_use() <= limit_);
    check(pool_->pages_left() == pool_->page_limit() - pool_->pages_in_use() && pool_->peak_pages() >= pool_->pages_in_use());
    if (!at_everything) return;
    std::map<uint32_t, int64_t> holders;
    for (const uint32_t page : held_) ++holders[page];
    for (const Reader& reader : readers_) {
      look_over(reader);
      for (int64_t block = 0; block < blocks_; ++block)
        for (const uint32_t page : reader.sequence.page_table(block)) ++holders[page];
    }
    const bool all_seen = cache_.snapshots() == 0;  // what the cache holds is seen by nobody
    check(all_seen ? pool_->pages_in_use() == std::ssize(holders) : pool_->pages_in_use() >= std::ssize(holders));
    for (const auto& [page, count] : holders) check(all_seen ? pool_->holders(page) == count : pool_->holders(page) >= count);
  }

  Bytes bytes_;
  int64_t blocks_, limit_;
  std::shared_ptr<PagePool> pool_;
  PrefixCache cache_;
  std::vector<Reader> readers_;
  std::vector<uint32_t> held_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Operations(Bytes(data, size)).run();
  return 0;
}
