// Products with quantised weights, written once over I16, sixteen i32 lanes that each ISA's file defines beside V16. Whole
// numbers are exact in any order; the f32 operations are those of README.md.
//
// I16 operations: splat, load_bytes (64 of them), low_nibbles, high_nibbles (one code a byte), shift_left, shift_right (of 32 bits),
// or_masked, to_float, load_halves and load_signed_bytes (16 f16 or i8 to V16), Activations and broadcast4 (four codes of a row, to
// every lane), dot4 (per lane acc + Σ of four products of a code with one of the row), load_byte_codes (64 codes of 8 bits as dot4 takes
// them) and kByteZero (the one of these that stands for 0). kQuantizedRows: rows of one tile; kSumRegisters: inner and f32 sums that the
// registers hold together.

template <Packing P>
struct Panel {  // of a packing: bytes of 16 outputs in a block, and in the head of a super-block
  static constexpr int64_t kLow = kLayoutOf<P>.low_bytes * kLanes, kCodes = kLayoutOf<P>.code_bytes * kLanes;
  static constexpr int64_t kRecord = kLayoutOf<P>.record_bytes * kLanes, kHead = kLayoutOf<P>.head_bytes * kLanes;
};

// Codes of four inner elements of panel n of W: the first or the last four of the eight of a turn.
template <Packing P, int W, bool kLast>
inline I16 load_codes(const uint8_t* record, int64_t turn, int n) {
  constexpr Layout l = kLayoutOf<P>;
  if constexpr (l.low_bits == 8) return load_byte_codes(record + ((turn * 2 + kLast) * W + n) * 64);
  const I16 pair = load_bytes(record + (turn * W + n) * 64), low = kLast ? high_nibbles(pair) : low_nibbles(pair);
  if constexpr (l.high_bits == 0) return low;
  const int64_t before = turn * l.high_bits;
  const I16 high = load_bytes(record + W * Panel<P>::kLow + (before / 4 * W + n) * 64);
  const int moved = static_cast<int>(before % 4);
  return or_masked(low, kLast ? shift_right(high, moved) : shift_left(high, 4 - moved), splat(0x10101010 * ((1 << l.high_bits) - 1)));
}

// Scale `part` of a block for panel n, or its minimum (part = scales).
template <Packing P, int W>
inline V16 load_scale(const uint8_t* head, const uint8_t* record, int part, int n) {
  constexpr Layout l = kLayoutOf<P>;
  const uint8_t* const at = record + W * Panel<P>::kCodes;
  if constexpr (!l.two_levels) return load_halves(at + (part * W + n) * 32);
  else return mul(load_halves(head + ((part == l.scales) * W + n) * 32), load_signed_bytes(at + (part * W + n) * 16));
}

// One row asks for what comes so much later, into the second-level cache: the first holds too few misses. Decoding on one and two threads of
// a Zen 4, llama-110m in 8 bits: 189 and 307 tokens/s with 4 KB into the first level, 258 and 320 so; in 4 bits 424 and 668, 495 and 626;
// SmolLM2's shape in 4 bits 311 and 419, 358 and 431 (medians of three turns). docs/log.md has other distances.
constexpr int64_t kPrefetchBytes = 1536;
constexpr int64_t kChunkBlocks = 8;   // so many records of a group (17 KB at most) stay in the first-level cache for all rows
static_assert(kChunkBlocks == kSuperBlock);  // so that a chunk begins with the head of its records
constexpr int64_t kTileRows = 48;     // rows whose sums are kept (12 KB)

// What a tile asks for while it computes: as many cache lines in every turn (a branch that the processor foresees).
struct Fetch {
  const uint8_t* next;
  int64_t lines;
};

