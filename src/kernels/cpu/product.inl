// Products with weights that are plain numbers, written once over V16. Of each ISA: load_weights<P> (sixteen weights as f32, which is
// exact) and tile_panels(R), panels of a group that R rows take at a time, so that the sums fill the registers.

// R rows of x with N panels of a group of `panels`: R·N sums in registers, the weights read once for the R rows.
template <Packing P, int R, int N>
void product_tile(const float* x, int64_t x_stride, const uint8_t* w, int64_t panels, int64_t inner, float* y, int64_t y_stride, int64_t outputs) {
  constexpr int64_t kPanelBytes = kLayoutOf<P>.plain_bytes * kLanes;
  V16 acc[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) acc[r][n] = zero();
  const float* row[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) row[r] = x + r * x_stride;
  for (int64_t k = 0; k < inner; ++k, w += panels * kPanelBytes) {
    V16 weight[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) weight[n] = load_weights<P>(w + n * kPanelBytes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V16 value = set1(row[r][k]);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) acc[r][n] = fma(value, weight[n], acc[r][n]);
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
    product_tile<P, R, N>(a.x + r * a.x_stride, a.x_stride, w + n * kLanes * kLayoutOf<P>.plain_bytes, panels, a.inner,
                          a.y + r * a.y_stride + first + n * kLanes, a.y_stride, a.outputs - first - n * kLanes);
  if constexpr (N > 1) product_rows<P, R, N / 2>(a, r, w, first, panels, n);
}

constexpr int kRows = 6;

template <Packing P>
void product_groups(const Matmul& a) {
  for (int64_t group = a.group_begin; group < a.group_end; ++group) {
    const int64_t first = group * kGroup, panels = min64(kGroup, a.outputs - first + kLanes - 1) / kLanes;
    const uint8_t* const w = a.packed + first * a.inner * kLayoutOf<P>.plain_bytes;
    int64_t r = 0;
    for (; r + kRows <= a.rows; r += kRows) product_rows<P, kRows>(a, r, w, first, panels);
    switch (a.rows - r) {
      case 5: product_rows<P, 5>(a, r, w, first, panels); break;
      case 4: product_rows<P, 4>(a, r, w, first, panels); break;
      case 3: product_rows<P, 3>(a, r, w, first, panels); break;
      case 2: product_rows<P, 2>(a, r, w, first, panels); break;
      case 1: product_rows<P, 1>(a, r, w, first, panels); break;
    }
  }
}

void matmul(const Matmul& a) {
  switch (a.packing) {
    case Packing::bf16: return product_groups<Packing::bf16>(a);
    case Packing::f16: return product_groups<Packing::f16>(a);
    default: return product_groups<Packing::f32>(a);
  }
}
