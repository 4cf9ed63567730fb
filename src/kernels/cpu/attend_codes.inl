// Attention over a q8_0 cache, in whole numbers: written once over each ISA's dot_bytes and store_digits behind attend_pages.inl;
// README.md says what each gives.

// A query's numbers and a text's weights become whole numbers of 14 bits, each two digits of 7: bytes, whose products with four
// codes one instruction adds up, and of which AVX2 adds two in 16 bits.
constexpr int kDigitBits = 7;

inline I16 splat4(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return splat(four);
}

// 32 numbers to digits, the high ones [32] and then the low ones [32]; low digits lie in [−Bias, 128 − Bias). Returns what
// stands for 1: the number is scale · (128 · high + low).
template <int Bias>
float store_numbers(const Block& x, float most, float codes, int8_t* to) {
  const bool usable = most >= kLeastQuantized && most < __builtin_inff();
  const V16 inverse = set1(codes / most);
  store_digits<Bias>(usable ? mul(x.lo, inverse) : zero(), to, to + kKvBlock);
  store_digits<Bias>(usable ? mul(x.hi, inverse) : zero(), to + kLanes, to + kKvBlock + kLanes);
  return usable ? most / codes : most < kLeastQuantized ? 0.0f : __builtin_nanf("");
}

struct QueryCodes {  // of a job's queries
  static constexpr int64_t kBlocks = limits::kHeadWidth / kKvBlock;
  alignas(64) int8_t digits[kBlocks][kKvBlock / 4][2][kAttendQueries][4];  // high and low, by fours
  float scale[kAttendQueries][kBlocks];
  int32_t sum[kAttendQueries][kBlocks];

  explicit QueryCodes(const Attend& a) {
    for (int64_t q = 0; q < a.count; ++q)
      for (int64_t b = 0; b * kKvBlock < a.head_dim; ++b) {
        const Block x = load_block(a.queries[q] + b * kKvBlock, a.head_dim - b * kKvBlock);
        alignas(64) int8_t row[2 * kKvBlock];
        scale[q][b] = store_numbers<64>(x, greatest_in(x), kQueryCodes, row);
        int32_t high = 0, low = 0;
        for (int64_t i = 0; i < kKvBlock; ++i) high += row[i], low += row[kKvBlock + i];
        for (int64_t i = 0; i < kKvBlock / 4; ++i)
          for (int64_t digit = 0; digit < 2; ++digit) __builtin_memcpy(digits[b][i][digit][q], row + digit * kKvBlock + 4 * i, 4);
        sum[q][b] = high * (1 << kDigitBits) + low;
      }
  }
};

// Sums of both digits' products, side by side where the registers hold them, else one digit after the other.
template <int Q, int N>
constexpr int kDigitSums = 2 * Q * N <= kAttendDigits ? 2 : 1;
template <int Q, int N>
using DigitSums = I16[kDigitSums<Q, N>][Q][N];

template <int Q, int N>
__attribute__((always_inline)) inline void next_digit(DigitSums<Q, N>& sums) {
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sums[0][q][n] = shift_left(sums[0][q][n], kDigitBits);
}
template <int Q, int N>
__attribute__((always_inline)) inline V16 total(DigitSums<Q, N>& sums, int q, int n) {
  if constexpr (kDigitSums<Q, N> == 2) return to_float(add(shift_left(sums[0][q][n], kDigitBits), sums[1][q][n]));
  else return to_float(sums[0][q][n]);
}

