// What attention over pages shares whatever their type: the order in which pages and queries are met, and asking for what comes next.

constexpr int64_t kCacheLine = 64;
constexpr int64_t kBlockPages = 4;  // that all queries of a job meet before the next come, so that these come from memory once
constexpr int64_t kBlocksAhead = 3;

// Pages lie anywhere, a few KB of a head in each: too little for the hardware to see a stream, and all of it behind one channel of
// the memory. So what comes next is asked for, line by line while a block is computed, from twelve pages in turn; and three times,
// since a processor drops such wishes when it is busy, into the second-level cache, which takes more of them than the first.
// (Zen 4, 4 KB from each page, GB/s of the 34 that a sequential read gets: without 12, into the first level 13, once from eight
// pages 20, this way 31.)
struct Ahead {
  const uint8_t* next[kBlocksAhead * kBlockPages];
  int64_t offset = 0, bytes = 0;
  uint64_t page = 0;  // of a block, whose line comes next

  Ahead(const Attend& a, int64_t head_offset, int64_t first, int64_t page_end) {
    if (first >= page_end) return;
    for (int64_t i = 0; i < kBlocksAhead * kBlockPages; ++i) next[i] = a.pages[min64(first + i, page_end - 1)] + head_offset;
    bytes = kLanes * kv_bytes(a.type, a.head_dim);
  }
  void step(unsigned computed) {  // lines, at most 4
    if (computed == 0 || offset >= bytes) return;
#pragma GCC unroll 4
    for (unsigned i = 0; i < computed; ++i)
#pragma GCC unroll 3
      for (int64_t block = 0; block < kBlocksAhead; ++block)
        __builtin_prefetch(next[block * kBlockPages + static_cast<int64_t>((page + i) % kBlockPages)] + offset, 0, 2);
    page += computed;
    if (page >= kBlockPages) page -= kBlockPages, offset += kCacheLine;
  }
};

int64_t page_count(const Attend& a) { return (a.visible[a.count - 1] + kLanes - 1) / kLanes; }

// body.operator()<Q>(q) for tiles of Q queries from q on: as few as an ISA's registers allow.
template <class Body>
void in_tiles(int64_t count, Body body) {
  int64_t q = 0;
  if constexpr (kAttendTile >= 8)
    for (; q + 8 <= count; q += 8) body.template operator()<8>(q);
  for (; q + 4 <= count; q += 4) body.template operator()<4>(q);
  if (q + 3 == count) body.template operator()<3>(q), q += 3;
  for (; q + 2 <= count; q += 2) body.template operator()<2>(q);
  for (; q < count; ++q) body.template operator()<1>(q);
}

// Columns [first, last) of the outputs, divided by the sum of their weights.
void divide_outputs(const Attend& a, int64_t first, int64_t last) {
  for (int64_t q = 0; q < a.count; ++q) {
    float* const out = a.outputs[q];
    const V16 scale = set1(a.inverse[q]);
    int64_t d = first;
    for (; d + kLanes <= last; d += kLanes) store(out + d, mul(load(out + d), scale));
    if (const int64_t left = last - d; left > 0) store_first(out + d, left, mul(load_first(out + d, left), scale));
  }
}
