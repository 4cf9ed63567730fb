// What has been read before, kept to go on from: every 64 positions of a text, and where it ended, a snapshot of all blocks' page tables. Sound
// because the causal rule makes a prefix's routing independent of what follows: whoever begins with the same tokens under the
// same policies would compute the same keys and values to the bit.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "infer/kv_cache.h"
#include "routing/decisions.h"

namespace fathom::infer {

// A token and the policy that it was read under (a number that its user gave the policy).
struct ReadToken {
  int32_t id = 0;
  uint32_t policy = 0;
  auto operator<=>(const ReadToken&) const = default;
};

class PrefixCache {
 public:
  static constexpr int64_t kStride = 64;  // positions between two snapshots; a multiple of a page, so that dense blocks share whole pages
  // The tokens of the snapshot at a position: those since the one before.
  static constexpr int64_t tokens_of(int64_t position) { return position % kStride == 0 ? kStride : position % kStride; }

  // Keeps at most `max_tokens` / 64 snapshots; the least recently used go first.
  explicit PrefixCache(int64_t max_tokens);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  struct Snapshot {
    Sequence sequence;              // at its position
    routing::Decisions decisions;   // of its tokens
  };
  struct Found {
    Sequence sequence;              // a fork: position() tokens of the text are read
    routing::Decisions decisions;   // of them
  };
  // The longest kept beginning of a text, of at most `most` tokens; position 0 when none is.
  Found find(const Sequence& empty, std::span<const ReadToken> text, int64_t most);
  // Keeps every multiple of kStride of `text` [T] that is not kept yet, and its end where it `ends`; `snapshot` makes the one at a
  // position.
  void keep(std::span<const ReadToken> text, const std::function<Snapshot(int64_t position)>& snapshot, bool ends = false);
  bool evict();                     // the least recently used; false when there is none
  void clear();

  int64_t snapshots() const { return static_cast<int64_t>(by_age_.size()); }

 private:
  struct Node;
  Node* add(Node& parent, const std::vector<ReadToken>& key, Snapshot&& snapshot);
  void touch(Node* node);           // and all before it
  int64_t max_snapshots_;
  int64_t clock_ = 0;
  std::unique_ptr<Node> root_;      // of the empty text
  std::map<int64_t, Node*> by_age_;  // oldest use first; a node is always younger than those that go on from it
};

}  // namespace fathom::infer
