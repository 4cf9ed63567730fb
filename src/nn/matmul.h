// How this machine's matrix products are computed. PyTorch sends f32 products to MKL, which is slow on some CPUs; oneDNN is
// reached by a precision setting whose name says bf16 but which computes true f32 on CPUs without AMX. So the error is
// measured, never assumed. One route and one compute type belong to a training run: a checkpoint keeps them, so that a
// resume computes the same bits.
#pragma once
#include <string>

#include "nn/transformer.h"

namespace fathom::nn {

enum class F32Route { mkl, onednn };

struct MatmulReport {
  double mkl_gflops = 0, onednn_gflops = 0, bf16_gflops = 0;  // at training's shape, all threads
  double onednn_error = 0;      // relative to f64, of a product of normal numbers; f32 itself has about 5e-7
  bool onednn_exact = false;    // its error is that of f32, not of bf16 (2e-3)
  F32Route route = F32Route::mkl;      // the faster one that is true f32
  Compute compute = Compute::f32;      // bf16 when its product is at least 1.5 times as fast as the chosen f32 route
  std::string text;             // one line to print
};

MatmulReport measure_matmul();          // about 0.2 s; sets nothing
void use_f32_route(F32Route route);     // process-wide
F32Route f32_route();

const char* name_of(F32Route route);            // "mkl", "onednn"
F32Route f32_route_from(const std::string& name);  // throws UserError
const char* name_of(Compute compute);           // "f32", "bf16"
Compute compute_from(const std::string& name);  // throws UserError

}  // namespace fathom::nn