// Scores of queries [first, first + Q) with the keys of P pages.
template <int Q, int P>
void code_page_scores(const Attend& a, const QueryCodes& x, int64_t first, int64_t page, Ahead& ahead) {
  constexpr int kTogether = kDigitSums<Q, P>;
  const int64_t D = a.head_dim, slots = page_count(a) * kLanes;
  float* const scores = a.scores + first * slots + page * kLanes;
  const uint8_t* key[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) key[p] = a.pages[page + p] + a.key_offset;
  for (int64_t block = 0; block < D; block += kKvBlock) {
    const int64_t b = block / kKvBlock, n = min64(kKvBlock, D - block), whole = n / 4 * 4;
    DigitSums<Q, P> sums;
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        sums[0][q][p] = splat(kByteZero ? -x.sum[first + q][b] : 0);  // times 128 at the end: the keys' codes are 128 too much
        if constexpr (kTogether == 2) sums[1][q][p] = splat(0);
      }
    const auto add_keys = [&](int pass, int64_t d, int p, const uint8_t* codes) __attribute__((always_inline)) {
      const I16 keys = load_byte_codes(codes);
#pragma GCC unroll 2
      for (int i = 0; i < kTogether; ++i)
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q) sums[i][q][p] = dot_bytes(sums[i][q][p], keys, splat4(x.digits[b][d / 4][pass + i][first + q]));
    };
    const auto add_digit = [&](int pass) __attribute__((always_inline)) {
      for (int64_t d = 0; d < whole; d += 4) {
        if (pass == 0) ahead.step(P);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) add_keys(pass, d, p, key[p] + (block + d) * kLanes);
      }
      if (whole == n) return;
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {  // the last two numbers of a head
        alignas(64) uint8_t padded[kCacheLine] = {};
        for (int64_t slot = 0; slot < kLanes; ++slot) __builtin_memcpy(padded + 4 * slot, key[p] + (block + whole) * kLanes + 2 * slot, 2);
        add_keys(pass, whole, p, padded);
      }
    };
    add_digit(0);
    if constexpr (kTogether == 1) next_digit<Q, P>(sums), add_digit(1);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const V16 scale = load_halves(key[p] + kLanes * D + b * kLanes * 2);
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) {
        float* const at = scores + q * slots + p * kLanes;
        const V16 score = fma(total<Q, P>(sums, q, p), mul(scale, set1(x.scale[first + q][b])), block == 0 ? zero() : load(at));
        store(at, block + kKvBlock >= D ? mul(score, set1(a.scale)) : score);
      }
    }
  }
  ahead.step(P);  // of the scales
}

void code_scores(const Attend& a, int64_t page_begin, int64_t page_end) {
  const QueryCodes x(a);
  for (int64_t begin = page_begin; begin < page_end; begin += kBlockPages) {
    const int64_t end = min64(begin + kBlockPages, page_end);
    Ahead ahead(a, a.key_offset, end, page_end);
    in_tiles(a.count, [&]<int Q>(int64_t q) {
      constexpr int kPages = kAttendSums / Q > kBlockPages ? kBlockPages : kAttendSums / Q > 0 ? kAttendSums / Q : 1;
      int64_t page = begin;
      for (; page + kPages <= end; page += kPages) code_page_scores<Q, kPages>(a, x, q, page, ahead);
      for (; page < end; ++page) code_page_scores<Q, 1>(a, x, q, page, ahead);
    });
  }
}

static_assert(kBlockPages * kLanes == kWeightSlots);

struct WeightCodes {  // of queries [first, first + Q) for the slots of a block of pages and 32 columns
  alignas(64) int8_t digits[kAttendTile][2][2][kKvBlock];  // slots [0, 32) and [32, 64): high and low
  float scale[kAttendTile];

  template <int Q>
  void set(const Attend& a, int64_t first, int64_t from, int64_t column) {
    const int64_t slots = page_count(a) * kLanes, scales = a.value_offset + kLanes * a.head_dim + column / kKvBlock * kLanes * 2;
    const uint8_t* const* const page = a.pages + from / kLanes;
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
      V16 weight[kBlockPages];
      const float* const p = a.scores + (first + q) * slots + from;
      const auto of_page = [&](int64_t i) __attribute__((always_inline)) { return mul(load(p + i * kLanes), load_halves(page[i] + scales)); };
      if (const int64_t seen = a.visible[first + q] - from; seen >= kWeightSlots) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < kBlockPages; ++i) weight[i] = of_page(i);
      } else {
        for (int64_t i = 0; i < kBlockPages; ++i) {
          const int64_t left = seen - i * kLanes;
          weight[i] = left <= 0 ? zero() : left < kLanes ? tail_select(left, of_page(i), zero()) : of_page(i);
        }
      }
      const float most = from_bits(greatest_magnitude(weight[0], weight[1], weight[2], weight[3]));
      scale[q] = store_numbers<0>({weight[0], weight[1]}, most, kWeightCodes, digits[q][0][0]);
      store_numbers<0>({weight[2], weight[3]}, most, kWeightCodes, digits[q][1][0]);
    }
  }
  const int8_t* of(int q, int digit, int64_t slot) const { return digits[q][slot / kKvBlock][digit] + slot % kKvBlock; }
};

