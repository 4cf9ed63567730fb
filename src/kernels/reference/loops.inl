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

float bits_value(unsigned bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

float bf16_value(const uint8_t* from) { return bits_value(static_cast<unsigned>(from[0]) << 16 | static_cast<unsigned>(from[1]) << 24); }

float f16_value(const uint8_t* from) {
  const unsigned half = static_cast<unsigned>(from[0]) | static_cast<unsigned>(from[1]) << 8;
  const unsigned sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
  if (exponent == 31) return bits_value(sign | 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0u));  // NaN: a quiet one
  if (exponent > 0) return bits_value(sign | (exponent + 112) << 23 | fraction << 13);
  const float value = static_cast<float>(fraction) * 5.9604644775390625e-08f;  // 2^−24, exact
  return sign ? -value : value;
}

float plain_value(Packing packing, const uint8_t* group, int64_t at) {
  if (packing == Packing::f16) return f16_value(group + at * 2);
  float value;
  __builtin_memcpy(&value, group + at * 4, sizeof value);
  return value;
}

// acc + x0·w0 + x1·w1 of two pairs of bf16.
float add_pair(float acc, unsigned x, unsigned w) {
  acc = fma(bits_value(x & 0xffff0000u), bits_value(w & 0xffff0000u), acc);
  return fma(bits_value(x << 16), bits_value(w << 16), acc);
}

#include "kernels/cpu/round_rows.inl"

__attribute__((noinline)) void add_products(const Matmul& a, const float* x, const uint8_t* w, int64_t width, int64_t used, float* acc) {
  const int64_t steps = plain_steps(kLayouts[static_cast<int>(a.packing)], a.inner);
  for (int64_t k = 0; k < steps; ++k)
    for (int64_t n = 0; n < used; ++n) {
      if (a.packing != Packing::bf16) {
        acc[n] = fma(x[k], plain_value(a.packing, w, k * width + n), acc[n]);
        continue;
      }
      unsigned inputs, weights;
      __builtin_memcpy(&inputs, x + k, sizeof inputs);
      __builtin_memcpy(&weights, w + (k * width + n) * 4, sizeof weights);
      acc[n] = add_pair(acc[n], inputs, weights);
    }
}

void matmul(const Matmul& a) {
  for (int64_t group = a.group_begin; group < a.group_end; ++group) {
    const int64_t first = group * kGroup;
    const int64_t left = a.outputs - first, used = left < kGroup ? left : kGroup;
    const int64_t width = (used + kLanes - 1) / kLanes * kLanes;
    const uint8_t* const w = a.packed + first * plain_output_bytes(kLayouts[static_cast<int>(a.packing)], a.inner);  // [steps][width]
    for (int64_t r = 0; r < a.rows; ++r) {
      const float* const x = a.x + r * a.x_stride;
      float* const y = a.y + r * a.y_stride + first;
      float acc[kGroup] = {};
      if (a.packing == Packing::bf16) {
        const FlushSubnormals flush;
        add_products(a, x, w, width, used, acc);
      } else {
        add_products(a, x, w, width, used, acc);
      }
      for (int64_t n = 0; n < used; ++n) y[n] = acc[n];
      count(used * a.inner);
    }
  }
}

// Of the magnitudes' bits: as numbers, and NaN above infinity above all.
float greatest_magnitude(const float* x, int64_t n) {
  unsigned greatest = 0;
  for (int64_t i = 0; i < n; ++i) {
    unsigned bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7fffffffu;
    greatest = bits > greatest ? bits : greatest;
  }
  float most;
  __builtin_memcpy(&most, &greatest, sizeof most);
  return most;
}

void quantize_rows(const float* x, int64_t x_stride, int64_t rows, int64_t width, const QuantizedRows& to) {
  for (int64_t r = 0; r < rows; ++r, x += x_stride)
    for (int64_t b = 0; b < to.blocks; ++b) {
      const int64_t first = b * kBlock, count = width - first < kBlock ? width - first : kBlock;
      int8_t* const codes = to.codes + (r * to.blocks + b) * kBlock;
      const float most = greatest_magnitude(x + first, count);
      const bool usable = most >= kLeastQuantized && most < __builtin_inff();
      const float inverse = usable ? 127.0f / most : 0.0f;
      int32_t* const half_sum = to.half_sum + (r * to.blocks + b) * 2;
      half_sum[0] = half_sum[1] = 0;
      for (int64_t i = 0; i < kBlock; ++i) {
        codes[i] = usable && i < count ? static_cast<int8_t>(__builtin_rintf(x[first + i] * inverse)) : int8_t{0};
        half_sum[i / 16] += codes[i];
      }
      to.scale[r * to.blocks + b] = usable ? most / 127.0f : most < kLeastQuantized ? 0.0f : __builtin_nanf("");
    }
}

