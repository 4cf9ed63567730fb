// All kernels but the product, written once over V16, sixteen f32 lanes that each ISA's file defines before it includes
// this one (one zmm, two ymm). The arithmetic is that of README.md, operation by operation.
//
// V16 operations: zero, set1, load, load_first(n), store, store_first(n), add, sub, mul, div, negate, fma, greater_of
// (a > b ? a : b), tail_select(n, a, b) (a in lanes < n), exp, sum (the tree); MaxTracker for argmax. Of pages: load_halves,
// load_bf16, store_halves, store_bf16, store_codes, half_of, greatest_magnitude; of q8_0 dot_bytes, store_digits.

float dot(const float* a, const float* b, int64_t n) {
  V16 acc = zero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) acc = fma(load(a + i), load(b + i), acc);
  if (i < n) acc = tail_select(n - i, fma(load_first(a + i, n - i), load_first(b + i, n - i), acc), acc);
  return sum(acc);
}

void rms_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, float eps, float* y,
              int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r, x += x_stride, y += y_stride) {
    const float inv = 1.0f / __builtin_sqrtf(dot(x, x, width) / static_cast<float>(width) + eps);
    const V16 scale = set1(inv);
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) {
      const V16 u = mul(load(x + i), scale);
      store(y + i, weight ? mul(u, load(weight + i)) : u);
    }
    if (const int64_t left = width - i; left > 0) {
      const V16 u = mul(load_first(x + i, left), scale);
      store_first(y + i, left, weight ? mul(u, load_first(weight + i, left)) : u);
    }
  }
}

void rope(float* x, int64_t heads, int64_t head_dim, const float* cosine, const float* sine) {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < heads; ++h, x += head_dim) {
    float* const y = x + half;
    int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      const V16 a = load(x + i), b = load(y + i), c = load(cosine + i), s = load(sine + i);
      store(x + i, fma(a, c, negate(mul(b, s))));
      store(y + i, fma(b, c, mul(a, s)));
    }
    if (const int64_t left = half - i; left > 0) {
      const V16 a = load_first(x + i, left), b = load_first(y + i, left);
      const V16 c = load_first(cosine + i, left), s = load_first(sine + i, left);
      store_first(x + i, left, fma(a, c, negate(mul(b, s))));
      store_first(y + i, left, fma(b, c, mul(a, s)));
    }
  }
}

V16 silu_lanes(V16 x) { return div(x, add(set1(1.0f), exp(negate(x)))); }

void silu_mul(const float* gate, const float* up, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, mul(silu_lanes(load(gate + i)), load(up + i)));
  if (const int64_t left = n - i; left > 0)
    store_first(y + i, left, mul(silu_lanes(load_first(gate + i, left)), load_first(up + i, left)));
}

void silu(const float* x, const float* bias, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, silu_lanes(add(load(x + i), load(bias + i))));
  if (const int64_t left = n - i; left > 0)
    store_first(y + i, left, silu_lanes(add(load_first(x + i, left), load_first(bias + i, left))));
}

void add(const float* x, const float* a, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, add(load(x + i), load(a + i)));
  if (const int64_t left = n - i; left > 0) store_first(y + i, left, add(load_first(x + i, left), load_first(a + i, left)));
}

void scaled_add(const float* x, const float* a, float g, int64_t n, float* y) {
  const V16 gate = set1(g);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, fma(gate, load(a + i), load(x + i)));
  if (const int64_t left = n - i; left > 0) store_first(y + i, left, fma(gate, load_first(a + i, left), load_first(x + i, left)));
}

float greatest(const float* x, int64_t n) {
  const float lowest = -__builtin_inff();
  V16 most = set1(lowest), others[3] = {most, most, most};  // each waits for itself alone
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    most = greater_of(load(x + i), most);
    for (int64_t j = 0; j < 3; ++j) others[j] = greater_of(load(x + i + (j + 1) * kLanes), others[j]);
  }
  for (const V16& other : others) most = greater_of(other, most);
  for (; i + kLanes <= n; i += kLanes) most = greater_of(load(x + i), most);
  if (i < n) most = tail_select(n - i, greater_of(load_first(x + i, n - i), most), most);
  float lane[kLanes], best = lowest;
  store(lane, most);
  for (int64_t j = 0; j < kLanes; ++j) best = lane[j] > best ? lane[j] : best;
  return best;
}

double log_sum_exp(const float* x, int64_t n) {
  const float most = greatest(x, n);
  const V16 shift = set1(most);
  double total = 0;
  for (int64_t tile = 0; tile < n; tile += kSumTile) {
    const int64_t end = min64(tile + kSumTile, n);
    V16 acc = zero();
    int64_t i = tile;
    for (; i + kLanes <= end; i += kLanes) acc = add(acc, exp(sub(load(x + i), shift)));
    if (i < end) acc = tail_select(end - i, add(acc, exp(sub(load_first(x + i, end - i), shift))), acc);
    total += sum(acc);
  }
  return most + __builtin_log(total);
}

void exp_shifted(const float* x, float shift, int64_t n, float* y) {
  const V16 by = set1(shift);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, exp(sub(load(x + i), by)));
  if (const int64_t left = n - i; left > 0) store_first(y + i, left, exp(sub(load_first(x + i, left), by)));
}

int64_t argmax(const float* x, int64_t n) {
  MaxTracker track;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) track.see(load(x + i), static_cast<int>(i));
  float value[kLanes], best = -__builtin_inff();
  int block[kLanes];
  track.write(value, block);
  int64_t at = 0;
  for (int64_t j = 0; j < kLanes; ++j)
    if (value[j] > best || (value[j] == best && value[j] > -__builtin_inff() && block[j] + j < at))
      best = value[j], at = block[j] + j;
  for (; i < n; ++i)
    if (x[i] > best) best = x[i], at = i;
  return at;
}