// R rows with the W panels of a group over the `count` blocks of a chunk from block `first`: inner sums in registers, the f32
// sums in `sums` [R][64], which few rows keep in registers too.
template <Packing P, int R, int W>
void quantized_tile(const QuantizedRows& x, int64_t row, int64_t first, int64_t count, const uint8_t* chunk, float* sums, Fetch fetch) {
  constexpr Layout l = kLayoutOf<P>;
  constexpr int kOffset = l.low_bits == 8 ? kByteZero : l.offset;
  constexpr int64_t kTurns = 4 / l.scales;  // of eight inner elements, for one scale
  constexpr int64_t kTurnBytes = W * Panel<P>::kRecord / 4;
  constexpr bool kInRegisters = R * W * 2 <= kSumRegisters;
  V16 kept[R][W];
  if constexpr (kInRegisters)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < W; ++n) kept[r][n] = load(sums + r * kGroup + n * kLanes);
  const uint8_t* w = chunk + W * Panel<P>::kHead;
  for (int64_t b = first; b < first + count; ++b, w += W * Panel<P>::kRecord) {
#pragma GCC unroll 2
    for (int part = 0; part < l.scales; ++part) {
      I16 dot[R][W];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const int32_t* const half = x.half_sum + ((row + r) * x.blocks + b) * 2;
        const I16 start = kOffset ? splat(-kOffset * (l.scales == 2 ? half[part] : half[0] + half[1])) : splat(0);
#pragma GCC unroll 8
        for (int n = 0; n < W; ++n) dot[r][n] = start;
      }
      const int8_t* const codes_of = x.codes + (row * x.blocks + b) * kBlock;
      // The codes are loaded just before they are used, of 4 bits twice: every sum needs its register.
#pragma GCC unroll 1
      for (int64_t turn = part * kTurns; turn < (part + 1) * kTurns; ++turn) {
        // With one row the weights come out of memory, and groups follow each other there: also past the end of this one.
        if (R == 1 && fetch.lines < 0)
#pragma GCC unroll 16
          for (int64_t line = 0; line < kTurnBytes; line += 64) __builtin_prefetch(w + turn * kTurnBytes + line + kPrefetchBytes, 0, 2);
        else
          for (int64_t line = 0; line < fetch.lines; ++line, fetch.next += 64) __builtin_prefetch(fetch.next, 0, 2);
        I16 codes[W];
#pragma GCC unroll 8
        for (int n = 0; n < W; ++n) codes[n] = load_codes<P, W, false>(w, turn, n);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const Activations four = broadcast4(codes_of + r * x.blocks * kBlock + turn * 8);
#pragma GCC unroll 8
          for (int n = 0; n < W; ++n) dot[r][n] = dot4(dot[r][n], codes[n], four);
        }
#pragma GCC unroll 8
        for (int n = 0; n < W; ++n) codes[n] = load_codes<P, W, true>(w, turn, n);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const Activations four = broadcast4(codes_of + r * x.blocks * kBlock + turn * 8 + 4);
#pragma GCC unroll 8
          for (int n = 0; n < W; ++n) dot[r][n] = dot4(dot[r][n], codes[n], four);
        }
      }
#pragma GCC unroll 8
      for (int n = 0; n < W; ++n) {
        const V16 scale = load_scale<P, W>(chunk, w, part, n);
        const V16 minimum = l.minimum ? load_scale<P, W>(chunk, w, l.scales, n) : zero();
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const int64_t at = (row + r) * x.blocks + b;
          V16 sum = kInRegisters ? kept[r][n] : load(sums + r * kGroup + n * kLanes);
          sum = fma(to_float(dot[r][n]), mul(scale, set1(x.scale[at])), sum);
          if constexpr (l.minimum) sum = fma(minimum, set1(x.scale[at] * static_cast<float>(x.half_sum[at * 2] + x.half_sum[at * 2 + 1])), sum);
          if constexpr (kInRegisters) kept[r][n] = sum;
          else store(sums + r * kGroup + n * kLanes, sum);
        }
      }
    }
  }
  static_assert(l.scales == 1 || !l.minimum);  // else a block's minimum would be added with each of its scales
  if constexpr (kInRegisters)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < W; ++n) store(sums + r * kGroup + n * kLanes, kept[r][n]);
}

