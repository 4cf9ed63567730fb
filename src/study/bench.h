// The engine's speed beside this machine's measured limits: prompts and decoding, one thread count at a time, every model in
// turns in one window so that a slow moment meets all alike.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "formats/ggml_types.h"
#include "infer/forward.h"
#include "infer/policy.h"
#include "model/config.h"

namespace fathom::study {

// "llama-110m", "llama-1b", "smollm2-135m", or "C,L,H,G,F,V"; UserError names `where`. `routed` "" = dense, else
// "every-second:0.125" or "all-but-ends:0.25" (every block but the first and the last), and behind it, after colons, keys of
// config.json's "fathom" object: "every-second:0.125:paths=light,full:light_rank=64:granularity=attention+mlp".
model::ModelConfig bench_shape(const std::string& shape, const std::string& routed, int64_t positions, const std::string& where);

// Weights drawn from a seed, matrices of `type`; vectors, norms and routers f32.
std::shared_ptr<const infer::Weights> bench_weights(const model::ModelConfig& config, formats::GgmlType type, uint64_t seed);

// Thresholds at which the configured shares of random tokens take their paths, unit after unit.
infer::RoutingPolicy bench_policy(std::shared_ptr<const infer::Weights> weights, int64_t tokens, uint64_t seed);

struct BenchModel {
  std::string name;                        // "dense", "MoD"
  std::shared_ptr<infer::Engine> engine;
  infer::RoutingPolicy policy;
  std::vector<double> capacity = {};       // [cuts] shares of tokens that the policy is calibrated for
};

struct BenchWork {
  int64_t prompt = 512;                    // tokens of a prompt; 0: not measured
  int64_t generate = 64;                   // tokens decoded per text; 0: not measured
  int64_t depth = 64;                      // tokens of a text before the first that is decoded
  std::vector<int64_t> batches = {1};      // texts that are decoded together
  int64_t chunk = 512;                     // rows of a prompt in one step
  int rounds = 5;                          // after one that warms up
  std::span<const std::span<const int32_t>> texts = {};  // what is read, stretch after stretch; drawn tokens when there is none
  bool limits = true;                      // measure what the machine allows beside it
  std::function<void()> turn = {};         // after every turn of a model at a work; may throw to interrupt
};

// What a line is called: "prompt 512"; "generate 64, batch 8, depth 64".
std::string prompt_name(const BenchWork& work);
std::string decode_name(const BenchWork& work, int64_t batch);

// What one model did at one work. Limits: GB/s that this machine reads as many bytes at, and Gop/s of the products' arithmetic; 0
// where there is no measure. Bytes: weights, each once a step, and the keys and values that are seen.
struct BenchLine {
  std::string work, model;
  double tokens_per_second = 0, slowest = 0, fastest = 0;  // median and range over rounds
  double gb = 0, gop = 0;                  // GB read and Gop done per second
  double gb_limit = 0, gop_limit = 0;      // of bandwidth the median over rounds: it is measured before and behind each
  double gb_share = 0;                     // of that limit: median over rounds of what each reached of its own
  double gop_share() const { return gop_limit > 0 ? gop / gop_limit : 0; }
  bool decodes = false;                    // so that what limits it is expected to be reading; else arithmetic
  double run_share = 1, expected_run_share = 1;  // of rows that run a unit in full: as it came, and as the policy was calibrated for
  double speedup = 1;                      // over the first model at this work: median of the rounds' ratios
  double flops_saved = 0;                  // of the first model's for the same tokens
  double seconds_saved() const { return 1 - 1 / speedup; }
  double allowed = 1;                      // what the FLOPs of a prompt allow it to be; decoding, the bytes or the FLOPs, whichever take this machine longer
  double attention = 0, attention_limit = 0, attention_share = 0;  // GB/s of keys and values, decoding: read over the pages, and what the machine reads as many bytes at
  double kv_bytes = 0;                     // of the pages that the texts took, decoding
  std::vector<double> rates = {};          // tokens per second of each round
};

// `between` is called after every round (progress, an interruption that it throws, a peer that has its turn).
std::vector<BenchLine> bench_engines(const std::vector<BenchModel>& models, const BenchWork& work, const std::function<void(int round)>& between);

// How many times as fast a is as b at one work in the same rounds, the median of their ratios; and what its bytes (decoding) or FLOPs (a
// prompt) per token allow it to be.
double speedup(const BenchLine& a, const BenchLine& b);
double allowed_speedup(const BenchLine& a, const BenchLine& b);

double share_of_limit(const BenchLine& line);  // of the expected one; 0 where there is no measure

struct MachineLine {
  int threads = 0;
  double memory = 0, third_level = 0, second_level = 0;  // GB/s of 512 MiB, of 8 MiB and of 512 KiB a thread
  double f32 = 0, bf16 = 0, int8 = 0;                    // Gop/s; 0: no such instruction
};
MachineLine bench_machine(int threads);

Json to_json(const BenchLine& line);
Json to_json(const MachineLine& line);

}  // namespace fathom::study
