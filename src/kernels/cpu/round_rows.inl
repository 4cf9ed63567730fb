// Rows of activations to pairs of bf16: plain whole numbers, which a compiler turns into vectors.

void round_rows(const float* x, int64_t x_stride, int64_t rows, int64_t width, float* to) {
  const int64_t pairs = pair_count(width);
  for (int64_t r = 0; r < rows; ++r, x += x_stride, to += pairs) {
    for (int64_t i = 0; i < width / 2; ++i) {
      uint32_t two[2];
      __builtin_memcpy(two, x + 2 * i, sizeof two);
      const uint32_t pair = product_bf16(two[0]) | product_bf16(two[1]) << 16;
      __builtin_memcpy(to + i, &pair, sizeof pair);
    }
    if (width % 2 == 1) {
      uint32_t last;
      __builtin_memcpy(&last, x + width - 1, sizeof last);
      const uint32_t pair = product_bf16(last);
      __builtin_memcpy(to + pairs - 1, &pair, sizeof pair);
    }
  }
}
