#include "train/computing.h"

#include <map>

#include <ATen/Parallel.h>
#include <torch/version.h>

#include "core/limits.h"
#include "core/log.h"
#include "core/thread_pool.h"

namespace fathom::train {
namespace {

std::string machine_name() {
  std::string processor = "unknown processor";
  const std::string text = exists("/proc/cpuinfo") ? read_file("/proc/cpuinfo", limits::kConfigBytes) : "";
  const size_t at = text.find("model name");
  if (at != std::string::npos) {
    const size_t from = text.find(": ", at) + 2;
    processor = text.substr(from, text.find('\n', from) - from);
  }
  return str(processor, ", ", at::get_cpu_capability(), ", LibTorch " TORCH_VERSION);
}

// Once per process and number of threads: several runs in one process measure the same machine.
nn::MatmulReport measured(int64_t threads) {
  static std::map<int64_t, nn::MatmulReport> reports;
  const auto it = reports.find(threads);
  return it != reports.end() ? it->second : reports.emplace(threads, nn::measure_matmul()).first->second;
}

}  // namespace

Computing settle_computing(Precision precision, Route route, const Identity* last, Identity& now, const std::string& run) {
  if (now.threads == 0) now.threads = last ? last->threads : available_threads();
  now.machine = machine_name();
  at::set_num_threads(static_cast<int>(now.threads));
  if (last && last->threads != now.threads)
    throw UserError({run, "threads", str(now.threads), str(last->threads, ", as in its last checkpoint"), ""});
  if (last && last->machine != now.machine)
    log_warning("the run was started on ", last->machine, " and goes on on ", now.machine, ": it continues, but not to the bit");
  Computing c{.matmul = measured(now.threads)};
  if (last) {
    c.compute = nn::compute_from(last->precision);
    nn::use_f32_route(nn::f32_route_from(last->f32_route));
  } else {
    c.compute = precision == Precision::f32 ? nn::Compute::f32 : precision == Precision::bf16 ? nn::Compute::bf16 : c.matmul.compute;
    nn::use_f32_route(route == Route::mkl ? nn::F32Route::mkl : route == Route::onednn ? nn::F32Route::onednn : c.matmul.route);
  }
  if (nn::f32_route() == nn::F32Route::onednn && !c.matmul.onednn_exact)
    throw UserError({join_path(run, "config.json"), "f32_route", "onednn", "mkl or auto on this machine",
                     str("here oneDNN rounds f32 products to bf16: relative error ", c.matmul.onednn_error)});
  now.precision = nn::name_of(c.compute);
  now.f32_route = nn::name_of(nn::f32_route());
  log_info(c.matmul.text);
  log_info("computing in ", now.precision, " with ", now.threads, now.threads == 1 ? " thread" : " threads", last ? ", as the run was started" : "");
  return c;
}

}  // namespace fathom::train
