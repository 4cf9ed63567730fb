// Speed of the engine beside this machine's measured limits: a dense model and its MoD form (12.5 % of tokens in every
// second block, thresholds calibrated to that share), random f32 weights, decode of one text and prefill, in turns in one
// window. Prints a table, or with --json one object.
//
//   bench_engine [--json] [--threads 1,2] [--rounds 9] [--tokens 96] [--context 64] [--prompt 512]
//                [--shape C,L,H,G,F,V] [--capacity 0.125]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <limits>
#include <sstream>

#include "core/error.h"
#include "core/json.h"
#include "core/thread_pool.h"
#include "infer/forward.h"
#include "machine.h"
#include "model/cost.h"
#include "model/random_model.h"

namespace fathom::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  bool json = false;
  std::vector<int64_t> threads = {1, 2};
  std::vector<int64_t> shape = {384, 8, 6, 6, 1024, 4096};  // C L H G F V
  int64_t rounds = 9, tokens = 96, context = 64, prompt = 512;
  double capacity = 0.125;
};

std::vector<int64_t> numbers(const std::string& flag, const std::string& text, size_t count) {
  std::vector<int64_t> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    try {
      out.push_back(std::stoll(part));
    } catch (const std::exception&) {
      throw UsageError({flag, "", "\"" + printable(part) + "\"", "whole numbers", ""});
    }
    if (out.back() < 1 || out.back() > (1 << 24)) throw UsageError({flag, "", str(out.back()), "1 to 16777216", ""});
  }
  if (out.empty() || (count && out.size() != count)) throw UsageError({flag, "", str(out.size(), " numbers"), str(count ? count : 1), ""});
  return out;
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--json") {
      o.json = true;
      continue;
    }
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (flag == "--threads") o.threads = numbers(flag, value, 0);
    else if (flag == "--shape") o.shape = numbers(flag, value, 6);
    else if (flag == "--rounds") o.rounds = numbers(flag, value, 1)[0];
    else if (flag == "--tokens") o.tokens = numbers(flag, value, 1)[0];
    else if (flag == "--context") o.context = numbers(flag, value, 1)[0];
    else if (flag == "--prompt") o.prompt = numbers(flag, value, 1)[0];
    else if (flag == "--capacity") o.capacity = std::stod(value);
    else throw UsageError({flag, "", "an unknown flag", "--json --threads --shape --rounds --tokens --context --prompt --capacity", ""});
  }
  return o;
}

model::ModelConfig shape(const Options& o, bool routed) {
  model::ModelConfig c;
  c.hidden_size = o.shape[0], c.num_hidden_layers = o.shape[1], c.num_attention_heads = o.shape[2];
  c.num_key_value_heads = o.shape[3], c.intermediate_size = o.shape[4], c.vocab_size = o.shape[5];
  c.head_dim = c.hidden_size / c.num_attention_heads;
  c.max_position_embeddings = std::max(o.prompt, o.context + o.tokens) + 1;
  c.tie_word_embeddings = true;
  for (int64_t block = 1; routed && block < c.num_hidden_layers; block += 2)
    c.routing.blocks.push_back({static_cast<int>(block), o.capacity});
  c.validate("--shape");
  return c;
}

std::vector<int32_t> random_text(int64_t vocab, int64_t count, Random& random) {
  std::vector<int32_t> out;
  while (static_cast<int64_t>(out.size()) < count) out.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab))));
  return out;
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.size() % 2 ? v[v.size() / 2] : 0.5 * (v[v.size() / 2 - 1] + v[v.size() / 2]);
}

struct Timed {
  double tokens_per_second = 0;
  double bytes_per_token = 0;  // weights that the step's rows read, and keys and values
  double flops_per_token = 0;
  std::vector<double> share;   // of rows that ran, per block
};

// Bytes of weights that `counters` say were streamed when every step had one row, and of the head.
double weight_bytes(const infer::Engine& engine, const infer::EngineCounters& before, const infer::EngineCounters& after) {
  double bytes = static_cast<double>(engine.weights().head().bytes() * (after.head_rows - before.head_rows));
  for (size_t b = 0; b < before.block_rows.size(); ++b)
    bytes += static_cast<double>(engine.weights().blocks()[b].bytes() * (after.block_rows[b] - before.block_rows[b]));
  return bytes;
}

