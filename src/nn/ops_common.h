// What the files of operators share: pointers by type, rows split over threads, products of matrices. Internal.
#pragma once
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "nn/kernels.h"
#include "nn/ops.h"

namespace fathom::nn {

// Calls body with a null pair of pointers whose types are those of the parameters and activations.
template <class Body>
decltype(auto) dispatch(at::ScalarType parameters, at::ScalarType activations, const Body& body) {
  if (parameters == at::kDouble) return body(static_cast<double*>(nullptr), static_cast<double*>(nullptr));
  FATHOM_ASSERT(parameters == at::kFloat, "parameters are f32 or f64");
  if (activations == at::kBFloat16) return body(static_cast<float*>(nullptr), static_cast<Bf16*>(nullptr));
  return body(static_cast<float*>(nullptr), static_cast<float*>(nullptr));
}

template <class X>
X* pointer(const at::Tensor& t) {
  return t.defined() ? static_cast<X*>(const_cast<void*>(t.const_data_ptr())) : nullptr;
}

// body(slot, begin, end) over rows in as many slots as there are threads, always the same ones: sums that are kept per slot
// and added in order do not depend on which thread took one.
template <class Body>
void parallel_rows(int64_t rows, const Body& body) {
  const int64_t slots = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), rows / 16));
  at::parallel_for(0, slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) body(s, rows * s / slots, rows * (s + 1) / slots);
  });
}
inline int64_t row_slots() { return std::max<int64_t>(1, at::get_num_threads()); }

// Things that are no tensors, kept for the backward.
template <class T>
struct Kept final : torch::CustomClassHolder {
  explicit Kept(T v) : value(std::move(v)) {}
  T value;
};
template <class T>
void keep(torch::autograd::AutogradContext* ctx, T value) {
  ctx->saved_data["kept"] = at::IValue::make_capsule(c10::make_intrusive<Kept<T>>(std::move(value)));
}
template <class T>
const T& kept(torch::autograd::AutogradContext* ctx) {
  return static_cast<const Kept<T>*>(ctx->saved_data.at("kept").toCapsule().get())->value;
}

// x [N, I] · Wᵀ, with what adapters and biases add.
at::Tensor product(const at::Tensor& x, const Weight& w);
// The same backwards: dx, and of the adapters dy · b side by side, for the gradient of a.
struct InputGradient {
  at::Tensor dx, low;  // [N, I], [N, Σr] or undefined
};
InputGradient product_backward(const at::Tensor& dy, const Weight& w);
// Appends the gradients of w.leaves() from the product's dy and x, in the leaves' type; undefined where none is required.
void push_weight_gradients(torch::autograd::variable_list& out, const Weight& w, const at::Tensor& dy, const at::Tensor& x, const at::Tensor& low);
bool trains(const Weight& w);  // whether a part itself requires a gradient
// Of a gradient dw [O, I] that is there already.
void push_part_gradients(torch::autograd::variable_list& out, const Weight& w, const at::Tensor& dw);

struct NormContext {  // what a norm's forward leaves for its backward
  at::Tensor h, rstd, norm;
};

}  // namespace fathom::nn
