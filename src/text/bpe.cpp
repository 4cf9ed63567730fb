#include "text/bpe.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "text/byte_alphabet.h"

namespace fathom::text {
namespace {

constexpr std::string_view kMetaspace = "\xe2\x96\x81";  // U+2581
constexpr char32_t kLowChars = 0x3000;
constexpr size_t kShortWord = 48;  // up to here a scan for the lowest rank beats a heap
constexpr uint32_t kNoRule = ~uint32_t{0};

// kMaskOf[32 - n] begins n bytes of ones.
constexpr std::array<uint8_t, 64> mask_bytes() {
  std::array<uint8_t, 64> m{};
  for (size_t i = 0; i < 32; ++i) m[i] = 0xff;
  return m;
}
constexpr std::array<uint8_t, 64> kMask = mask_bytes();

}  // namespace

void MergeTable::reserve(size_t count) {
  size_t slots = 2;
  while (slots < count * 2) slots *= 2;
  if (slots <= slots_.size()) return;
  std::vector<Slot> old(slots);
  old.swap(slots_);
  mask_ = slots - 1;
  size_ = 0;
  for (const Slot& s : old)
    if (s.key != kEmpty) set(static_cast<int32_t>(s.key >> 32), static_cast<int32_t>(s.key), s.rule);
}

void MergeTable::set(int32_t left, int32_t right, Rule rule) {
  if ((size_ + 1) * 2 > slots_.size()) reserve(slots_.size());
  const uint64_t k = key(left, right);
  size_t i = slot(k);
  while (slots_[i].key != kEmpty && slots_[i].key != k) i = (i + 1) & mask_;
  if (slots_[i].key == kEmpty) ++size_;
  slots_[i] = {k, rule};
}

WordCache::Entry& WordCache::at(std::string_view word, const char* readable_end, uint64_t (&key)[4], bool& hit) {
  const size_t n = word.size();
  if (readable_end - word.data() >= 32) {
    uint64_t mask[4];
    std::memcpy(key, word.data(), 32);
    std::memcpy(mask, kMask.data() + 32 - n, 32);
    for (int i = 0; i < 4; ++i) key[i] &= mask[i];
  } else {
    std::memset(key, 0, 32);
    std::memcpy(key, word.data(), n);
  }
  key[3] |= static_cast<uint64_t>(n) << 56;
  // Any mix will do: a collision costs a merge, never a wrong id.
  uint64_t h = (key[0] ^ (key[3] >> 7)) * 0x9e3779b97f4a7c15ULL ^ (key[1] + key[3]) * 0xda942042e4dd58b5ULL ^ key[2] * 0xbf58476d1ce4e5b9ULL;
  h ^= h >> 32;
  h *= 0x94d049bb133111ebULL;
  Entry& e = entries_[h >> 49];
  static_assert(kEntries == size_t{1} << 15);
  hit = ((e.key[0] ^ key[0]) | (e.key[1] ^ key[1]) | (e.key[2] ^ key[2]) | (e.key[3] ^ key[3])) == 0;
  return e;
}

BpeScratch::BpeScratch() = default;
BpeScratch::~BpeScratch() = default;

size_t BpeScratch::bytes() const {
  return ids.capacity() * sizeof(int32_t) + symbols_.capacity() * sizeof(Symbol) + queue_.capacity() * sizeof(uint64_t);
}

Bpe::Bpe(const Vocabulary& tokens, MergeTable merges, Options options)
    : options_(std::move(options)), merges_(std::move(merges)), low_chars_(kLowChars, -1) {
  for (int b = 0; b < 256; ++b) {
    const auto id = [&](const std::string& token) {
      const auto it = tokens.find(token);
      return it == tokens.end() ? -1 : it->second;
    };
    static constexpr char kHex[] = "0123456789ABCDEF";
    byte_ids_[b] = id(byte_to_letter(static_cast<uint8_t>(b)));
    fallback_ids_[b] = id(std::string("<0x") + kHex[b >> 4] + kHex[b & 15] + ">");
  }
  for (const auto& [token, id] : tokens) {
    char32_t c = 0;
    if (token.empty() || utf8_decode(token, c) != token.size()) continue;
    if (c < kLowChars) low_chars_[c] = id;
    else high_chars_.emplace(c, id);
  }
  if (options_.ignore_merges) {
    for (const auto& [token, id] : tokens) {
      std::string bytes;
      if (!options_.byte_level) whole_.emplace(token, id);
      else if (letters_to_bytes(token, bytes)) whole_.emplace(std::move(bytes), id);
    }
  }
  cut_at_metaspace_ = !options_.byte_level && !options_.ignore_merges && find_safe_cut(tokens);
}

// SentencePiece models have no word cuts: a whole text is one word. But where no token joins a character to a U+2581 behind
// it, no merge ever crosses that place, and the text may be cut there without changing an id.
bool Bpe::find_safe_cut(const Vocabulary& tokens) const {
  if (!tokens.contains(kMetaspace)) return false;  // an unknown character there could be fused across the cut
  for (const auto& [token, id] : tokens) {
    size_t at = token.find(kMetaspace);
    while (at != std::string_view::npos) {
      if (at > 0 && !token.substr(0, at).ends_with(kMetaspace)) return false;
      at = token.find(kMetaspace, at + kMetaspace.size());
    }
  }
  return true;
}

template <class Push>
void Bpe::symbols_of_text(std::string_view text, Push&& push) const {
  int32_t unknown = -1;  // one that waits, since it may be fused with the next
  while (!text.empty()) {
    char32_t c = 0;
    const size_t length = utf8_decode(text, c);
    FATHOM_ASSERT(length > 0, "BPE needs UTF-8");
    int32_t id = -1;
    if (c < kLowChars) {
      id = low_chars_[c];
    } else if (const auto it = high_chars_.find(c); it != high_chars_.end()) {
      id = it->second;
    }
    if (id >= 0) {
      if (unknown >= 0) push(unknown), unknown = -1;
      push(id);
    } else {
      bool spelled = options_.byte_fallback;
      for (size_t i = 0; spelled && i < length; ++i) spelled = fallback_ids_[static_cast<uint8_t>(text[i])] >= 0;
      if (spelled) {
        for (size_t i = 0; i < length; ++i) push(fallback_ids_[static_cast<uint8_t>(text[i])]);
      } else if (options_.unknown >= 0) {
        if (unknown >= 0 && !options_.fuse_unknown) push(unknown);
        unknown = options_.unknown;
      } else if (!options_.missing_unknown.empty()) {
        throw UserError({options_.where, "model.unk_token", "\"" + printable(options_.missing_unknown) + "\", which the vocabulary lacks and the text needs",
                         "a token of the vocabulary", ""});
      }
    }
    text.remove_prefix(length);
  }
  if (unknown >= 0) push(unknown);
}

template <class Push>
void Bpe::symbols(std::string_view word, Push&& push) const {
  if (!options_.byte_level) return symbols_of_text(word, push);
  for (const char b : word)
    if (byte_ids_[static_cast<uint8_t>(b)] < 0) return symbols_of_text(bytes_to_letters(word), push);
  for (const char b : word) push(byte_ids_[static_cast<uint8_t>(b)]);
}

void Bpe::encode(std::string_view word, const char* readable_end, BpeScratch& scratch) const {
  if (cut_at_metaspace_) {
    // Cut before each U+2581 that follows another character.
    size_t start = 0, at = word.find(kMetaspace, 1);
    while (at != std::string_view::npos) {
      if (!(at >= 3 && word.substr(at - 3, 3) == kMetaspace)) {
        encode_cut(word.substr(start, at - start), readable_end, scratch);
        start = at;
      }
      at = word.find(kMetaspace, at + kMetaspace.size());
    }
    word.remove_prefix(start);
  }
  encode_cut(word, readable_end, scratch);
}

void Bpe::encode_cut(std::string_view word, const char* readable_end, BpeScratch& scratch) const {
  if (word.size() > WordCache::kMaxBytes) return encode_plain(word, scratch);
  uint64_t key[4];
  bool hit = false;
  WordCache::Entry& e = scratch.cache_.at(word, readable_end, key, hit);
  auto& ids = scratch.ids;
  if (hit) [[likely]] {
    for (int32_t i = 0; i < e.count; ++i) ids.push_back(e.ids[i]);
    return;
  }
  const size_t before = ids.size();
  encode_plain(word, scratch);
  const size_t count = ids.size() - before;
  if (count > WordCache::kMaxIds) return;
  std::memcpy(e.key, key, sizeof key);
  std::copy(ids.begin() + static_cast<ptrdiff_t>(before), ids.end(), e.ids);
  e.count = static_cast<int32_t>(count);
}

void Bpe::encode_plain(std::string_view word, BpeScratch& scratch) const {
  if (static_cast<int64_t>(word.size()) > limits::kWordBytes)
    throw UserError({options_.where, "", str("a word of ", word.size(), " bytes between two cuts of the pre-tokenizer"),
                     str("at most ", limits::kWordBytes), "split the document"});
  if (options_.ignore_merges) {
    if (const auto it = whole_.find(std::string(word)); it != whole_.end()) {
      scratch.ids.push_back(it->second);
      return;
    }
  }
  if (word.size() <= kShortWord) {
    scratch.short_.clear();
    symbols(word, [&](int32_t id) { scratch.short_.push_back(id); });
    merge_short(scratch);
  } else {
    scratch.symbols_.clear();
    symbols(word, [&](int32_t id) {
      const auto i = static_cast<int32_t>(scratch.symbols_.size());
      scratch.symbols_.push_back({id, i - 1, i + 1});
    });
    merge_long(scratch);
  }
}

void Bpe::merge_short(BpeScratch& scratch) const {
  auto& ids = scratch.short_;
  auto& ranks = scratch.ranks_;
  const auto rank = [&](size_t i) -> uint32_t {
    const MergeTable::Rule* rule = i + 1 < ids.size() ? merges_.find(ids[i], ids[i + 1]) : nullptr;
    return rule ? rule->rank : kNoRule;
  };
  ranks.resize(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) ranks[i] = rank(i);
  while (ids.size() > 1) {
    const auto lowest = std::min_element(ranks.begin(), ranks.end());  // the first of equals
    if (*lowest == kNoRule) break;
    const size_t i = static_cast<size_t>(lowest - ranks.begin());
    ids[i] = merges_.find(ids[i], ids[i + 1])->merged;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(i) + 1);
    ranks.erase(lowest + 1);
    ranks[i] = rank(i);
    if (i > 0) ranks[i - 1] = rank(i - 1);
  }
  scratch.ids.insert(scratch.ids.end(), ids.begin(), ids.end());
}

