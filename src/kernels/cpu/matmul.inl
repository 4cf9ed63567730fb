// The table's product over product.inl, for an ISA without an instruction for pairs of bf16: two fused multiply–adds, the odd one first.
// Each ISA defines Pairs {V16 even, odd} and split (of sixteen pairs).
#include "kernels/cpu/round_rows.inl"

template <Packing P>
inline auto broadcast(const float* x) {
  if constexpr (P == Packing::bf16) return split(set1(*x));
  else return set1(*x);
}
template <Packing P, class Weights>
inline V16 add_products(V16 acc, Weights w, Weights x) {
  if constexpr (P == Packing::bf16) return fma(x.even, w.even, fma(x.odd, w.odd, acc));
  else return fma(x, w, acc);
}

#include "kernels/cpu/product.inl"

void matmul(const Matmul& a) {
  switch (a.packing) {
    case Packing::bf16: {
      const FlushSubnormals flush;
      return product_groups<Packing::bf16>(a);
    }
    case Packing::f16: return product_groups<Packing::f16>(a);
    default: return product_groups<Packing::f32>(a);
  }
}
