// Included by kernels_base/v3/v4.cpp, each with its own flags and FATHOM_ISA; never by anyone else. Everything is in an
// anonymous namespace and uses no library template, so that no function built for AVX-512 can be linked into another file.
#pragma once
#include "nn/kernels_attention_impl.h"
#include "nn/kernels_distill_impl.h"
#include "nn/kernels_rows_impl.h"

namespace fathom::nn {
namespace {

template <class P, class A>
constexpr Kernels<P, A> make_table(const char* isa) {
  return {isa, add_norm<P, A>, norm_backward<P, A>, swiglu<P, A>, swiglu_backward<P, A>, softmax_loss<P, A>, distill_loss<P, A>, score<P, A>,
          entrance_backward<P, A>, scatter<P, A>, scatter_backward<P, A>, attention_scratch<P>, attention<P, A>, attention_backward<P, A>};
}

}  // namespace

#define FATHOM_JOIN2(a, b) a##b
#define FATHOM_JOIN(a, b) FATHOM_JOIN2(a, b)
extern const Kernels<float, float> FATHOM_JOIN(kernels_f32_, FATHOM_ISA);
extern const Kernels<double, double> FATHOM_JOIN(kernels_f64_, FATHOM_ISA);
extern const Kernels<float, Bf16> FATHOM_JOIN(kernels_bf16_, FATHOM_ISA);
#define FATHOM_TEXT2(a) #a
#define FATHOM_TEXT(a) FATHOM_TEXT2(a)
constexpr Kernels<float, float> FATHOM_JOIN(kernels_f32_, FATHOM_ISA) = make_table<float, float>(FATHOM_TEXT(FATHOM_ISA));
constexpr Kernels<double, double> FATHOM_JOIN(kernels_f64_, FATHOM_ISA) = make_table<double, double>(FATHOM_TEXT(FATHOM_ISA));
constexpr Kernels<float, Bf16> FATHOM_JOIN(kernels_bf16_, FATHOM_ISA) = make_table<float, Bf16>(FATHOM_TEXT(FATHOM_ISA));

}  // namespace fathom::nn
