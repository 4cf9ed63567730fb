// Small models and plain requests for the scheduler's tests.
#pragma once
#include "infer/scheduler.h"
#include "support.h"

namespace fathom::infer::test {

inline int64_t page_bytes(const model::ModelConfig& c, KvType type = KvType::f32) { return 2 * c.num_key_value_heads * kv_bytes(type, c.head_dim) * kPagePositions; }

inline Model small(uint64_t seed, bool paths = false) {
  Random random(seed);
  model::ModelConfig config = model::random_config(random, {.max_blocks = 4, .max_width = 24, .max_heads = 3, .max_head_width = 6,
                                                            .max_feed_forward = 24, .max_vocabulary = 40, .paths = paths});
  config.max_position_embeddings = 200 + static_cast<int64_t>(random.below(60));
  return Model(config, seed);
}

inline Request plain(const Model& model, int64_t prompt, int64_t new_tokens, Random& random) {
  Request r;
  r.prompt = model::random_tokens(model.config, prompt, random);
  r.policies = {{0, RoutingPolicy::full(model.config)}};
  r.max_new_tokens = new_tokens;
  r.sampling.temperature = 0;
  return r;
}

// A text alone, token by token, by nothing but the engine and a sampler.
struct Alone {
  std::vector<int32_t> ids;
  routing::Decisions decisions;
  Finish finish = Finish::length;
};

inline const RoutingPolicy& policy_at(const std::vector<PolicyFrom>& policies, int64_t position) {
  size_t i = 0;
  while (i + 1 < policies.size() && policies[i + 1].position <= position) ++i;
  return policies[i].policy;
}

inline Alone alone(Engine& engine, const Request& r, uint64_t sample) {
  Alone out;
  Sequence sequence = engine.new_sequence();
  Sampler sampler(r.sampling, r.stream + sample);
  sampler.observe(r.prompt);
  std::vector<int32_t> tokens = r.prompt;
  while (true) {
    const WorkItem item{.sequence = &sequence, .tokens = std::span(tokens).subspan(static_cast<size_t>(sequence.position()), 1),
                        .policy = &policy_at(r.policies, sequence.position())};
    const StepResult result = engine.forward({&item, 1});
    result.append_decisions(0, out.decisions);
    if (sequence.position() < static_cast<int64_t>(tokens.size())) continue;
    if (static_cast<int64_t>(out.ids.size()) == r.max_new_tokens) break;
    if (sequence.position() == engine.config().max_position_embeddings) {
      out.finish = Finish::context_full;
      break;
    }
    const int32_t id = sampler.sample(result.logits_of(0));
    if (std::find(r.stop_ids.begin(), r.stop_ids.end(), id) != r.stop_ids.end()) {
      out.finish = Finish::stop_id;
      break;
    }
    tokens.push_back(id);
    out.ids.push_back(id);
  }
  return out;
}

}  // namespace fathom::infer::test
