// The plain version of every kernel, exactly as README.md defines it. Compiled twice, because a fused multiply–add is a
// slow library call where the compiler may not assume the instruction: reference_plain.cpp runs anywhere,
// reference_fma.cpp on a CPU that has it. Only builtins and plain loops, so that nothing compiled for one CPU can be
// linked into code for another.

float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

float power_of_two(int n) {  // −126 ≤ n ≤ 127
  const unsigned bits = static_cast<unsigned>(n + 127) << 23;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

float exp_one(float x) {
  if (x != x) return x;
  if (x < -87.33654f) return 0.0f;
  if (x > 88.72283f) return __builtin_inff();
  const float n = __builtin_rintf(x * 1.44269504f);
  float r = fma(n, -0.693359375f, x);
  r = fma(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = fma(p, r, 1.3981999507e-3f);
  p = fma(p, r, 8.3334519073e-3f);
  p = fma(p, r, 4.1665795894e-2f);
  p = fma(p, r, 1.6666665459e-1f);
  p = fma(p, r, 5.0000001201e-1f);
  const float y = fma(p, r * r, r) + 1.0f;
  const int whole = static_cast<int>(n), half = whole >> 1;
  return (y * power_of_two(half)) * power_of_two(whole - half);
}

struct Lanes {
  float lane[kLanes] = {};
  float sum() {
    for (int half = 8; half >= 1; half /= 2)
      for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
    return lane[0];
  }
};

void matmul(const Matmul& a) {
  for (int64_t group = a.group_begin; group < a.group_end; ++group) {
    const int64_t first = group * kGroup;
    const int64_t left = a.outputs - first, used = left < kGroup ? left : kGroup;
    const int64_t width = (used + kLanes - 1) / kLanes * kLanes;
    const float* const w = a.packed + first * a.inner;  // [K][width]
    for (int64_t r = 0; r < a.rows; ++r) {
      const float* const x = a.x + r * a.x_stride;
      float* const y = a.y + r * a.y_stride + first;
      float acc[kGroup] = {};
      for (int64_t k = 0; k < a.inner; ++k)
        for (int64_t n = 0; n < used; ++n) acc[n] = fma(x[k], w[k * width + n], acc[n]);
      for (int64_t n = 0; n < used; ++n) y[n] = acc[n];
      count(used * a.inner);
    }
  }
}

float f16_value(const uint8_t* from) {
  unsigned half = static_cast<unsigned>(from[0]) | static_cast<unsigned>(from[1]) << 8;
  const unsigned sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
  unsigned bits = sign | (exponent + 112) << 23 | fraction << 13;
  if (exponent == 31) bits = sign | 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0u);  // NaN: a quiet one
  float value;
  if (exponent == 0) {
    value = static_cast<float>(fraction) * 5.9604644775390625e-08f;  // 2^−24, exact
    return sign ? -value : value;
  }
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

void quantize_rows(const float* x, int64_t x_stride, int64_t rows, int64_t width, const QuantizedRows& to) {
  for (int64_t r = 0; r < rows; ++r, x += x_stride)
    for (int64_t b = 0; b < to.blocks; ++b) {
      const int64_t first = b * kBlock, count = width - first < kBlock ? width - first : kBlock;
      int8_t* const codes = to.codes + (r * to.blocks + b) * kBlock;
      unsigned greatest = 0;  // of the magnitudes' bits: as numbers, and NaN above infinity above all
      for (int64_t i = 0; i < count; ++i) {
        unsigned bits;
        __builtin_memcpy(&bits, x + first + i, sizeof bits);
        bits &= 0x7fffffffu;
        greatest = bits > greatest ? bits : greatest;
      }
      float most;
      __builtin_memcpy(&most, &greatest, sizeof most);
      const bool usable = most >= kLeastQuantized && most < __builtin_inff();
      const float inverse = usable ? 127.0f / most : 0.0f;
      int32_t sum = 0;
      for (int64_t i = 0; i < kBlock; ++i) {
        codes[i] = usable && i < count ? static_cast<int8_t>(__builtin_rintf(x[first + i] * inverse)) : int8_t{0};
        sum += codes[i];
      }
      to.scale[r * to.blocks + b] = usable ? most / 127.0f : most < kLeastQuantized ? 0.0f : __builtin_nanf("");
      to.sum[r * to.blocks + b] = sum;
    }
}

void quantized_matmul(const QuantizedMatmul& a) {
  for (int64_t group = a.group_begin; group < a.group_end; ++group) {
    const int64_t first = group * kGroup;
    const int64_t left = a.outputs - first, used = left < kGroup ? left : kGroup;
    const int64_t width = (used + kLanes - 1) / kLanes * kLanes;
    const int64_t code_bytes = a.packing == Packing::q8 ? width * kBlock : width * kBlock / 2;
    const int64_t record = code_bytes + width * (a.packing == Packing::q4_min ? 4 : 2);
    const int32_t offset = a.packing == Packing::q8 ? 128 : a.packing == Packing::q4 ? 8 : 0;
    const uint8_t* const w = a.packed + quantized_group_offset(a.packing, first, a.x.blocks);
    for (int64_t r = 0; r < a.rows; ++r) {
      float* const y = a.y + r * a.y_stride + first;
      for (int64_t n = 0; n < used; ++n) {
        float acc = 0;
        for (int64_t b = 0; b < a.x.blocks; ++b) {
          const uint8_t* const block = w + b * record;
          const int8_t* const x = a.x.codes + (r * a.x.blocks + b) * kBlock;
          int32_t dot = 0;
          for (int64_t k = 0; k < kBlock; ++k) {
            const int64_t step = k / 4, byte = n * 4 + k % 4;
            const int32_t code = a.packing == Packing::q8 ? block[step * width * 4 + byte]
                                 : step % 2 == 0          ? block[step / 2 * width * 4 + byte] & 15
                                                          : block[step / 2 * width * 4 + byte] >> 4;
            dot += x[k] * (code - offset);
          }
          const float scale = a.x.scale[r * a.x.blocks + b];
          acc = fma(static_cast<float>(dot), f16_value(block + code_bytes + n * 2) * scale, acc);
          if (a.packing == Packing::q4_min)
            acc = fma(f16_value(block + code_bytes + width * 2 + n * 2),
                      scale * static_cast<float>(a.x.sum[r * a.x.blocks + b]), acc);
        }
        y[n] = acc;
      }
      count(used * a.x.blocks * kBlock);
    }
  }
}

float dot_uncounted(const float* a, const float* b, int64_t n) {
  Lanes sum;
  for (int64_t i = 0; i < n; ++i) sum.lane[i % kLanes] = fma(a[i], b[i], sum.lane[i % kLanes]);
  return sum.sum();
}

float dot(const float* a, const float* b, int64_t n) {
  count(n);
  return dot_uncounted(a, b, n);
}

void rms_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, float eps, float* y,
              int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r, x += x_stride, y += y_stride) {
    const float inv = 1.0f / __builtin_sqrtf(dot_uncounted(x, x, width) / static_cast<float>(width) + eps);
    for (int64_t i = 0; i < width; ++i) y[i] = weight ? (x[i] * inv) * weight[i] : x[i] * inv;
  }
}

