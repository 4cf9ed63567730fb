#include "infer/prefix_cache.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/error.h"

namespace fathom::infer {

// The tokens themselves are the key, not a hash of them: nobody can be given the keys and values of another text.
struct PrefixCache::Node {
  Node* parent = nullptr;
  std::map<std::vector<ReadToken>, std::unique_ptr<Node>> next;  // by kStride tokens; by fewer where a text ended, from which none goes on
  int64_t ends = 0;                                                        // of the latter
  std::map<std::vector<ReadToken>, std::unique_ptr<Node>>::iterator self;  // in parent->next
  std::optional<Snapshot> snapshot;                                        // always there but at the root
  int64_t age = 0;
};

PrefixCache::PrefixCache(int64_t max_tokens) : max_snapshots_(max_tokens / kStride), root_(std::make_unique<Node>()) {
  FATHOM_ASSERT(max_tokens >= 0, max_tokens);
}

PrefixCache::~PrefixCache() { clear(); }

void PrefixCache::clear() {
  while (evict()) {}
}

// From the node up, so that whoever goes on from a node is older than it: what is evicted first never has successors.
void PrefixCache::touch(Node* node) {
  for (; node != root_.get(); node = node->parent) {
    auto entry = by_age_.extract(node->age);
    entry.key() = node->age = ++clock_;
    by_age_.insert(std::move(entry));
  }
}

PrefixCache::Found PrefixCache::find(const Sequence& empty, std::span<const ReadToken> text, int64_t most) {
  Node* node = root_.get();
  std::vector<const Node*> path;
  const int64_t size = std::min<int64_t>(most, std::ssize(text));
  int64_t at = 0;
  const auto go = [&](int64_t tokens) {
    const auto found = node->next.find({text.begin() + at, text.begin() + at + tokens});
    if (found == node->next.end()) return false;
    node = found->second.get();
    path.push_back(node);
    at += tokens;
    return true;
  };
  while (at + kStride <= size && go(kStride)) {}
  for (int64_t tokens = std::min(kStride - 1, size - at); tokens > 0 && node->ends > 0 && !go(tokens); --tokens) {}
  touch(node);
  Found out{.sequence = path.empty() ? empty.fork() : node->snapshot->sequence.fork(), .decisions = {}};
  for (const Node* each : path) routing::append(out.decisions, each->snapshot->decisions, 0, static_cast<size_t>(each->self->first.size()));
  return out;
}

void PrefixCache::keep(std::span<const ReadToken> text, const std::function<Snapshot(int64_t)>& snapshot, bool ends) {
  if (max_snapshots_ == 0) return;
  Node* node = root_.get();
  try {
    int64_t depth = 0;
    for (int64_t at = 0; at < std::ssize(text) && depth < max_snapshots_; ++depth) {
      const int64_t tokens = std::min(kStride, std::ssize(text) - at);
      if (tokens < kStride && !ends) break;
      const std::vector<ReadToken> key(text.begin() + at, text.begin() + at + tokens);
      at += tokens;
      const auto found = node->next.find(key);
      node = found == node->next.end() ? add(*node, key, snapshot(at)) : found->second.get();
    }
  } catch (...) {
    touch(node);  // what was kept so far is in order
    throw;
  }
  touch(node);
  while (snapshots() > max_snapshots_) evict();
}

PrefixCache::Node* PrefixCache::add(Node& parent, const std::vector<ReadToken>& key, Snapshot&& snapshot) {
  auto made = std::make_unique<Node>();
  made->parent = &parent;
  made->snapshot.emplace(std::move(snapshot));
  made->age = clock_ + 1;
  const auto entry = by_age_.emplace(made->age, made.get()).first;
  try {
    const auto found = parent.next.emplace(key, std::move(made)).first;
    found->second->self = found;
  } catch (...) {
    by_age_.erase(entry);
    throw;
  }
  ++clock_;
  parent.ends += std::ssize(key) < kStride;
  return entry->second;
}

bool PrefixCache::evict() {
  if (by_age_.empty()) return false;
  Node* const node = by_age_.begin()->second;
  FATHOM_ASSERT(node->next.empty(), "a kept prefix that others go on from is the oldest");
  by_age_.erase(by_age_.begin());
  node->parent->ends -= std::ssize(node->self->first) < kStride;
  node->parent->next.erase(node->self);
  return true;
}

}  // namespace fathom::infer
