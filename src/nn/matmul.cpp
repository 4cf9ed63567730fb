#include "nn/matmul.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "core/error.h"
#include "nn/memory.h"

namespace fathom::nn {

namespace {

F32Route current_route = F32Route::mkl;

double seconds_of_product(const at::Tensor& a, const at::Tensor& w) {
  at::linear(a, w);
  double best = 1e30;
  for (int i = 0; i < 4; ++i) {
    const auto start = std::chrono::steady_clock::now();
    at::linear(a, w);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

void use_f32_route(F32Route route) {
  at::globalContext().setFloat32Precision(at::Float32Backend::MKLDNN, at::Float32Op::MATMUL,
                                          route == F32Route::onednn ? at::Float32Precision::BF16 : at::Float32Precision::IEEE);
  current_route = route;
}

F32Route f32_route() { return current_route; }

MatmulReport measure_matmul() {
  use_kept_memory();  // before the first product: what it keeps for each shape is set there
  at::NoGradGuard no_grad;
  const F32Route before = current_route;
  const int64_t m = 2048, k = 512, n = 1024;
  const double gflop = 2e-9 * static_cast<double>(m * k * n);
  const at::Tensor a = at::randn({m, k}, at::detail::createCPUGenerator(1)), w = at::randn({n, k}, at::detail::createCPUGenerator(2));
  MatmulReport report;
  use_f32_route(F32Route::mkl);
  report.mkl_gflops = gflop / seconds_of_product(a, w);
  use_f32_route(F32Route::onednn);
  report.onednn_gflops = gflop / seconds_of_product(a, w);
  const at::Tensor truth = at::linear(a.slice(0, 0, 128).to(at::kDouble), w.to(at::kDouble));
  const at::Tensor found = at::linear(a.slice(0, 0, 128), w).to(at::kDouble);
  report.onednn_error = ((found - truth).norm() / truth.norm()).item<double>();
  use_f32_route(before);
  report.bf16_gflops = gflop / seconds_of_product(a.to(at::kBFloat16), w.to(at::kBFloat16));

  // bf16 rounding would show as 2e-3; f32 summed in any order stays below 2e-6.
  const bool exact = report.onednn_exact = report.onednn_error < 5e-6;
  report.route = exact && report.onednn_gflops > report.mkl_gflops ? F32Route::onednn : F32Route::mkl;
  const double f32 = report.route == F32Route::onednn ? report.onednn_gflops : report.mkl_gflops;
  report.compute = report.bf16_gflops >= 1.5 * f32 ? Compute::bf16 : Compute::f32;
  char line[256];
  std::snprintf(line, sizeof line,
                "matrix products: f32 %.0f GFLOP/s (MKL %.0f, oneDNN %.0f with error %.1e%s), bf16 %.0f GFLOP/s, %d threads", f32,
                report.mkl_gflops, report.onednn_gflops, report.onednn_error, exact ? "" : ": rounds, not used",
                report.bf16_gflops, at::get_num_threads());
  report.text = line;
  return report;
}

const char* name_of(F32Route route) { return route == F32Route::mkl ? "mkl" : "onednn"; }

F32Route f32_route_from(const std::string& name) {
  if (name == "mkl") return F32Route::mkl;
  if (name == "onednn") return F32Route::onednn;
  throw UserError({.where = "f32 route", .field = "", .found = "\"" + printable(name) + "\"", .expected = "mkl or onednn", .hint = ""});
}

const char* name_of(Compute compute) { return compute == Compute::f32 ? "f32" : "bf16"; }

Compute compute_from(const std::string& name) {
  if (name == "f32") return Compute::f32;
  if (name == "bf16") return Compute::bf16;
  throw UserError({.where = "compute type", .field = "", .found = "\"" + printable(name) + "\"", .expected = "f32 or bf16", .hint = ""});
}

}  // namespace fathom::nn
