// Rows of activations to codes and scales, over V16 and each ISA's greatest_magnitude and store_codes (quantized.inl reads
// what comes out).

void quantize_rows(const float* x, int64_t x_stride, int64_t rows, int64_t width, const QuantizedRows& to) {
  for (int64_t r = 0; r < rows; ++r, x += x_stride)
    for (int64_t b = 0; b < to.blocks; ++b) {
      const Block block = load_block(x + b * kBlock, width - b * kBlock);
      const float most = greatest_in(block);
      const int64_t at = r * to.blocks + b;
      if (most >= kLeastQuantized && most < __builtin_inff()) {
        const V16 inverse = set1(127.0f / most);
        store_codes(to.codes + at * kBlock, mul(block.lo, inverse), mul(block.hi, inverse), to.half_sum + at * 2);
        to.scale[at] = most / 127.0f;
      } else {
        store_codes(to.codes + at * kBlock, zero(), zero(), to.half_sum + at * 2);
        to.scale[at] = most < kLeastQuantized ? 0.0f : __builtin_nanf("");
      }
    }
}
