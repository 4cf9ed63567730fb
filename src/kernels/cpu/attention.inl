// Keys and values into their pages, and attention over them, written once over V16 behind loops.inl, attend_pages.inl and
// attend_codes.inl, which has the products of a q8_0 cache; README.md says what each gives.

// Of a decode step's keys and values every byte comes from memory once, so these loops are bound by it as long as the arithmetic
// for a cache line takes less time than the line (docs/performance.md).

template <KvType T>
constexpr int64_t kStoredBytes = T == KvType::f32 ? 4 : T == KvType::q8_0 ? 1 : 2;

// Sixteen numbers as f32, which is exact.
template <KvType T>
V16 load_stored(const uint8_t* p) {
  if constexpr (T == KvType::f32) return load(reinterpret_cast<const float*>(p));
  else if constexpr (T == KvType::f16) return load_halves(p);
  else return load_bf16(p);
}
template <KvType T>
V16 load_first_stored(const uint8_t* p, int64_t n) {
  uint8_t some[kLanes * kStoredBytes<T>] = {};
  __builtin_memcpy(some, p, static_cast<size_t>(n * kStoredBytes<T>));
  return load_stored<T>(some);
}

// Up to 32 numbers as they are stored, one after the other; of q8_0 `scale` gets theirs.
template <KvType T>
void convert_block(const float* x, int64_t n, uint8_t* to, uint8_t* scale) {
  const Block block = load_block(x, n);
  const auto& [lo, hi] = block;
  if constexpr (T == KvType::f32) {
    store(reinterpret_cast<float*>(to), lo);
    store(reinterpret_cast<float*>(to) + kLanes, hi);
  } else if constexpr (T == KvType::f16) {
    store_halves(to, lo);
    store_halves(to + kLanes * 2, hi);
  } else if constexpr (T == KvType::bf16) {
    store_bf16(to, lo);
    store_bf16(to + kLanes * 2, hi);
  } else {
    const float most = greatest_in(block);
    const bool usable = most >= kLeastQuantized && most < kMostStored;
    const V16 inverse = set1(127.0f / most);
    int32_t sums[2];
    store_codes(reinterpret_cast<int8_t*>(to), usable ? mul(lo, inverse) : zero(), usable ? mul(hi, inverse) : zero(), sums);
    const uint16_t half = usable ? half_of(most / 127.0f) : most < kLeastQuantized ? uint16_t{0} : uint16_t{0x7e00};
    __builtin_memcpy(scale, &half, sizeof half);
  }
}

// `n` codes of a slot, which lie four by four beside those of other slots; keys' codes without a sign, 128 more.
void store_key_codes(const uint8_t* codes, int64_t n, uint8_t* to, int64_t slot) {
  for (int64_t i = 0; i < n; i += 4) {
    const int64_t width = min64(4, n - i);
    for (int64_t j = 0; j < width; ++j) to[i * kLanes + slot * width + j] = static_cast<uint8_t>(codes[i + j] ^ 128);
  }
}
void store_value_codes(const uint8_t* codes, int64_t n, uint8_t* to, int64_t slot) {
  for (int64_t panel = 0; panel < n; panel += kLanes) {
    const int64_t width = min64(kLanes, n - panel);
    for (int64_t i = 0; i < width; ++i) to[panel * kLanes + (slot / 4 * width + i) * 4 + slot % 4] = codes[panel + i];
  }
}

template <KvType T>
void store_slot_as(const StoreSlot& a) {
  constexpr int64_t kBytes = kStoredBytes<T>;
  const int64_t D = a.head_dim, head_bytes = kLanes * kv_bytes(T, D);
  alignas(64) uint8_t some[kKvBlock * kBytes];
  for (int64_t head = 0; head < 2 * a.kv_heads; ++head) {
    const bool is_key = head < a.kv_heads;
    const float* const x = is_key ? a.key + head * D : a.value + (head - a.kv_heads) * D;
    uint8_t* const to = a.page + head * head_bytes;
    for (int64_t first = 0; first < D; first += kKvBlock) {
      const int64_t n = min64(kKvBlock, D - first);
      convert_block<T>(x + first, n, some, to + kLanes * D + (first / kKvBlock * kLanes + a.slot) * 2);
      if constexpr (T == KvType::q8_0) {
        is_key ? store_key_codes(some, n, to + first * kLanes, a.slot) : store_value_codes(some, n, to + first * kLanes, a.slot);
      } else if (is_key) {
        uint8_t* const column = to + (first * kLanes + a.slot) * kBytes;
        for (int64_t i = 0; i < n; ++i) __builtin_memcpy(column + i * kLanes * kBytes, some + i * kBytes, kBytes);
      } else {
        for (int64_t panel = 0; panel < n; panel += kLanes) {
          const int64_t width = min64(kLanes, n - panel);
          __builtin_memcpy(to + ((first + panel) * kLanes + a.slot * width) * kBytes, some + panel * kBytes, static_cast<size_t>(width * kBytes));
        }
      }
    }
  }
}

