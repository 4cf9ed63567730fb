// Random models for the engine's tests, and ways to run a text through an engine.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "infer/forward.h"
#include "infer/policy.h"
#include "infer/weights.h"
#include "model/random_model.h"

namespace fathom::infer::test {

// How many drawn cases of so many to try: a build under ThreadSanitizer is thirty times slower, and what it looks for is in every case.
constexpr uint64_t cases(uint64_t count) {
#ifdef __SANITIZE_THREAD__
  return (count + 7) / 8;
#else
  return count;
#endif
}

// Instruction sets to try where threads are what matters: under ThreadSanitizer the best one alone.
inline std::vector<kernels::Isa> isas() {
#ifdef __SANITIZE_THREAD__
  return {kernels::available().back()};
#else
  return kernels::available();
#endif
}

struct Model {
  model::ModelConfig config;
  model::Weights tensors;
  std::shared_ptr<const Weights> weights;

  explicit Model(const model::ModelConfig& c, uint64_t seed)
      : config(c), tensors(model::random_weights(c, seed)), weights(Weights::from(c, tensors)) {}
  static Model drawn(uint64_t seed, const model::RandomLimits& limits = {.paths = true, .adapters = true}) {
    Random random(seed);
    return Model(model::random_config(random, limits), seed);
  }
  std::string describe() const { return config.to_json().dump(); }
};

// Every property that a family of models may have, at once.
inline void add_all_properties(model::ModelConfig& c) {
  c.qkv_bias = c.output_bias = c.mlp_bias = c.qk_norm = true;
  c.rope_scaling = {.type = model::RopeScaling::Type::yarn, .factor = 4, .original_context = 40, .beta_fast = 3, .beta_slow = 1, .attention_factor = 1.1};
}
constexpr KvType kKvTypes[] = {KvType::f32, KvType::f16, KvType::bf16, KvType::q8_0};
// Another one for every seed: what holds must hold for all.
inline KvType kv_of(uint64_t seed) { return kKvTypes[seed % 4]; }

// What an engine said about each token of one text.
struct Reading {
  std::vector<float> logits;  // [T, V]
  routing::Decisions decisions;

  void append(const StepResult& result, size_t item) {
    const StepResult::Item& at = result.items[item];
    const auto first = result.logits.begin() + at.first_logits * result.vocab;
    logits.insert(logits.end(), first, first + at.logits_rows * result.vocab);
    const routing::Decisions more = result.decisions_of(item);
    decisions.run.resize(more.run.size()), decisions.score.resize(more.score.size());
    for (size_t r = 0; r < more.run.size(); ++r) {
      decisions.run[r].insert(decisions.run[r].end(), more.run[r].begin(), more.run[r].end());
      decisions.score[r].insert(decisions.score[r].end(), more.score[r].begin(), more.score[r].end());
    }
  }
};

// The text alone, `chunk` tokens a step (0: all at once).
inline Reading read(Engine& engine, std::span<const int32_t> tokens, const RoutingPolicy& policy, int64_t chunk = 0) {
  Sequence sequence = engine.new_sequence();
  Reading out;
  const size_t step = chunk > 0 ? static_cast<size_t>(chunk) : tokens.size();
  for (size_t at = 0; at < tokens.size(); at += step) {
    const WorkItem item{.sequence = &sequence, .tokens = tokens.subspan(at, std::min(step, tokens.size() - at)), .policy = &policy,
                        .logits = Logits::all};
    out.append(engine.forward({&item, 1}), 0);
  }
  return out;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

inline void expect_same(const Reading& a, const Reading& b, const std::string& what) {
  EXPECT_TRUE(same_bits(a.logits, b.logits)) << what << ": logits";
  EXPECT_EQ(a.decisions.run, b.decisions.run) << what << ": decisions";
  ASSERT_EQ(a.decisions.score.size(), b.decisions.score.size());
  for (size_t r = 0; r < a.decisions.score.size(); ++r)
    EXPECT_TRUE(same_bits(a.decisions.score[r], b.decisions.score[r])) << what << ": scores of unit " << r;
}

// The reference's reading of `tokens` is that of every ISA, on one thread and several, in chunks, and in a batch with another text,
// which is ahead of it.
inline void expect_law(const std::shared_ptr<const Weights>& weights, std::span<const int32_t> tokens, const RoutingPolicy& policy, std::span<const int32_t> other,
                       const RoutingPolicy& other_policy, KvType kv = KvType::f32) {
  Engine reference(weights, {.threads = 1, .kernels = &kernels::kernels_for(kernels::Isa::reference), .kv_type = kv});
  const Reading expected = read(reference, tokens, policy);
  for (const kernels::Isa isa : kernels::available())
    for (const int threads : {1, 3}) {
      Engine engine(weights, {.threads = threads, .kernels = &kernels::kernels_for(isa), .kv_type = kv});
      const std::string what = str(kernels::isa_name(isa), ", threads ", threads);
      for (const int64_t chunk : {0, 1, 7}) expect_same(read(engine, tokens, policy, chunk), expected, str(what, ", chunks of ", chunk));
      Sequence a = engine.new_sequence(), b = engine.new_sequence();
      const WorkItem ahead{.sequence = &b, .tokens = other.first(9), .policy = &other_policy};
      engine.forward({&ahead, 1});
      const WorkItem both[] = {{.sequence = &b, .tokens = other.subspan(9), .policy = &other_policy},
                               {.sequence = &a, .tokens = tokens, .policy = &policy, .logits = Logits::all}};
      Reading together;
      together.append(engine.forward(both), 1);
      expect_same(together, expected, what + ", in a batch");
      if (::testing::Test::HasFailure()) return;
    }
}

// Causal mostly; sometimes the control or imposed decisions, which obey the same law.
inline RoutingPolicy drawn_policy(const model::ModelConfig& config, int64_t tokens, Random& random) {
  const double kind = random.uniform();
  if (kind < 0.1) return RoutingPolicy::control(config);
  if (kind < 0.2) return RoutingPolicy::given(model::random_decisions(config, tokens, random));
  return RoutingPolicy::causal(model::random_thresholds(config, random));
}

}  // namespace fathom::infer::test
