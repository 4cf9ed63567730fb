// Products with quantised weights, written once over I16, sixteen i32 lanes that each ISA's file defines beside V16. Whole
// numbers are exact in any order; the f32 operations are those of README.md.
//
// I16 operations: splat, load_bytes (64 of them), low_nibbles, high_nibbles (one code a byte), to_float, load_halves (16
// f16 to V16), Activations and broadcast4 (four codes of a row, to every lane), dot4 (per lane acc + Σ of four products
// of an unsigned code with a signed one). kQuantizedRows: rows of one tile; kSumRegisters: inner and f32
// sums that the registers hold together.

template <Packing P>
struct Layout {
  static constexpr bool kNibbles = P != Packing::q8, kMinimum = P == Packing::q4_min;
  static constexpr int32_t kOffset = P == Packing::q8 ? 128 : P == Packing::q4 ? 8 : 0;
  static constexpr int64_t kStepBytes = kNibbles ? 32 : 64;                    // of one panel and four inner elements
  static constexpr int64_t kPanelBytes = 8 * kStepBytes;                       // of one panel's codes in a block
  static constexpr int64_t kRecordBytes = kPanelBytes + kLanes * (kMinimum ? 4 : 2);  // with its scales
};

// Decoding with none, 2, 4 and 8 KB: SmolLM2 in 4 bits 309, 310, 350, 329 tokens/s on one thread and 399, 416, 459, 416 on two; llama-110m in
// 8 bits 371, 373, 368, 323 on two (medians of three turns, Zen 5).
constexpr int64_t kPrefetchBytes = 4096;
constexpr int64_t kChunkBlocks = 8;   // so many records of a group (17 KB at most) stay in the first-level cache for all rows
constexpr int64_t kTileRows = 48;     // rows whose sums are kept (12 KB)

// R rows with the W panels of a group over `count` blocks from block `first`: inner sums in registers, the f32 sums in
// `sums` [R][64], which few rows keep in registers too.
template <Packing P, int R, int W>
void quantized_tile(const QuantizedRows& x, int64_t row, int64_t first, int64_t count, const uint8_t* w, float* sums) {
  using L = Layout<P>;
  constexpr bool kInRegisters = R * W * 2 <= kSumRegisters;
  V16 kept[R][W];
  if constexpr (kInRegisters)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < W; ++n) kept[r][n] = load(sums + r * kGroup + n * kLanes);
  for (int64_t b = first; b < first + count; ++b, w += W * L::kRecordBytes) {
    I16 dot[R][W];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const I16 start = L::kOffset ? splat(-L::kOffset * x.sum[(row + r) * x.blocks + b]) : splat(0);
#pragma GCC unroll 8
      for (int n = 0; n < W; ++n) dot[r][n] = start;
    }
    const int8_t* const codes_of = x.codes + (row * x.blocks + b) * kBlock;
    // Eight inner elements a turn. The codes are loaded just before they are used, of 4 bits twice: every sum needs its register.
#pragma GCC unroll 1
    for (int64_t k = 0; k < kBlock; k += 8) {
      // With one row the weights come out of memory, and groups follow each other there: also past the end of this one.
      if constexpr (R == 1)
#pragma GCC unroll 8
        for (int line = 0; line < W * L::kStepBytes * 2 / 64; ++line) __builtin_prefetch(w + k / 8 * W * L::kStepBytes * 2 + line * 64 + kPrefetchBytes);
      I16 codes[W];
#pragma GCC unroll 8
      for (int n = 0; n < W; ++n) codes[n] = L::kNibbles ? low_nibbles(load_bytes(w + (k / 8 * W + n) * 64)) : load_bytes(w + (k / 4 * W + n) * 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Activations four = broadcast4(codes_of + r * x.blocks * kBlock + k);
#pragma GCC unroll 8
        for (int n = 0; n < W; ++n) dot[r][n] = dot4(dot[r][n], codes[n], four);
      }
#pragma GCC unroll 8
      for (int n = 0; n < W; ++n) codes[n] = L::kNibbles ? high_nibbles(load_bytes(w + (k / 8 * W + n) * 64)) : load_bytes(w + ((k / 4 + 1) * W + n) * 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Activations four = broadcast4(codes_of + r * x.blocks * kBlock + k + 4);
#pragma GCC unroll 8
        for (int n = 0; n < W; ++n) dot[r][n] = dot4(dot[r][n], codes[n], four);
      }
    }
    const uint8_t* const scales = w + W * L::kPanelBytes;
#pragma GCC unroll 8
    for (int n = 0; n < W; ++n) {
      const V16 scale = load_halves(scales + n * 32);
      const V16 minimum = L::kMinimum ? load_halves(scales + W * 32 + n * 32) : zero();
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const int64_t at = (row + r) * x.blocks + b;
        V16 sum = kInRegisters ? kept[r][n] : load(sums + r * kGroup + n * kLanes);
        sum = fma(to_float(dot[r][n]), mul(scale, set1(x.scale[at])), sum);
        if (L::kMinimum) sum = fma(minimum, set1(x.scale[at] * static_cast<float>(x.sum[at])), sum);
        if (kInRegisters) kept[r][n] = sum;
        else store(sums + r * kGroup + n * kLanes, sum);
      }
    }
  }
  if constexpr (kInRegisters)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < W; ++n) store(sums + r * kGroup + n * kLanes, kept[r][n]);
}

// Weights come from memory once, whatever the number of rows: a chunk of blocks meets all rows before the next.
template <Packing P, int W>
void quantized_group(const QuantizedMatmul& a, const uint8_t* w, int64_t first) {
  const int64_t outputs = min64(kGroup, a.outputs - first);
  alignas(64) float sums[kTileRows * kGroup];
  for (int64_t begin = 0; begin < a.rows; begin += kTileRows) {
    const int64_t rows = min64(kTileRows, a.rows - begin);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t n = 0; n < W; ++n) store(sums + r * kGroup + n * kLanes, zero());
    for (int64_t block = 0; block < a.x.blocks; block += kChunkBlocks) {
      const int64_t count = min64(kChunkBlocks, a.x.blocks - block);
      const uint8_t* const chunk = w + block * W * Layout<P>::kRecordBytes;
      int64_t r = 0;
      for (; r + kQuantizedRows <= rows; r += kQuantizedRows)
        quantized_tile<P, kQuantizedRows, W>(a.x, begin + r, block, count, chunk, sums + r * kGroup);
      for (; r + 2 <= rows; r += 2) quantized_tile<P, 2, W>(a.x, begin + r, block, count, chunk, sums + r * kGroup);
      if (r < rows) quantized_tile<P, 1, W>(a.x, begin + r, block, count, chunk, sums + r * kGroup);
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
    const uint8_t* const w = a.packed + quantized_group_offset(P, first, a.x.blocks);
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
    case Packing::f32: return;
  }
}
