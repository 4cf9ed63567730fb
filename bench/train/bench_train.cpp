// Our side of the training benchmark, one process = one row; same model and steps as baseline.py:
//   bench_train --mod 0|1 --route mkl|onednn --compute f32|bf16 --threads N --steps N [--warmup N]
//   bench_train --roofline 1
// Prints one JSON line.
#include <sys/resource.h>

#include <time.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "core/error.h"
#include "core/json.h"
#include "nn/matmul.h"
#include "nn/transformer.h"

namespace {

using namespace fathom;
using at::Tensor;
using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Of all threads: less disturbed by a busy machine than the clock.
double process_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

model::ModelConfig config_of(bool mod) {
  model::ModelConfig c;
  c.vocab_size = 4096;
  c.hidden_size = 384;
  c.num_hidden_layers = 8;
  c.num_attention_heads = c.num_key_value_heads = 6;
  c.head_dim = 64;
  c.intermediate_size = 1024;
  if (mod)
    for (int block = 1; block < 8; block += 2) c.routing.units.push_back({block, 0.125});
  return c;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::map<std::string, std::string> flag = {{"mod", "0"}, {"route", "mkl"}, {"compute", "f32"}, {"threads", "2"}, {"steps", "6"}, {"warmup", "2"}, {"roofline", "0"}};
    for (int i = 1; i + 1 < argc; i += 2) {
      const std::string name = std::string(argv[i]).substr(2);
      if (!flag.contains(name)) throw UsageError("unknown flag --" + name);
      flag[name] = argv[i + 1];
    }
    at::set_num_threads(std::stoi(flag["threads"]));
    if (flag["roofline"] == "1") {
      const nn::MatmulReport r = nn::measure_matmul();
      std::cout << Json{{"mkl_gflops", r.mkl_gflops}, {"onednn_gflops", r.onednn_gflops}, {"bf16_gflops", r.bf16_gflops},
                        {"onednn_error", r.onednn_error}, {"text", r.text}}.dump() << "\n";
      return 0;
    }
    nn::use_f32_route(nn::f32_route_from(flag["route"]));
    const int64_t B = 16, T = 256;
    nn::Transformer model(config_of(flag["mod"] == "1"));
    model.init(1);
    std::vector<Tensor> parameters[2], first[2], second[2], steps[2];
    for (const auto& p : model.parameters()) {
      const int group = p.matrix ? 1 : 0;
      parameters[group].push_back(p.tensor);
      first[group].push_back(at::zeros_like(p.tensor));
      second[group].push_back(at::zeros_like(p.tensor));
      steps[group].push_back(at::zeros({}, at::kFloat));
    }
    at::manual_seed(1);
    const Tensor data = at::randint(4096, {8, B, T + 1}, at::kLong);
    nn::ForwardOptions options;
    options.compute = nn::compute_from(flag["compute"]);
    std::vector<double> rates, cpu, forward, backward, update;
    double loss = 0;
    const int warmup = std::stoi(flag["warmup"]), count = warmup + std::stoi(flag["steps"]);
    for (int step = 0; step < count; ++step) {
      const auto start = Clock::now();
      const double start_cpu = process_seconds();
      const Tensor row = data[step % 8];
      nn::Batch batch;
      batch.tokens = row.narrow(1, 0, T).contiguous();
      batch.targets = row.narrow(1, 1, T).contiguous();
      {
        const auto result = model.forward(batch, options);
        const double f = since(start);
        result.total.backward();
        const double b = since(start);
        at::NoGradGuard no_grad;
        for (int group : {0, 1}) {
          std::vector<Tensor> gradients;
          for (auto& p : parameters[group]) gradients.push_back(p.grad());
          for (auto& s : steps[group]) s.add_(1);
          at::_fused_adamw_(parameters[group], gradients, first[group], second[group], {}, steps[group], 3e-4, 0.9, 0.95, group == 1 ? 0.1 : 0.0, 1e-8,
                            false, false);
          for (auto& p : parameters[group]) p.unsafeGetTensorImpl()->bump_version();  // as train/optimizer.cpp does: bf16 copies follow
          for (auto& p : parameters[group]) p.mutable_grad().reset();
        }
        loss = result.loss.item<double>();
        if (step >= warmup) {
          forward.push_back(f);
          backward.push_back(b - f);
          update.push_back(since(start) - b);
        }
      }
      if (step >= warmup) {
        rates.push_back(static_cast<double>(B * T) / since(start));
        cpu.push_back(process_seconds() - start_cpu);
      }
    }
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    std::cout << Json{{"tokens_per_second", rates}, {"loss", loss}, {"peak_mb", static_cast<double>(usage.ru_maxrss) / 1024.0},
                      {"cpu_s", cpu}, {"forward_s", forward}, {"backward_s", backward}, {"update_s", update}}.dump() << "\n";
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "bench_train: " << e.what() << "\n";
    return 1;
  }
}