// The largest tile that `rows` fill.
template <Packing P, int W, int R = kQuantizedRows>
int64_t quantized_tile_of(const QuantizedRows& x, int64_t rows, int64_t row, int64_t first, int64_t count, const uint8_t* chunk, float* sums, Fetch fetch) {
  if constexpr (R > 1)
    if (rows < R) return quantized_tile_of<P, W, R - 1>(x, rows, row, first, count, chunk, sums, fetch);
  quantized_tile<P, R, W>(x, row, first, count, chunk, sums, fetch);
  return R;
}

// Weights come from memory once, whatever the number of rows: a chunk of blocks meets all rows before the next.
template <Packing P, int W>
void quantized_group(const QuantizedMatmul& a, const uint8_t* w, int64_t first) {
  const int64_t outputs = min64(kGroup, a.outputs - first);
  alignas(64) float sums[kTileRows * kGroup];
  constexpr int64_t kLinesOfTurn = (W * Panel<P>::kRecord / 4 + 63) / 64;
  const int64_t tiles = min64(3, (a.rows + kQuantizedRows - 1) / kQuantizedRows);
  for (int64_t begin = 0; begin < a.rows; begin += kTileRows) {
    const int64_t rows = min64(kTileRows, a.rows - begin);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t n = 0; n < W; ++n) store(sums + r * kGroup + n * kLanes, zero());
    for (int64_t block = 0; block < a.x.blocks; block += kChunkBlocks) {
      const int64_t count = min64(kChunkBlocks, a.x.blocks - block);
      const uint8_t* const chunk = w + (block * Panel<P>::kRecord + block / kSuperBlock * Panel<P>::kHead) * W;
      // The next chunk comes from memory while the first tiles compute, each its part.
      Fetch fetch{chunk + W * (count * Panel<P>::kRecord + Panel<P>::kHead), a.rows == 1 ? -1 : begin > 0 ? 0 : (kLinesOfTurn + tiles - 1) / tiles};
      for (int64_t r = 0, tile = 0; r < rows; ++tile, fetch.next += fetch.lines * 64 * 4 * count) {
        if (tile == tiles) fetch.lines = 0;
        r += quantized_tile_of<P, W>(a.x, rows - r, begin + r, block, count, chunk, sums + r * kGroup, fetch);
      }
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t n = 0; n < W; ++n) {
        const int64_t left = outputs - n * kLanes;
        float* const y = a.y + (begin + r) * a.y_stride + first + n * kLanes;
        if (left >= kLanes) store(y, load(sums + r * kGroup + n * kLanes));
        else store_first(y, left, load(sums + r * kGroup + n * kLanes));
      }
  }
}

template <Packing P>
void quantized_groups(const QuantizedMatmul& a) {
  for (int64_t group = a.group_begin; group < a.group_end; ++group) {
    const int64_t first = group * kGroup;
    const uint8_t* const w = a.packed + first * quantized_bytes(kLayoutOf<P>, a.x.blocks);
    switch (min64(kGroup, a.outputs - first + kLanes - 1) / kLanes) {
      case 4: quantized_group<P, 4>(a, w, first); break;
      case 3: quantized_group<P, 3>(a, w, first); break;
      case 2: quantized_group<P, 2>(a, w, first); break;
      default: quantized_group<P, 1>(a, w, first); break;
    }
  }
}

void quantized_matmul(const QuantizedMatmul& a) {
  switch (a.packing) {
    case Packing::q8: return quantized_groups<Packing::q8>(a);
    case Packing::q4: return quantized_groups<Packing::q4>(a);
    case Packing::q4_min: return quantized_groups<Packing::q4_min>(a);
    case Packing::q5: return quantized_groups<Packing::q5>(a);
    case Packing::q5_min: return quantized_groups<Packing::q5_min>(a);
    case Packing::q4_k: return quantized_groups<Packing::q4_k>(a);
    case Packing::q5_k: return quantized_groups<Packing::q5_k>(a);
    case Packing::q6_k: return quantized_groups<Packing::q6_k>(a);
    case Packing::f32: case Packing::bf16: case Packing::f16: return;
  }
}