Timed decode(infer::Engine& engine, const infer::RoutingPolicy& policy, std::span<const int32_t> text, int64_t context) {
  infer::Sequence sequence = engine.new_sequence();
  infer::StepResult result;
  const infer::WorkItem before{.sequence = &sequence, .tokens = text.first(context), .policy = &policy};
  engine.forward({&before, 1}, result);
  const infer::EngineCounters start = engine.counters();
  const auto begin = Clock::now();
  double kv_bytes = 0;
  for (size_t t = context; t < text.size(); ++t) {
    const infer::WorkItem item{.sequence = &sequence, .tokens = text.subspan(t, 1), .policy = &policy};
    engine.forward({&item, 1}, result);
    kv_bytes += static_cast<double>(sequence.slot_bytes());
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const double n = static_cast<double>(text.size() - context);
  Timed out{n / seconds, (weight_bytes(engine, start, engine.counters()) + kv_bytes) / n, 0, {}};
  for (size_t b = 0; b < start.block_rows.size(); ++b)
    out.share.push_back(static_cast<double>(engine.counters().block_rows[b] - start.block_rows[b]) / n);
  return out;
}

Timed prefill(infer::Engine& engine, const infer::RoutingPolicy& policy, std::span<const int32_t> text) {
  infer::Sequence sequence = engine.new_sequence();
  infer::StepResult result;
  const infer::WorkItem item{.sequence = &sequence, .tokens = text, .policy = &policy};
  const auto begin = Clock::now();
  engine.forward({&item, 1}, result);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const double n = static_cast<double>(text.size());
  const model::ForwardCost cost = model::forward_cost(engine.config(), static_cast<int64_t>(text.size()), result.decisions_of(0), 1);
  return {n / seconds, 0, cost.flops() / n, {}};
}

// Thresholds at which the configured share of random tokens runs, block after block.
infer::RoutingPolicy calibrated(infer::Engine& engine, const Options& o, Random& random) {
  std::vector<double> capacity;
  for (const auto& block : engine.config().routing.blocks) capacity.push_back(block.capacity);
  std::vector<std::vector<int32_t>> texts;
  for (int i = 0; i < 8; ++i) texts.push_back(random_text(o.shape[5], std::max(o.prompt, o.context + o.tokens), random));
  return infer::RoutingPolicy::causal(routing::calibrate(capacity, [&](size_t r, const std::vector<float>& before) {
    std::vector<float> thresholds(capacity.size(), std::numeric_limits<float>::infinity()), scores;
    std::copy(before.begin(), before.begin() + static_cast<int64_t>(std::min(before.size(), r)), thresholds.begin());
    const infer::RoutingPolicy policy = infer::RoutingPolicy::causal(thresholds);
    for (const auto& text : texts) {
      infer::Sequence sequence = engine.new_sequence();
      const infer::WorkItem item{.sequence = &sequence, .tokens = text, .policy = &policy, .logits = infer::Logits::none};
      const infer::StepResult result = engine.forward({&item, 1});
      scores.insert(scores.end(), result.decisions.score[r].begin(), result.decisions.score[r].end());
    }
    return scores;
  }));
}

Json row(const std::vector<Timed>& rounds, double limit, double Timed::*work, const char* limit_name, const char* share_name) {
  std::vector<double> rate, use;
  for (const Timed& t : rounds) rate.push_back(t.tokens_per_second), use.push_back(t.tokens_per_second * t.*work / 1e9);
  return {{"tokens_per_second", median(rate)},
          {"slowest", *std::min_element(rate.begin(), rate.end())},
          {"fastest", *std::max_element(rate.begin(), rate.end())},
          {limit_name, median(use)},
          {share_name, median(use) / limit}};
}

Json measure(const Options& o, int threads) {
  Random random(7);
  const model::ModelConfig dense_config = shape(o, false), mod_config = shape(o, true);
  const model::Weights tensors = model::random_weights(mod_config, 1);
  infer::Engine dense(infer::Weights::from(dense_config, tensors), {.threads = threads});
  infer::Engine mod(infer::Weights::from(mod_config, tensors), {.threads = threads});
  const infer::RoutingPolicy full = infer::RoutingPolicy::full(dense_config), routed = calibrated(mod, o, random);

  const double weights = static_cast<double>(dense.weights().bytes());
  const double memory = read_bandwidth(int64_t{1} << 29, threads);
  const double at_size = read_bandwidth(static_cast<int64_t>(weights), threads);
  const double peak = multiply_add_peak(threads);

  std::vector<Timed> decodes[2], prefills[2];
  std::vector<double> decode_ratio, prefill_ratio;
  for (int64_t round = -1; round < o.rounds; ++round) {  // round −1 warms up
    const std::vector<int32_t> text = random_text(o.shape[5], o.context + o.tokens, random), prompt = random_text(o.shape[5], o.prompt, random);
    const Timed now[4] = {decode(dense, full, text, o.context), decode(mod, routed, text, o.context), prefill(dense, full, prompt),
                          prefill(mod, routed, prompt)};
    if (round < 0) continue;
    for (int m = 0; m < 2; ++m) decodes[m].push_back(now[m]), prefills[m].push_back(now[2 + m]);
    decode_ratio.push_back(now[1].tokens_per_second / now[0].tokens_per_second);
    prefill_ratio.push_back(now[3].tokens_per_second / now[2].tokens_per_second);
  }
  double share = 0, byte_ratio = 0, flop_ratio = 0;
  for (size_t i = 0; i < decodes[1].size(); ++i) {
    for (const auto& block : mod_config.routing.blocks) share += decodes[1][i].share[block.block];
    byte_ratio += decodes[0][i].bytes_per_token / decodes[1][i].bytes_per_token;
    flop_ratio += prefills[0][i].flops_per_token / prefills[1][i].flops_per_token;
  }
  const double n = static_cast<double>(o.rounds);
  // What a MoD step reads is smaller and may sit in a nearer cache, so it has a roof of its own.
  const double mod_bytes = decodes[0][0].bytes_per_token * n / byte_ratio;
  const double mod_at_size = read_bandwidth(static_cast<int64_t>(mod_bytes), threads);
  return {{"threads", threads},
          {"isa", dense.kernels().name},
          {"weight_bytes", weights},
          {"roofline",
           {{"memory_gb_per_second", memory},
            {"gb_per_second_at_dense_size", at_size},
            {"gb_per_second_at_mod_size", mod_at_size},
            {"gflop_per_second", peak},
            {"decode_dense_tokens_per_second", at_size * 1e9 / decodes[0][0].bytes_per_token},
            {"decode_mod_tokens_per_second", mod_at_size * 1e9 / mod_bytes},
            {"prefill_dense_tokens_per_second", peak * 1e9 / prefills[0][0].flops_per_token}}},
          {"decode",
           {{"dense", row(decodes[0], at_size, &Timed::bytes_per_token, "gb_per_second", "share_of_bandwidth")},
            {"mod", row(decodes[1], mod_at_size, &Timed::bytes_per_token, "gb_per_second", "share_of_bandwidth")},
            {"mod_over_dense", median(decode_ratio)},
            {"byte_ratio", byte_ratio / n},
            {"routed_share", share / n / static_cast<double>(std::max<size_t>(1, mod_config.routing.blocks.size()))}}},
          {"prefill",
           {{"dense", row(prefills[0], peak, &Timed::flops_per_token, "gflop_per_second", "share_of_peak")},
            {"mod", row(prefills[1], peak, &Timed::flops_per_token, "gflop_per_second", "share_of_peak")},
            {"mod_over_dense", median(prefill_ratio)},
            {"flop_ratio", flop_ratio / n}}}};
}

void print(const Json& all) {
  const auto number = [](const Json& j) { return j.get<double>(); };
  for (const Json& m : all["runs"]) {
    const Json& roof = m["roofline"];
    std::printf("%d thread(s), %s, f32 weights %.1f MB\n", m["threads"].get<int>(), m["isa"].get<std::string>().c_str(), number(m["weight_bytes"]) / 1e6);
    std::printf("  roofline  memory %.1f GB/s; what a dense step reads %.1f GB/s, a MoD step %.1f GB/s; f32 %.1f GFLOP/s\n",
                number(roof["memory_gb_per_second"]), number(roof["gb_per_second_at_dense_size"]), number(roof["gb_per_second_at_mod_size"]),
                number(roof["gflop_per_second"]));
    std::printf("  at most   dense decode %.0f, MoD decode %.0f, dense prefill %.0f tokens/s\n", number(roof["decode_dense_tokens_per_second"]),
                number(roof["decode_mod_tokens_per_second"]), number(roof["prefill_dense_tokens_per_second"]));
    for (const char* work : {"decode", "prefill"}) {
      const bool bytes = std::string(work) == "decode";
      for (const char* model : {"dense", "mod"}) {
        const Json& r = m[work][model];
        std::printf("  %-8s %-6s %8.0f tokens/s (%.0f to %.0f)  %7.1f %s, %3.0f %% of the roofline\n", work, model, number(r["tokens_per_second"]),
                    number(r["slowest"]), number(r["fastest"]), number(r[bytes ? "gb_per_second" : "gflop_per_second"]),
                    bytes ? "GB/s" : "GFLOP/s", 100 * number(r[bytes ? "share_of_bandwidth" : "share_of_peak"]));
      }
      std::printf("  %-8s MoD over dense %.2fx (%s %.2fx)\n", work, number(m[work]["mod_over_dense"]), bytes ? "bytes" : "FLOPs",
                  number(m[work][bytes ? "byte_ratio" : "flop_ratio"]));
    }
    std::printf("  share of tokens that ran a routed block in decode: %.3f\n", number(m["decode"]["routed_share"]));
  }
}

int run(int argc, char** argv) {
  const Options o = parse(argc, argv);
  Json all = {{"shape", {{"C", o.shape[0]}, {"L", o.shape[1]}, {"H", o.shape[2]}, {"G", o.shape[3]}, {"F", o.shape[4]}, {"V", o.shape[5]}}},
              {"capacity", o.capacity}, {"rounds", o.rounds}, {"decode_tokens", o.tokens}, {"context", o.context},
              {"prompt", o.prompt}, {"runs", Json::array()}};
  for (int64_t threads : o.threads) all["runs"].push_back(measure(o, static_cast<int>(threads)));
  if (o.json) std::cout << all.dump(2) << "\n";
  else print(all);
  return 0;
}

}  // namespace
}  // namespace fathom::bench

int main(int argc, char** argv) {
  try {
    return fathom::bench::run(argc, argv);
  } catch (const fathom::UsageError& e) {
    std::cerr << "bench_engine: " << e.what() << "\n";
    return 2;
  } catch (const std::exception& e) {
    std::cerr << "bench_engine: " << e.what() << "\n";
    return 1;
  }
}
