// The BPE model: a word's characters (or bytes) are merged pair by pair, the pair of lowest rank first, leftmost first,
// until no rule applies. Immutable; what a thread changes while it encodes is in BpeScratch.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace fathom::text {

// A flat hash map from a pair of ids to the rule that merges it.
class MergeTable {
 public:
  struct Rule {
    uint32_t rank;
    int32_t merged;
  };
  void reserve(size_t count);
  void set(int32_t left, int32_t right, Rule rule);  // a later rule for the same pair wins, as in `tokenizers`
  const Rule* find(int32_t left, int32_t right) const {
    const uint64_t k = key(left, right);
    for (size_t i = slot(k);; i = (i + 1) & mask_) {
      if (slots_[i].key == k) return &slots_[i].rule;
      if (slots_[i].key == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Rule rule{};
  };
  static uint64_t key(int32_t left, int32_t right) { return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right); }
  size_t slot(uint64_t k) const { return static_cast<size_t>((k * 0x9e3779b97f4a7c15ULL) >> 20) & mask_; }

  std::vector<Slot> slots_ = std::vector<Slot>(2);
  size_t mask_ = 1, size_ = 0;
};

// Ids of words seen lately: English repeats its words, so most are answered by one cache line. Direct-mapped and of
// fixed size: 2 MiB, which fits a core's second-level cache with room to spare.
class WordCache {
 public:
  static constexpr size_t kMaxBytes = 31, kMaxIds = 7;
  struct alignas(64) Entry {
    uint64_t key[4];  // the word's bytes, zeros, its length in the last byte
    int32_t ids[kMaxIds];
    int32_t count;
  };
  WordCache() : entries_(kEntries) {}
  // The entry where `word` (at most kMaxBytes) lives or would live; `hit` tells which. `key` is filled for a store.
  Entry& at(std::string_view word, const char* readable_end, uint64_t (&key)[4], bool& hit);

 private:
  static constexpr size_t kEntries = size_t{1} << 15;
  std::vector<Entry> entries_;
};

class BpeScratch {
 public:
  BpeScratch();
  ~BpeScratch();
  std::vector<int32_t> ids;  // the result grows here
  size_t bytes() const;      // held by the buffers that grow with the text

 private:
  friend class Bpe;
  struct Symbol {
    int32_t id, previous, next;  // neighbours in the list; id -1: merged away
  };
  std::vector<Symbol> symbols_;
  std::vector<int32_t> short_;      // a short word's ids
  std::vector<uint32_t> ranks_;     // and the ranks of its pairs
  std::vector<uint64_t> queue_;     // rank << 32 | position
  WordCache cache_;
};

class Bpe {
 public:
  struct Options {
    bool byte_level = false;     // words come as bytes, spelled in GPT-2's alphabet
    bool byte_fallback = false;  // a character without a token becomes its bytes' tokens <0xNN>
    bool fuse_unknown = false;
    bool ignore_merges = false;  // a word that is a token stays whole
    int32_t unknown = -1;        // -1: characters without a token vanish, as in `tokenizers`
    std::string missing_unknown;  // unk_token that the vocabulary lacks: an error when it would be needed
    std::string where;           // file, for that error
  };
  using Vocabulary = std::unordered_map<std::string_view, int32_t>;

  // `tokens` outlives this object.
  Bpe(const Vocabulary& tokens, MergeTable merges, Options options);

  // Appends the ids of one word to scratch.ids.
  void encode(std::string_view word, const char* readable_end, BpeScratch& scratch) const;

 private:
  void encode_cut(std::string_view word, const char* readable_end, BpeScratch& scratch) const;
  void encode_plain(std::string_view word, BpeScratch& scratch) const;
  template <class Push>
  void symbols(std::string_view word, Push&& push) const;
  template <class Push>
  void symbols_of_text(std::string_view text, Push&& push) const;
  void merge_short(BpeScratch& scratch) const;
  void merge_long(BpeScratch& scratch) const;
  bool find_safe_cut(const Vocabulary& tokens) const;

  Options options_;
  MergeTable merges_;
  int32_t byte_ids_[256];      // byte-level: token of each byte, -1 without
  int32_t fallback_ids_[256];  // <0xNN>, -1 without
  std::vector<int32_t> low_chars_;                  // token of each character below U+3000, -1 without
  std::unordered_map<char32_t, int32_t> high_chars_;
  std::unordered_map<std::string, int32_t> whole_;  // ignore_merges: words that are tokens, as they come in
  bool cut_at_metaspace_ = false;  // no token has U+2581 behind another character: words may be cut before it
};

}  // namespace fathom::text
