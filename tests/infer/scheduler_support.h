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

}  // namespace fathom::infer::test
