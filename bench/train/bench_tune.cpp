// Our side of the benchmark of tuning, one process = one row; same model and steps as tune_pytorch.py, which has the same flags:
//   bench_tune --route mkl|onednn --compute f32|bf16 --rows B --tokens T --lora RANK --teacher K --bias X --threads N --steps N --warmup N
// Prints one JSON line.
#include <sys/resource.h>

#include <time.h>

#include <chrono>
#include <cmath>
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

// Of all threads: less disturbed by a busy machine than the clock.
double process_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// SmolLM2-135M, all blocks but the first and the last with a light path of rank 64.
model::ModelConfig smollm2() {
  model::ModelConfig c;
  c.vocab_size = 49152;
  c.hidden_size = 576;
  c.num_hidden_layers = 30;
  c.num_attention_heads = 9;
  c.num_key_value_heads = 3;
  c.head_dim = 64;
  c.intermediate_size = 1536;
  c.rope_theta = 1e5;
  c.tie_word_embeddings = true;
  for (int block = 1; block + 1 < 30; ++block)
    c.routing.units.push_back({.block = block, .capacity = 0.5, .paths = {.skip = false, .light = true}, .light_rank = 64});
  c.routing.kv = routing::KvPolicy::keep;
  c.routing.router_input = routing::RouterInput::normed;
  c.routing.router_bias = true;
  c.routing.forced_positions = 2;
  return c;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::map<std::string, std::string> flag = {{"route", "mkl"}, {"compute", "f32"}, {"rows", "2"}, {"tokens", "512"}, {"lora", "0"}, {"teacher", "0"},
                                               {"bias", "0"}, {"threads", "2"}, {"steps", "3"}, {"warmup", "1"}};
    for (int i = 1; i + 1 < argc; i += 2) {
      const std::string name = std::string(argv[i]).substr(2);
      if (!flag.contains(name)) throw UsageError("unknown flag --" + name);
      flag[name] = argv[i + 1];
    }
    at::set_num_threads(std::stoi(flag["threads"]));
    nn::use_f32_route(nn::f32_route_from(flag["route"]));
    const int64_t B = std::stoi(flag["rows"]), T = std::stoi(flag["tokens"]), k = std::stoi(flag["teacher"]);
    const model::ModelConfig config = smollm2();
    nn::Transformer model(config, at::kFloat, {.everything = false, .routers = true, .light = true, .lora = {.rank = std::stoi(flag["lora"]), .alpha = 2.0 * std::stod(flag["lora"])}});
    model.init(1);
    at::manual_seed(1);
    for (const nn::Parameter& p : model.parameters()) {
      at::NoGradGuard no_grad;
      Tensor tensor = p.tensor;
      if (p.router && p.matrix) tensor.normal_(0, 1 / std::sqrt(static_cast<double>(config.hidden_size)));
      else if (p.router) tensor.fill_(std::stod(flag["bias"]));
    }
    const Tensor data = at::randint(config.vocab_size, {4, B, T + 1}, at::kLong);
    nn::ForwardOptions options;
    options.pick = nn::Pick::straight_through;
    options.compute = nn::compute_from(flag["compute"]);
    options.budget.emplace().target = 0.5;
    options.aux = {{nn::kBudget, 1.0}};
    if (k > 0) {
      const int64_t apart = config.vocab_size / k;
      options.teacher.ids = (at::randint(apart, {B * T, k}, at::kLong) + at::arange(k) * apart).to(at::kInt);  // distinct
      options.teacher.log_probability = at::log_softmax(at::randn({B * T, k}), -1) + std::log(0.9);
      options.aux[nn::kDistillation] = 1.0;
    }
    std::vector<double> rates, cpu, forward;
    double loss = 0, share = 0;
    const int warmup = std::stoi(flag["warmup"]), count = warmup + std::stoi(flag["steps"]);
    for (int step = 0; step < count; ++step) {
      const auto start = Clock::now();
      const double start_cpu = process_seconds();
      const Tensor row = data[step % 4];
      nn::Batch batch;
      batch.tokens = row.narrow(1, 0, T).contiguous();
      batch.targets = row.narrow(1, 1, T).contiguous();
      {
        const auto result = model.forward(batch, options);
        const double f = std::chrono::duration<double>(Clock::now() - start).count();
        result.total.backward();
        loss = result.loss.item<double>();
        share = 0;
        for (const double s : result.shares) share += s / static_cast<double>(result.shares.size());
        if (step >= warmup) forward.push_back(f);
      }
      if (step >= warmup) {
        rates.push_back(static_cast<double>(B * T) / std::chrono::duration<double>(Clock::now() - start).count());
        cpu.push_back(process_seconds() - start_cpu);
      }
      at::NoGradGuard no_grad;
      for (const nn::Parameter& p : model.parameters()) {
        Tensor tensor = p.tensor;
        tensor.mul_(1.0);  // as an optimizer's step: bf16 copies follow
        tensor.mutable_grad().reset();
      }
    }
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    std::cout << Json{{"tokens_per_second", rates}, {"cpu_s", cpu}, {"forward_s", forward}, {"loss", loss}, {"share", share},
                      {"peak_mb", static_cast<double>(usage.ru_maxrss) / 1024.0}}.dump() << "\n";
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "bench_tune: " << e.what() << "\n";
    return 1;
  }
}
