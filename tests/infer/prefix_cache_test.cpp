#include "infer/prefix_cache.h"

#include <gtest/gtest.h>

#include "support.h"

namespace fathom::infer::test {
namespace {

constexpr int64_t kStride = PrefixCache::kStride;

std::vector<ReadToken> text(int64_t tokens, int32_t first, uint32_t policy = 0) {
  std::vector<ReadToken> out;
  for (int64_t i = 0; i < tokens; ++i) out.push_back({first + static_cast<int32_t>(i), policy});
  return out;
}

struct Kept {
  std::shared_ptr<PagePool> pool = std::make_shared<PagePool>(1, 2);
  Sequence empty{pool, 1};
  int64_t made = 0;

  // A snapshot whose decisions say which text and position it is of.
  void keep(PrefixCache& cache, const std::vector<ReadToken>& of, bool ends = false) {
    cache.keep(of, [&](int64_t position) {
      ++made;
      Sequence sequence(pool, 1);
      for (int64_t i = 0; i < position; ++i) sequence.append(0);
      PrefixCache::Snapshot out{.sequence = sequence.fork(0, std::vector<int64_t>{position}), .decisions = {}};
      const auto tokens = static_cast<size_t>(position % kStride == 0 ? kStride : position % kStride);
      out.decisions.run = {std::vector<uint8_t>(tokens, static_cast<uint8_t>(of[static_cast<size_t>(position) - 1].id))};
      out.decisions.score = {std::vector<float>(tokens, static_cast<float>(position))};
      return out;
    }, ends);
  }
  int64_t length(PrefixCache& cache, const std::vector<ReadToken>& of, int64_t most = INT64_MAX) {
    const PrefixCache::Found found = cache.find(empty, of, most);
    const int64_t tokens = found.decisions.run.empty() ? 0 : std::ssize(found.decisions.run[0]);
    EXPECT_EQ(found.sequence.length(0), tokens);
    for (int64_t i = 0; i < tokens; ++i) {  // of this text, in its order
      const int64_t position = std::min((i / kStride + 1) * kStride, tokens);
      EXPECT_EQ(found.decisions.run[0][static_cast<size_t>(i)], static_cast<uint8_t>(of[static_cast<size_t>(position) - 1].id));
      EXPECT_EQ(found.decisions.score[0][static_cast<size_t>(i)], static_cast<float>(position));
    }
    return tokens;
  }
};

TEST(PrefixCache, FindsTheLongestBeginning) {
  Kept kept;
  PrefixCache cache(1 << 20);
  EXPECT_EQ(kept.length(cache, text(300, 5)), 0);
  kept.keep(cache, text(3 * kStride + 10, 5));
  EXPECT_EQ(cache.snapshots(), 3);
  EXPECT_EQ(kept.length(cache, text(300, 5)), 3 * kStride);
  EXPECT_EQ(kept.length(cache, text(300, 5), 3 * kStride - 1), 2 * kStride);
  EXPECT_EQ(kept.length(cache, text(kStride - 1, 5)), 0);
  EXPECT_EQ(kept.length(cache, text(300, 6)), 0);
  EXPECT_EQ(kept.length(cache, text(300, 5, 1)), 0);  // under another policy
  std::vector<ReadToken> other = text(300, 5);
  other[static_cast<size_t>(2 * kStride)].id = 0;
  EXPECT_EQ(kept.length(cache, other), 2 * kStride);
  EXPECT_EQ(kept.made, 3);
  kept.keep(cache, other);  // shares two snapshots
  EXPECT_EQ(kept.made, 3 + 2);
  kept.keep(cache, text(4 * kStride, 5));
  EXPECT_EQ(kept.made, 5 + 1);
  cache.clear();
  EXPECT_EQ(kept.pool->pages_in_use(), 0);
}

TEST(PrefixCache, ATextGoesOnFromWhereItEnded) {
  Kept kept;
  PrefixCache cache(1 << 20);
  kept.keep(cache, text(2 * kStride + 10, 5), true);
  EXPECT_EQ(cache.snapshots(), 3);
  EXPECT_EQ(kept.length(cache, text(300, 5)), 2 * kStride + 10);
  EXPECT_EQ(kept.length(cache, text(2 * kStride + 10, 5)), 2 * kStride + 10);
  EXPECT_EQ(kept.length(cache, text(2 * kStride + 10, 5), 2 * kStride + 9), 2 * kStride);  // no part of it
  kept.keep(cache, text(2 * kStride + 30, 5), true);
  kept.keep(cache, text(7, 5), true);
  EXPECT_EQ(kept.made, 5);
  EXPECT_EQ(kept.length(cache, text(300, 5)), 2 * kStride + 30);  // the longest
  EXPECT_EQ(kept.length(cache, text(2 * kStride + 29, 5)), 2 * kStride + 10);
  EXPECT_EQ(kept.length(cache, text(kStride - 1, 5)), 7);
  kept.keep(cache, text(3 * kStride, 5));  // a whole stride goes before
  EXPECT_EQ(kept.length(cache, text(300, 5)), 3 * kStride);
  EXPECT_EQ(kept.length(cache, text(3 * kStride - 1, 5)), 2 * kStride + 30);
  int64_t evicted = 0;
  while (cache.evict()) ++evicted;
  EXPECT_EQ(evicted, 6);
  EXPECT_EQ(kept.length(cache, text(300, 5)), 0);
  EXPECT_EQ(kept.pool->pages_in_use(), 0);
}

TEST(PrefixCache, TheLeastRecentlyUsedGoFirst) {
  Kept kept;
  PrefixCache cache(5 * kStride + kStride / 2);
  kept.keep(cache, text(2 * kStride, 1));
  kept.keep(cache, text(2 * kStride, 2));
  EXPECT_EQ(kept.length(cache, text(2 * kStride, 1)), 2 * kStride);  // used again
  kept.keep(cache, text(2 * kStride, 3));
  EXPECT_EQ(cache.snapshots(), 5);
  EXPECT_EQ(kept.length(cache, text(2 * kStride, 2)), kStride);  // its end went, its beginning stayed
  EXPECT_EQ(kept.length(cache, text(2 * kStride, 1)), 2 * kStride);
  EXPECT_EQ(kept.length(cache, text(2 * kStride, 3)), 2 * kStride);
  EXPECT_TRUE(cache.evict());
  EXPECT_EQ(kept.length(cache, text(2 * kStride, 2)), 0);
  // A text longer than all that may be kept keeps its beginning.
  kept.keep(cache, text(9 * kStride, 4));
  EXPECT_EQ(cache.snapshots(), 5);
  EXPECT_EQ(kept.length(cache, text(9 * kStride, 4)), 5 * kStride);
  int64_t evicted = 0;
  while (cache.evict()) ++evicted;
  EXPECT_EQ(evicted, 5);
  EXPECT_EQ(kept.pool->pages_in_use(), 0);
  PrefixCache none(0);
  kept.keep(none, text(2 * kStride, 1));
  EXPECT_EQ(none.snapshots(), 0);
}

}  // namespace
}  // namespace fathom::infer::test
