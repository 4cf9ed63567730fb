#include "infer/prefix_cache.h"

#include <algorithm>
#include <optional>

#include "core/error.h"

namespace fathom::infer {

// The tokens themselves are the key, not a hash of them: nobody can be given the keys and values of another text.
struct PrefixCache::Node {
  Node* parent = nullptr;
  std::map<std::vector<ReadToken>, std::unique_ptr<Node>> next;
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
    by_age_.erase(node->age);
    node->age = ++clock_;
    by_age_.emplace(node->age, node);
  }
}

PrefixCache::Found PrefixCache::find(const Sequence& empty, std::span<const ReadToken> text, int64_t most) {
  Node* node = root_.get();
  std::vector<const Node*> path;
  for (int64_t at = 0; at + kStride <= std::min<int64_t>(most, std::ssize(text)); at += kStride) {
    const auto found = node->next.find({text.begin() + at, text.begin() + at + kStride});
    if (found == node->next.end()) break;
    node = found->second.get();
    path.push_back(node);
  }
  touch(node);
  Found out{.sequence = path.empty() ? empty.fork() : node->snapshot->sequence.fork(), .decisions = {}};
  for (const Node* each : path) routing::append(out.decisions, each->snapshot->decisions, 0, kStride);
  return out;
}

void PrefixCache::keep(std::span<const ReadToken> text, const std::function<Snapshot(int64_t)>& snapshot) {
  if (max_snapshots_ == 0) return;
  Node* node = root_.get();
  int64_t depth = 0;
  for (int64_t at = 0; at + kStride <= std::ssize(text) && depth < max_snapshots_; at += kStride, ++depth) {
    std::vector<ReadToken> key(text.begin() + at, text.begin() + at + kStride);
    auto found = node->next.find(key);
    if (found == node->next.end()) {
      auto made = std::make_unique<Node>();
      made->parent = node;
      made->snapshot.emplace(snapshot(at + kStride));
      made->age = ++clock_;
      found = node->next.emplace(std::move(key), std::move(made)).first;
      found->second->self = found;
      by_age_.emplace(found->second->age, found->second.get());
    }
    node = found->second.get();
  }
  touch(node);
  while (snapshots() > max_snapshots_) evict();
}

bool PrefixCache::evict() {
  if (by_age_.empty()) return false;
  Node* const node = by_age_.begin()->second;
  FATHOM_ASSERT(node->next.empty(), "a kept prefix that others go on from is the oldest");
  by_age_.erase(by_age_.begin());
  node->parent->next.erase(node->self);
  return true;
}

}  // namespace fathom::infer
