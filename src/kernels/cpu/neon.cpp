// Kernels for the NEON that every aarch64 CPU has: a V16 is four registers.
#include <arm_neon.h>

#include "kernels/bf16.h"
#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

#include "kernels/cpu/neon.inl"

#include "kernels/cpu/block.inl"
#include "kernels/cpu/loops.inl"

// Two products of bytes fit in 16 bits: at most 2 · 127 · 128.
inline int32x4_t dot_bytes(int32x4_t acc, int32x4_t a, int8x16_t b) {
  const int16x8_t first = vmull_s8(vget_low_s8(bytes_of(a)), vget_low_s8(b)), last = vmull_high_s8(bytes_of(a), b);
  return vpadalq_s16(acc, vpaddq_s16(first, last));
}
inline I16 dot_bytes(I16 acc, I16 a, I16 b) {
  return wholes([](auto sum, auto x, auto y) { return dot_bytes(sum, x, bytes_of(y)); }, acc, a, b);
}
inline I16 dot4(I16 acc, I16 codes, Activations x) {
  return wholes([x](auto sum, auto code) { return dot_bytes(sum, code, x); }, acc, codes);
}
#include "kernels/cpu/attend_pages.inl"
#include "kernels/cpu/attend_codes.inl"
#include "kernels/cpu/attention.inl"

#include "kernels/cpu/quantized.inl"
#include "kernels/cpu/quantize_rows.inl"

struct Pairs {
  V16 even, odd;
};
inline Pairs split(V16 pairs) {
  return {floats([](auto x) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), 16)); }, pairs),
          floats([](auto x) { return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0xffff0000u))); }, pairs)};
}
template <Packing P>
inline auto load_weights(const uint8_t* p) {
  if constexpr (P == Packing::f16) return load_halves(p);
  else {
    const V16 four_bytes = floats([](auto x) { return vreinterpretq_f32_s32(x); }, load_bytes(p));
    if constexpr (P == Packing::f32) return four_bytes;
    else return split(four_bytes);
  }
}
// 6 × 1 sums of four registers and a weight: 28 of 32 registers, and one for rows.
constexpr int tile_panels(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }
constexpr int tile_rows(Packing packing) { return packing == Packing::bf16 ? 4 : 6; }

#include "kernels/cpu/matmul.inl"

constexpr Kernels kTable{Isa::neon, "neon", matmul, quantized_matmul, round_rows, quantize_rows, dot, rms_norm, rope, silu_mul, silu, add, scaled_add,
                         store_slot, attend_scores, code_scores, attend_softmax, attend_values, code_values, log_sum_exp, exp_shifted, argmax};

}  // namespace
const Kernels* const kNeon = &kTable;
}  // namespace fathom::kernels
