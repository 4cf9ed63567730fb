// Products with weights that are plain numbers, written once over V16. A step takes four bytes of a row, a number or a pair of bf16. Of
// each ISA: load_weights<P> (a step of sixteen outputs; f16 as f32, which is exact), broadcast<P> (of a row, to every lane),
// add_products<P>(acc, weights, row's); tile_rows(P) rows at a time take tile_panels(R) panels of a group, so that the sums fill the registers.

// R rows of x with N panels of a group of `panels`: R·N sums in registers, the weights read once for the R rows.
template <Packing P, int R, int N>
void product_tile(const float* x, int64_t x_stride, const uint8_t* w, int64_t panels, int64_t steps, float* y, int64_t y_stride, int64_t outputs) {
  constexpr int64_t kPanelBytes = kLayoutOf<P>.plain_bytes * kLayoutOf<P>.step * kLanes;
  V16 acc[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) acc[r][n] = zero();
  const float* row[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) row[r] = x + r * x_stride;
  for (int64_t k = 0; k < steps; ++k, w += panels * kPanelBytes) {
    decltype(load_weights<P>(w)) weight[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) weight[n] = load_weights<P>(w + n * kPanelBytes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto value = broadcast<P>(row[r] + k);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) acc[r][n] = add_products<P>(acc[r][n], weight[n], value);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const int64_t left = outputs - n * kLanes;
      float* const to = y + r * y_stride + n * kLanes;
      if (left >= kLanes) store(to, acc[r][n]);
      else store_first(to, left, acc[r][n]);
    }
}

// The panels of a group from number `n` on, for R rows from row `r`: N at a time, then half as many.
template <Packing P, int R, int N = tile_panels(R)>
void product_rows(const Matmul& a, int64_t r, const uint8_t* w, int64_t first, int64_t panels, int64_t n = 0) {
  for (; n + N <= panels; n += N)
    product_tile<P, R, N>(a.x + r * a.x_stride, a.x_stride, w + n * kLanes * kLayoutOf<P>.plain_bytes * kLayoutOf<P>.step, panels, plain_steps(kLayoutOf<P>, a.inner),
                          a.y + r * a.y_stride + first + n * kLanes, a.y_stride, a.outputs - first - n * kLanes);
  if constexpr (N > 1) product_rows<P, R, N / 2>(a, r, w, first, panels, n);
}

// The rows from row `r` on, R at most.
template <Packing P, int R>
void product_rest(const Matmul& a, int64_t r, const uint8_t* w, int64_t first, int64_t panels) {
  if constexpr (R > 0) {
    if (a.rows - r == R) product_rows<P, R>(a, r, w, first, panels);
    else product_rest<P, R - 1>(a, r, w, first, panels);
  }
}

template <Packing P>
__attribute__((noinline)) void product_groups(const Matmul& a) {
  constexpr int kRows = tile_rows(P);
  for (int64_t group = a.group_begin; group < a.group_end; ++group) {
    const int64_t first = group * kGroup, panels = min64(kGroup, a.outputs - first + kLanes - 1) / kLanes;
    const uint8_t* const w = a.packed + first * plain_output_bytes(kLayoutOf<P>, a.inner);
    int64_t r = 0;
    for (; r + kRows <= a.rows; r += kRows) product_rows<P, kRows>(a, r, w, first, panels);
    product_rest<P, kRows - 1>(a, r, w, first, panels);
  }
}