// What a block of one output of a group holds, as pack.h lays it out.
int32_t code_of(const Layout& l, const uint8_t* record, int64_t width, int64_t n, int64_t k) {
  const int64_t step = k / 4, byte = n * 4 + k % 4;
  if (l.low_bits == 8) return record[step * width * 4 + byte];
  const int32_t half = step % 2 == 0 ? 0 : 4;  // bits below it, in both
  const int32_t low = record[step / 2 * width * 4 + byte] >> half & 15;
  if (l.high_bits == 0) return low;
  const int64_t bits_before = step / 2 * l.high_bits, word = bits_before / 4;
  const int32_t high = record[(l.low_bytes + word * 4) * width + byte] >> (half + bits_before % 4) & ((1 << l.high_bits) - 1);
  return high * 16 + low;
}
// Scale `part`, or the minimum (part = scales), of a block: f16, or i8 times the f16 of the head, which is exact.
float scale_of(const Layout& l, const uint8_t* head, const uint8_t* record, int64_t width, int64_t n, int64_t part) {
  const uint8_t* const at = record + l.code_bytes * width;
  if (!l.two_levels) return f16_value(at + (part * width + n) * 2);
  return f16_value(head + ((part == l.scales) * width + n) * 2) * static_cast<float>(static_cast<int8_t>(at[part * width + n]));
}