void store_slot(const StoreSlot& a) {
  switch (a.type) {
    case KvType::f32: return store_slot_as<KvType::f32>(a);
    case KvType::f16: return store_slot_as<KvType::f16>(a);
    case KvType::bf16: return store_slot_as<KvType::bf16>(a);
    case KvType::q8_0: return store_slot_as<KvType::q8_0>(a);
  }
}

template <KvType T>
constexpr int64_t kPerLine = kCacheLine / (kLanes * kStoredBytes<T>);  // vectors
// Of the `streams` lines that kPerLine steps over as many streams of vectors read: how many to count to step i.
template <KvType T>
constexpr unsigned lines_at(int64_t i, int64_t streams) {
  return static_cast<unsigned>((i + 1) * streams / kPerLine<T> - i * streams / kPerLine<T>);
}
struct QueryRows {  // of a job's queries, at distances that a loop knows: one address register for all
  float row[kAttendQueries][limits::kHeadWidth + kLanes];

  explicit QueryRows(const Attend& a) {
    for (int64_t q = 0; q < a.count; ++q) __builtin_memcpy(row[q], a.queries[q], static_cast<size_t>(a.head_dim) * sizeof(float));
  }
};

// Scores of queries [first, first + Q) with the keys of P pages: Q·P independent sums hide the latency of each.
template <KvType T, int Q, int P>
void page_scores(const Attend& a, const QueryRows& x, int64_t first, int64_t page, Ahead& ahead) {
  constexpr int64_t kVector = kLanes * kStoredBytes<T>;
  const int64_t D = a.head_dim, slots = page_count(a) * kLanes;
  float* const scores = a.scores + first * slots + page * kLanes;
  V16 acc[Q][P];
  const uint8_t* key[P];
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) acc[q][p] = zero();
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) key[p] = a.pages[page + p] + a.key_offset;
  const auto column = [&](int64_t d) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const V16 keys = load_stored<T>(key[p] + d * kVector);
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) acc[q][p] = fma(set1(x.row[first + q][d]), keys, acc[q][p]);
    }
  };
  int64_t d = 0;
  for (; d + kPerLine<T> <= D; d += kPerLine<T>) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < kPerLine<T>; ++i) {
      ahead.step(lines_at<T>(i, P));
      column(d + i);
    }
  }
  for (; d < D; ++d) column(d);
  const V16 scale = set1(a.scale);
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) store(scores + q * slots + p * kLanes, mul(acc[q][p], scale));
}

template <KvType T, int Q>
void tile_scores(const Attend& a, const QueryRows& x, int64_t first, int64_t page, int64_t page_end, Ahead& ahead) {
  constexpr int kPages = kAttendSums / Q > kBlockPages ? kBlockPages : kAttendSums / Q > 0 ? kAttendSums / Q : 1;
  for (; page + kPages <= page_end; page += kPages) page_scores<T, Q, kPages>(a, x, first, page, ahead);
  for (; page < page_end; ++page) page_scores<T, Q, 1>(a, x, first, page, ahead);
}

template <KvType T>
void scores_as(const Attend& a, int64_t page_begin, int64_t page_end) {
  const QueryRows x(a);
  for (int64_t page = page_begin; page < page_end; page += kBlockPages) {
    const int64_t end = min64(page + kBlockPages, page_end);
    Ahead ahead(a, a.key_offset, end, page_end);
    in_tiles(a.count, [&]<int Q>(int64_t q) { tile_scores<T, Q>(a, x, q, page, end, ahead); });
  }
}

void attend_scores(const Attend& a, int64_t page_begin, int64_t page_end) {
  switch (a.type) {
    case KvType::f32: return scores_as<KvType::f32>(a, page_begin, page_end);
    case KvType::f16: return scores_as<KvType::f16>(a, page_begin, page_end);
    case KvType::bf16: return scores_as<KvType::bf16>(a, page_begin, page_end);
    case KvType::q8_0: return;  // code_scores
  }
}

// Scores to exp(score − greatest) in place; returns 1 / sum. Lanes past `visible` hold keys that were never written or
// lie in the future: they count as −∞ and get weight 0.
float softmax(float* p, int64_t visible) {
  const int64_t whole = visible / kLanes * kLanes, left = visible - whole;
  const V16 lowest = set1(-__builtin_inff());
  if (left > 0) store(p + whole, tail_select(left, load(p + whole), lowest));
  const V16 shift = set1(greatest(p, visible));
  V16 acc = zero();
  for (int64_t j = 0; j < whole; j += kLanes) {
    const V16 e = exp(sub(load(p + j), shift));
    store(p + j, e);
    acc = add(acc, e);
  }
  if (left > 0) {
    const V16 e = exp(sub(load(p + whole), shift));
    store(p + whole, e);
    acc = tail_select(left, add(acc, e), acc);
  }
  return 1.0f / sum(acc);
}