void rope(float* x, int64_t heads, int64_t head_dim, const float* cosine, const float* sine) {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < heads; ++h, x += head_dim)
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = fma(a, cosine[i], -(b * sine[i]));
      x[i + half] = fma(b, cosine[i], a * sine[i]);
    }
}

float silu_one(float x) { return x / (1.0f + exp_one(-x)); }

void silu_mul(const float* gate, const float* up, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = silu_one(gate[i]) * up[i];
}

void silu(const float* x, const float* bias, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = silu_one(x[i] + bias[i]);
}

void add(const float* x, const float* a, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] + a[i];
}

void gated_add(const float* x, const float* a, const float* m, float g, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = fma(g, m[i], fma(g, a[i], x[i]));
}

void attend(const Attend& a) {
  for (int64_t q = 0; q < a.count; ++q) {
    const float* const query = a.queries[q];
    const int64_t visible = a.visible[q];
    float* const p = a.scratch;
    float greatest = -__builtin_inff();
    for (int64_t j = 0; j < visible; ++j) {
      const float* const key = a.pages[j / kLanes] + a.key_offset + j % kLanes;  // [D], stride 16
      float acc = 0;
      for (int64_t d = 0; d < a.head_dim; ++d) acc = fma(query[d], key[d * kLanes], acc);
      p[j] = acc * a.scale;
      greatest = p[j] > greatest ? p[j] : greatest;
      count(a.head_dim);
    }
    Lanes sum;
    for (int64_t j = 0; j < visible; ++j) {
      p[j] = exp_one(p[j] - greatest);
      sum.lane[j % kLanes] += p[j];
    }
    const float inv = 1.0f / sum.sum();
    float* const out = a.outputs[q];
    for (int64_t d = 0; d < a.head_dim; ++d) {
      float acc = 0;
      for (int64_t j = 0; j < visible; ++j)
        acc = fma(p[j], a.pages[j / kLanes][a.value_offset + j % kLanes * a.head_dim + d], acc);
      out[d] = acc * inv;
      count(visible);
    }
  }
}

double log_sum_exp(const float* x, int64_t n) {
  float greatest = -__builtin_inff();
  for (int64_t i = 0; i < n; ++i) greatest = x[i] > greatest ? x[i] : greatest;
  double total = 0;
  for (int64_t tile = 0; tile < n; tile += kSumTile) {
    const int64_t end = tile + kSumTile < n ? tile + kSumTile : n;
    Lanes sum;
    for (int64_t i = tile; i < end; ++i) sum.lane[i % kLanes] += exp_one(x[i] - greatest);
    total += sum.sum();
  }
  return greatest + __builtin_log(total);
}

void exp_shifted(const float* x, float shift, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = exp_one(x[i] - shift);
}

int64_t argmax(const float* x, int64_t n) {
  float greatest = -__builtin_inff();
  int64_t at = 0;
  for (int64_t i = 0; i < n; ++i)
    if (x[i] > greatest) greatest = x[i], at = i;
  return at;
}

constexpr Kernels kTable{Isa::reference, "reference", matmul, quantized_matmul, quantize_rows, dot, rms_norm, rope, silu_mul, silu, add, gated_add,
                         attend, log_sum_exp, exp_shifted, argmax};