void quantized_matmul(const QuantizedMatmul& a) {
  const Layout& l = kLayouts[static_cast<int>(a.packing)];
  const int64_t elements = kBlock / l.scales;  // that share a scale
  for (int64_t group = a.group_begin; group < a.group_end; ++group) {
    const int64_t first = group * kGroup;
    const int64_t left = a.outputs - first, used = left < kGroup ? left : kGroup;
    const int64_t width = (used + kLanes - 1) / kLanes * kLanes;
    const uint8_t* const w = a.packed + first * quantized_bytes(l, a.x.blocks);
    for (int64_t r = 0; r < a.rows; ++r) {
      float* const y = a.y + r * a.y_stride + first;
      for (int64_t n = 0; n < used; ++n) {
        float acc = 0;
        for (int64_t b = 0; b < a.x.blocks; ++b) {
          const uint8_t* const head = w + quantized_bytes(l, b / kSuperBlock * kSuperBlock) * width;
          const uint8_t* const record = head + (l.head_bytes + b % kSuperBlock * l.record_bytes) * width;
          const int8_t* const x = a.x.codes + (r * a.x.blocks + b) * kBlock;
          const float x_scale = a.x.scale[r * a.x.blocks + b];
          for (int64_t part = 0; part < l.scales; ++part) {
            int32_t dot = 0;
            for (int64_t k = part * elements; k < (part + 1) * elements; ++k) dot += x[k] * (code_of(l, record, width, n, k) - l.offset);
            acc = fma(static_cast<float>(dot), scale_of(l, head, record, width, n, part) * x_scale, acc);
          }
          const int32_t* const sums = a.x.half_sum + (r * a.x.blocks + b) * 2;
          if (l.minimum) acc = fma(scale_of(l, head, record, width, n, l.scales), x_scale * static_cast<float>(sums[0] + sums[1]), acc);
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

void scaled_add(const float* x, const float* a, float g, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = fma(g, a[i], x[i]);
}

// --- attention -----------------------------------------------------------------------------------------------------

unsigned f16_bits(float value) {
  unsigned bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const unsigned sign = bits >> 16 & 0x8000u, a = bits & 0x7fffffffu;
  if (a > 0x7f800000u) return sign | 0x7e00u | (a >> 13 & 0x3ffu);  // NaN: a quiet one
  if (a >= 0x477ff000u) return sign | 0x7c00u;                      // 65520 and above
  if (a >= 0x38800000u) {                                           // 2^−14: normal
    const unsigned rebased = a - (112u << 23);
    return sign | (rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13;
  }
  // Below, a whole number of 2^−24: f32 rounds it, with 2^23 added, to the same even.
  const float whole = bits_value(a) * 16777216.0f + 8388608.0f;
  __builtin_memcpy(&bits, &whole, sizeof bits);
  return sign | (bits & 0x7fffu);
}

unsigned bf16_bits(float value) {
  unsigned bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return nearest_bf16(bits);
}

void put16(unsigned bits, uint8_t* to) { to[0] = static_cast<uint8_t>(bits), to[1] = static_cast<uint8_t>(bits >> 8); }

// A key, or value, of one head: element i goes to at(i), of q8_0 the scale of block b to scale(b), and code 0 is `zero_code`.
template <class At, class Scale>
void store_vector(KvType type, const float* x, int64_t n, int zero_code, At at, Scale scale) {
  if (type != KvType::q8_0) {
    for (int64_t i = 0; i < n; ++i) {
      if (type == KvType::f32) __builtin_memcpy(at(i), x + i, 4);
      else put16(type == KvType::f16 ? f16_bits(x[i]) : bf16_bits(x[i]), at(i));
    }
    return;
  }
  for (int64_t first = 0; first < n; first += kKvBlock) {
    const int64_t count = n - first < kKvBlock ? n - first : kKvBlock;
    const float most = greatest_magnitude(x + first, count);
    const bool usable = most >= kLeastQuantized && most < kMostStored;
    const float inverse = usable ? 127.0f / most : 0.0f;
    put16(usable ? f16_bits(most / 127.0f) : most < kLeastQuantized ? 0u : 0x7e00u, scale(first / kKvBlock));
    for (int64_t i = 0; i < count; ++i) *at(first + i) = static_cast<uint8_t>(zero_code + (usable ? static_cast<int>(__builtin_rintf(x[first + i] * inverse)) : 0));
  }
}

// Of a head's keys or values in a page: bytes of an element, and where the scales begin.
int64_t stored_bytes(KvType type) { return type == KvType::f32 ? 4 : type == KvType::q8_0 ? 1 : 2; }
int64_t scales_of(int64_t head_dim) { return kLanes * head_dim; }
// Elements of a key or value column, of q8_0 by fours.
int64_t key_at(KvType type, int64_t slot, int64_t d, int64_t head_dim) {
  if (type != KvType::q8_0) return d * kLanes + slot;
  const int64_t first = d / 4 * 4, width = head_dim - first < 4 ? head_dim - first : 4;
  return first * kLanes + slot * width + d - first;
}
int64_t value_at(KvType type, int64_t slot, int64_t d, int64_t head_dim) {
  const int64_t panel = d / kLanes * kLanes, width = head_dim - panel < kLanes ? head_dim - panel : kLanes;
  if (type != KvType::q8_0) return panel * kLanes + slot * width + d - panel;
  return panel * kLanes + (slot / 4 * width + d - panel) * 4 + slot % 4;
}

void store_slot(const StoreSlot& a) {
  const int64_t D = a.head_dim, bytes = stored_bytes(a.type), head_bytes = kLanes * kv_bytes(a.type, D);
  for (int64_t g = 0; g < a.kv_heads; ++g) {
    uint8_t* const keys = a.page + g * head_bytes;
    uint8_t* const values = a.page + (a.kv_heads + g) * head_bytes;
    const auto scale = [&](uint8_t* head) { return [&, head](int64_t block) { return head + scales_of(D) + (block * kLanes + a.slot) * 2; }; };
    store_vector(a.type, a.key + g * D, D, 128, [&](int64_t d) { return keys + key_at(a.type, a.slot, d, D) * bytes; }, scale(keys));
    store_vector(a.type, a.value + g * D, D, 0, [&](int64_t d) { return values + value_at(a.type, a.slot, d, D) * bytes; }, scale(values));
  }
}

// Element `at` of a head's keys or values: exact.
float stored_value(KvType type, const uint8_t* head, int64_t at) {
  if (type == KvType::f16) return f16_value(head + at * 2);
  if (type == KvType::bf16) return bf16_value(head + at * 2);
  float value;
  __builtin_memcpy(&value, head + at * 4, sizeof value);
  return value;
}
float stored_scale(const uint8_t* head, int64_t slot, int64_t d, int64_t head_dim) { return f16_value(head + scales_of(head_dim) + (d / kKvBlock * kLanes + slot) * 2); }

int64_t score_stride(const Attend& a) { return (a.visible[a.count - 1] + kLanes - 1) / kLanes * kLanes; }

void attend_scores(const Attend& a, int64_t page_begin, int64_t page_end) {
  for (int64_t q = 0; q < a.count; ++q)
    for (int64_t j = page_begin * kLanes; j < page_end * kLanes && j < a.visible[q]; ++j) {
      const uint8_t* const keys = a.pages[j / kLanes] + a.key_offset;
      float acc = 0;
      for (int64_t d = 0; d < a.head_dim; ++d) acc = fma(a.queries[q][d], stored_value(a.type, keys, key_at(a.type, j % kLanes, d, a.head_dim)), acc);
      a.scores[q * score_stride(a) + j] = acc * a.scale;
      count(a.head_dim);
    }
}

// n ≤ 64 numbers as whole ones, of which `codes` stands for the greatest; returns what stands for 1.
float whole_numbers(const float* x, int64_t n, float codes, int* to) {
  const float most = greatest_magnitude(x, n);
  const bool usable = most >= kLeastQuantized && most < __builtin_inff();
  for (int64_t i = 0; i < n; ++i) to[i] = usable ? static_cast<int>(__builtin_rintf(x[i] * (codes / most))) : 0;
  return usable ? most / codes : most < kLeastQuantized ? 0.0f : __builtin_nanf("");
}

void attend_code_scores(const Attend& a, int64_t page_begin, int64_t page_end) {
  const int64_t D = a.head_dim;
  for (int64_t q = 0; q < a.count; ++q)
    for (int64_t j = page_begin * kLanes; j < page_end * kLanes && j < a.visible[q]; ++j) {
      const uint8_t* const keys = a.pages[j / kLanes] + a.key_offset;
      float acc = 0;
      for (int64_t first = 0; first < D; first += kKvBlock) {
        const int64_t n = D - first < kKvBlock ? D - first : kKvBlock;
        int query[kKvBlock], part = 0;
        const float scale = whole_numbers(a.queries[q] + first, n, kQueryCodes, query);
        for (int64_t i = 0; i < n; ++i) part += query[i] * (keys[key_at(a.type, j % kLanes, first + i, D)] - 128);
        acc = fma(static_cast<float>(part), stored_scale(keys, j % kLanes, first, D) * scale, acc);
      }
      a.scores[q * score_stride(a) + j] = acc * a.scale;
      count(D);
    }
}

void attend_softmax(const Attend& a, int64_t query_begin, int64_t query_end) {
  for (int64_t q = query_begin; q < query_end; ++q) {
    float* const p = a.scores + q * score_stride(a);
    float greatest = -__builtin_inff();
    for (int64_t j = 0; j < a.visible[q]; ++j) greatest = p[j] > greatest ? p[j] : greatest;
    Lanes sum;
    for (int64_t j = 0; j < a.visible[q]; ++j) {
      p[j] = exp_one(p[j] - greatest);
      sum.lane[j % kLanes] += p[j];
    }
    a.inverse[q] = 1.0f / sum.sum();
  }
}

void attend_values(const Attend& a, int64_t first, int64_t last) {
  for (int64_t q = 0; q < a.count; ++q) {
    const float* const p = a.scores + q * score_stride(a);
    for (int64_t d = first; d < last; ++d) {
      float acc = 0;
      for (int64_t j = 0; j < a.visible[q]; ++j)
        acc = fma(p[j], stored_value(a.type, a.pages[j / kLanes] + a.value_offset, value_at(a.type, j % kLanes, d, a.head_dim)), acc);
      a.outputs[q][d] = acc * a.inverse[q];
      count(a.visible[q]);
    }
  }
}

void attend_code_values(const Attend& a, int64_t first, int64_t last) {
  const auto values = [&](int64_t j) { return a.pages[j / kLanes] + a.value_offset; };
  for (int64_t q = 0; q < a.count; ++q) {
    const float* const p = a.scores + q * score_stride(a);
    for (int64_t d = first; d < last; ++d) {
      float acc = 0;
      for (int64_t from = 0; from < a.visible[q]; from += kWeightSlots) {
        const int64_t n = a.visible[q] - from < kWeightSlots ? a.visible[q] - from : kWeightSlots;
        float weight[kWeightSlots];
        int code[kWeightSlots], part = 0;
        for (int64_t i = 0; i < n; ++i) weight[i] = p[from + i] * stored_scale(values(from + i), (from + i) % kLanes, d, a.head_dim);
        const float scale = whole_numbers(weight, n, kWeightCodes, code);
        for (int64_t i = 0; i < n; ++i) part += code[i] * static_cast<int8_t>(values(from + i)[value_at(a.type, (from + i) % kLanes, d, a.head_dim)]);
        acc = fma(static_cast<float>(part), scale, acc);
      }
      a.outputs[q][d] = acc * a.inverse[q];
      count(a.visible[q]);
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

constexpr Kernels kTable{Isa::reference, "reference", matmul, quantized_matmul, round_rows, quantize_rows, dot, rms_norm, rope, silu_mul, silu, add, scaled_add,
                         store_slot, attend_scores, attend_code_scores, attend_softmax, attend_values, attend_code_values, log_sum_exp, exp_shifted, argmax};
