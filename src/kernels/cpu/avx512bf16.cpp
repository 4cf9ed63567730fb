// Products with bf16 weights for AVX-512 with BF16, whose instruction adds the two products of a pair. All else is that of AVX-512 with VNNI.
#include <immintrin.h>

#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

#include "kernels/cpu/avx512.inl"

#include "kernels/cpu/block.inl"

template <Packing P>
inline V16 load_weights(const uint8_t* p) { return _mm512_loadu_ps(p); }
template <Packing P>
inline V16 broadcast(const float* x) { return set1(*x); }
// By hand, as the sums of the intrinsic are copied by GCC 12. It rounds after each of the two products, the odd one first, and knows no subnormals.
template <Packing P>
inline V16 add_products(V16 acc, V16 w, V16 x) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
  return acc;
}
constexpr int tile_panels(int) { return 4; }  // 6 × 4 sums, 4 weights, 1 broadcast: 29 of 32 registers
constexpr int tile_rows(Packing) { return 6; }

#include "kernels/cpu/product.inl"

void matmul(const Matmul& a) {
  if (a.packing == Packing::bf16) product_groups<Packing::bf16>(a);
  else kAvx512->matmul(a);
}

}  // namespace
void (*const kBf16Matmul)(const Matmul&) = matmul;
}  // namespace fathom::kernels