void Bpe::merge_long(BpeScratch& scratch) const {
  auto& symbols = scratch.symbols_;
  auto& queue = scratch.queue_;
  const auto count = static_cast<int32_t>(symbols.size());
  const auto entry = [&](int32_t left) -> uint64_t {
    const int32_t right = symbols[static_cast<size_t>(left)].next;
    if (right >= count) return ~uint64_t{0};
    const auto* rule = merges_.find(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    return rule ? static_cast<uint64_t>(rule->rank) << 32 | static_cast<uint32_t>(left) : ~uint64_t{0};
  };
  queue.clear();
  for (int32_t i = 0; i + 1 < count; ++i)
    if (const uint64_t e = entry(i); e != ~uint64_t{0}) queue.push_back(e);
  std::make_heap(queue.begin(), queue.end(), std::greater<>());
  const auto push = [&](int32_t left) {
    const uint64_t e = entry(left);
    if (e == ~uint64_t{0}) return;
    queue.push_back(e);
    std::push_heap(queue.begin(), queue.end(), std::greater<>());
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const uint64_t top = queue.back();
    queue.pop_back();
    const auto left = static_cast<int32_t>(top & 0xffffffff);
    auto& l = symbols[static_cast<size_t>(left)];
    // A stale entry: its pair was merged with a neighbour since.
    if (l.id < 0 || entry(left) != top) continue;
    const int32_t right = l.next;
    auto& r = symbols[static_cast<size_t>(right)];
    l.id = merges_.find(l.id, r.id)->merged;
    l.next = r.next;
    r.id = -1;
    if (l.next < count) symbols[static_cast<size_t>(l.next)].previous = left;
    if (l.previous >= 0) push(l.previous);
    push(left);
  }
  for (const auto& s : symbols)
    if (s.id >= 0) scratch.ids.push_back(s.id);
}

}  // namespace fathom::text