// Columns [column, column + 16·N) of the outputs of queries [first, first + Q) continue over a block of pages. Of the last panel
// `width` columns are there: all, or N is 1.
template <int Q, int N>
void weigh_codes(const Attend& a, const WeightCodes& weights, int64_t first, int64_t from, int64_t pages, int64_t column, int64_t width, Ahead& ahead) {
  constexpr int64_t kPanel = kLanes * kLanes;
  constexpr int kTogether = kDigitSums<Q, N>;
  const bool whole = width == kLanes;
  DigitSums<Q, N> sums;
#pragma GCC unroll 2
  for (int i = 0; i < kTogether; ++i)
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sums[i][q][n] = splat(0);
  const auto add_digit = [&](int pass) __attribute__((always_inline)) {
    for (int64_t p = 0; p < pages; ++p) {
      const uint8_t* const values = a.pages[from / kLanes + p] + a.value_offset + column * kLanes;
#pragma GCC unroll 4
      for (int64_t slot = 0; slot < kLanes; slot += 4) {
        if (pass == 0) ahead.step(N);
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) {
          alignas(64) uint8_t padded[kCacheLine];
          if (!(N > 1 || whole)) __builtin_memcpy(padded, values + slot * width, static_cast<size_t>(4 * width));
          const I16 codes = load_bytes(N > 1 || whole ? values + n * kPanel + slot * kLanes : padded);
#pragma GCC unroll 2
          for (int i = 0; i < kTogether; ++i)
#pragma GCC unroll 8
            for (int q = 0; q < Q; ++q) sums[i][q][n] = dot_bytes(sums[i][q][n], splat4(weights.of(q, pass + i, p * kLanes + slot)), codes);
        }
      }
    }
  };
  add_digit(0);
  if constexpr (kTogether == 1) next_digit<Q, N>(sums), add_digit(1);
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      float* const at = a.outputs[first + q] + column + n * kLanes;
      const V16 before = from == 0 ? zero() : whole ? load(at) : load_first(at, width);
      const V16 after = fma(total<Q, N>(sums, q, n), set1(weights.scale[q]), before);
      if (whole) store(at, after);
      else store_first(at, width, after);
    }
}

void code_values(const Attend& a, int64_t first, int64_t last) {
  const int64_t all = page_count(a);
  for (int64_t page = 0; page < all; page += kBlockPages) {
    const int64_t pages = min64(kBlockPages, all - page), from = page * kLanes;
    Ahead ahead(a, a.value_offset + first * kLanes, page + kBlockPages, all);
    for (int64_t i = 0; i < kBlocksAhead * kBlockPages; ++i)  // scales, which a block reads first
      __builtin_prefetch(a.pages[min64(page + kBlockPages + i, all - 1)] + a.value_offset + kLanes * a.head_dim + first / kKvBlock * kLanes * 2, 0, 2);
    in_tiles(a.count, [&]<int Q>(int64_t q) {
      constexpr int kPanels = 4 * Q <= kAttendDigits ? 2 : 1;
      for (int64_t block = first; block < last;) {
        const int64_t end = min64(last, (block / kKvBlock + 1) * kKvBlock);
        WeightCodes weights;
        weights.set<Q>(a, q, from, block);
        if (kPanels == 2 && end - block == kKvBlock) {
          weigh_codes<Q, kPanels>(a, weights, q, from, pages, block, kLanes, ahead);
        } else {
          for (int64_t column = block; column < end; column += kLanes) weigh_codes<Q, 1>(a, weights, q, from, pages, column, min64(kLanes, a.head_dim - column), ahead);
        }
        block = end;
      }
    });
  }
  divide_outputs(a, first, last);
}