void attend_softmax(const Attend& a, int64_t query_begin, int64_t query_end) {
  const int64_t slots = page_count(a) * kLanes;
  for (int64_t q = query_begin; q < query_end; ++q) a.inverse[q] = softmax(a.scores + q * slots, a.visible[q]);
}

// Columns [column, column + 16·N) of the outputs of queries [first, first + Q) continue over slots [from, to). Of the last
// panel `width` columns are there: all, or N is 1.
template <KvType T, int Q, int N>
void weigh_values(const Attend& a, int64_t first, int64_t from, int64_t to, int64_t column, int64_t width, Ahead& ahead) {
  constexpr int64_t kBytes = kStoredBytes<T>;
  const int64_t slots = page_count(a) * kLanes, row = width * kBytes, panel = kLanes * kLanes * kBytes;
  const int64_t begin = a.value_offset + column * kLanes * kBytes;
  const bool whole = width == kLanes;
  V16 acc[Q][N];
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const float* const at = a.outputs[first + q] + column + n * kLanes;
      acc[q][n] = from == 0 ? zero() : whole ? load(at) : load_first(at, width);
    }
  for (int64_t j = from; j < to;) {
    const int64_t page = j / kLanes, end = min64((page + 1) * kLanes, to);
    const uint8_t* const values = a.pages[page] + begin;
    const float* const weights = a.scores + first * slots + page * kLanes;
    const auto add_slot = [&](int64_t slot) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const uint8_t* const at = values + n * panel + slot * row;
        const V16 v = N > 1 || whole ? load_stored<T>(at) : load_first_stored<T>(at, width);
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q) acc[q][n] = fma(set1(weights[q * slots + slot]), v, acc[q][n]);
      }
    };
    int64_t slot = j % kLanes;
    const int64_t slot_end = slot + end - j;
    for (; slot + kPerLine<T> <= slot_end; slot += kPerLine<T>) {
#pragma GCC unroll 4
      for (int64_t i = 0; i < kPerLine<T>; ++i) {
        ahead.step(lines_at<T>(i, N));
        add_slot(slot + i);
      }
    }
    for (; slot < slot_end; ++slot) add_slot(slot);
    j = end;
  }
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      float* const at = a.outputs[first + q] + column + n * kLanes;
      if (whole) store(at, acc[q][n]);
      else store_first(at, width, acc[q][n]);
    }
}

// N panels at a time, then one.
template <KvType T, int Q, int N>
void weigh_columns(const Attend& a, int64_t first, int64_t from, int64_t to, int64_t column, int64_t last, Ahead& ahead) {
  while (column < last) {
    if (N > 1 && column + N * kLanes <= last) {
      weigh_values<T, Q, N>(a, first, from, to, column, kLanes, ahead);
      column += N * kLanes;
    } else {
      weigh_values<T, Q, 1>(a, first, from, to, column, min64(kLanes, a.head_dim - column), ahead);
      column += kLanes;
    }
  }
}

// Slots that all queries of a tile see together, then what each sees beyond: a value that a query must not see is never
// touched, even with weight 0, since 0 · ∞ would reach it.
template <KvType T, int Q>
void tile_values(const Attend& a, int64_t first, int64_t from, int64_t to, int64_t column, int64_t last, Ahead& ahead) {
  constexpr int kVectors = kAttendSums / Q >= 4 ? 4 : kAttendSums / Q >= 2 ? 2 : 1;
  const int64_t* const visible = a.visible + first;
  if (from < visible[0]) weigh_columns<T, Q, kVectors>(a, first, from, min64(to, visible[0]), column, last, ahead);
  for (int q = 1; q < Q; ++q) {
    const int64_t begin = from > visible[0] ? from : visible[0], end = min64(to, visible[q]);
    if (begin < end) weigh_columns<T, 1, kAttendSums >= 4 ? 4 : 2>(a, first + q, begin, end, column, last, ahead);
  }
}

template <KvType T>
void values_as(const Attend& a, int64_t first, int64_t last) {
  const int64_t end = a.visible[a.count - 1];
  for (int64_t from = 0; from < end; from += kBlockPages * kLanes) {
    const int64_t to = min64(from + kBlockPages * kLanes, end);
    Ahead ahead(a, a.value_offset + first * kLanes * kStoredBytes<T>, from / kLanes + kBlockPages, page_count(a));
    in_tiles(a.count, [&]<int Q>(int64_t q) { tile_values<T, Q>(a, q, from, to, first, last, ahead); });
  }
  divide_outputs(a, first, last);
}

void attend_values(const Attend& a, int64_t first, int64_t last) {
  switch (a.type) {
    case KvType::f32: return values_as<KvType::f32>(a, first, last);
    case KvType::f16: return values_as<KvType::f16>(a, first, last);
    case KvType::bf16: return values_as<KvType::bf16>(a, first, last);
    case KvType::q8_0: return;  // code_values
  }
}
