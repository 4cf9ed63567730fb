// Products with a joined weight and its adapters, and their gradients. What is frozen costs no product for its gradient, and an adapter's three
// factors are multiplied one by one: two products as thin as its rank beside that of the weight.
#include <algorithm>

#include "nn/ops_common.h"

namespace fathom::nn {

using at::Tensor;
using torch::autograd::variable_list;

Weight Weight::rows(size_t first_part, size_t count) const {
  Weight w;
  int64_t start = 0, n = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i < first_part) {
      start += parts[i].size(0);
    } else if (i < first_part + count) {
      n += parts[i].size(0);
      w.parts.push_back(parts[i]);
      if (!biases.empty()) w.biases.push_back(biases[i]);
      if (!adapters.empty()) w.adapters.push_back(adapters[i]);
    }
  }
  if (std::ranges::none_of(w.adapters, [](const Adapter& a) { return a.a.defined(); })) w.adapters.clear();
  w.joined = joined.narrow(0, start, n);
  if (bias.defined()) w.bias = bias.narrow(0, start, n);
  if (low.defined()) w.low = low.narrow(0, start, n);
  return w;
}

std::vector<Tensor> Weight::leaves() const {
  std::vector<Tensor> out = parts;
  out.insert(out.end(), biases.begin(), biases.end());
  for (const Adapter& adapter : adapters) {
    if (!adapter.a.defined()) continue;
    out.push_back(adapter.a);
    out.push_back(adapter.b);
  }
  return out;
}

bool trains(const Weight& w) {
  return std::ranges::any_of(w.parts, [](const Tensor& part) { return part.requires_grad(); });
}

namespace {

// body(adapter, first row of its part, the part's rows, first column among the adapters' rows side by side, rank)
template <class Body>
void each_adapter(const Weight& w, const Body& body) {
  int64_t row = 0, column = 0;
  for (size_t i = 0; i < w.adapters.size(); ++i) {
    const int64_t rows = w.parts[i].size(0);
    if (const Adapter& a = w.adapters[i]; a.a.defined()) {
      body(a, row, rows, column, a.a.size(0));
      column += a.a.size(0);
    }
    row += rows;
  }
}

Tensor in(const Tensor& leaf, at::ScalarType type) { return leaf.detach().to(type); }

// [Σr, I] scale · a of every adapter.
Tensor down_factors(const Weight& w, at::ScalarType type) {
  std::vector<Tensor> a;
  each_adapter(w, [&](const Adapter& adapter, auto...) { a.push_back(in(adapter.a.detach() * adapter.scale, type)); });
  return a.size() == 1 ? a[0] : at::cat(a);
}

}  // namespace

Tensor product(const Tensor& x, const Weight& w) {
  const at::ScalarType type = x.scalar_type();
  Tensor y = at::mm(x, w.as(type).t());
  if (w.bias.defined()) y.add_(in(w.bias, type));
  if (w.adapters.empty()) return y;
  const Tensor low = at::mm(x, down_factors(w, type).t());
  each_adapter(w, [&](const Adapter& a, int64_t row, int64_t rows, int64_t column, int64_t rank) {
    y.narrow(1, row, rows).addmm_(low.narrow(1, column, rank), in(a.b, type).t());
  });
  return y;
}

InputGradient product_backward(const Tensor& dy, const Weight& w) {
  const at::ScalarType type = dy.scalar_type();
  InputGradient out{at::mm(dy, w.as(type)), {}};
  if (w.adapters.empty()) return out;
  std::vector<Tensor> low;
  each_adapter(w, [&](const Adapter& a, int64_t row, int64_t rows, int64_t, int64_t) { low.push_back(at::mm(dy.narrow(1, row, rows), in(a.b, type))); });
  out.low = low.size() == 1 ? low[0] : at::cat(low, 1);
  out.dx.addmm_(out.low, down_factors(w, type));
  return out;
}

void push_part_gradients(variable_list& out, const Weight& w, const Tensor& dw) {
  int64_t start = 0;
  for (const Tensor& part : w.parts) {
    out.push_back(part.requires_grad() && dw.defined() ? dw.narrow(0, start, part.size(0)) : Tensor());
    start += part.size(0);
  }
}

void push_weight_gradients(variable_list& out, const Weight& w, const Tensor& dy, const Tensor& x, const Tensor& low) {
  const at::ScalarType own = w.joined.scalar_type();
  push_part_gradients(out, w, trains(w) ? at::mm(dy.t(), x).to(own) : Tensor());
  int64_t start = 0;
  for (const Tensor& bias : w.biases) {
    out.push_back(bias.requires_grad() ? dy.narrow(1, start, bias.size(0)).sum(0, false, own) : Tensor());
    start += bias.size(0);
  }
  if (w.adapters.empty()) return;
  const Tensor da = at::mm(low.t(), x).to(own), lowered = at::mm(x, down_factors(w, x.scalar_type()).t());
  each_adapter(w, [&](const Adapter& a, int64_t row, int64_t rows, int64_t column, int64_t rank) {
    out.push_back(da.narrow(0, column, rank) * a.scale);
    out.push_back(at::mm(dy.narrow(1, row, rows).t(), lowered.narrow(1, column, rank)).to(own));
  });
}

}  // namespace fathom::nn
