// Keys and values in f32, f16, bf16 and q8_0: the law, bit for bit, for every type; and how far the narrow ones are from f32.
#include <algorithm>
#include <cmath>

#include "support.h"

namespace fathom::infer::test {
namespace {

class KvTypes : public ::testing::TestWithParam<KvType> {};
INSTANTIATE_TEST_SUITE_P(Types, KvTypes, ::testing::ValuesIn(kKvTypes), [](const auto& i) { return name_of(i.param, kKvTypeNames); });

model::ModelConfig shaped(uint64_t seed, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  Random random(seed);
  model::ModelConfig c = model::random_config(random, {.plain = true});
  if (seed % 2 == 1) add_all_properties(c);
  c.hidden_size = 40, c.intermediate_size = 50, c.vocab_size = 60, c.num_hidden_layers = 3, c.max_position_embeddings = 2048;
  c.num_attention_heads = heads, c.num_key_value_heads = kv_heads, c.head_dim = head_dim;
  c.eos_token_ids.clear(), c.bos_token_id.reset(), c.pad_token_id.reset();
  c.routing.units = {{1, 0.5}, {2, 0.25}};
  return c;
}

TEST_P(KvTypes, TheLawHolds) {
  uint64_t seed = 9500 + static_cast<uint64_t>(GetParam());
  for (const auto& [heads, kv_heads, head_dim] : {std::tuple{8, 1, 32}, std::tuple{3, 3, 50}, std::tuple{10, 2, 18}}) {
    seed += 10;
    const Model model(shaped(seed, heads, kv_heads, head_dim), seed);
    SCOPED_TRACE(model.describe());
    Random random(seed);
    const std::vector<int32_t> tokens = model::random_tokens(model.config, 70, random), other = model::random_tokens(model.config, 23, random);
    const RoutingPolicy policy = drawn_policy(model.config, 70, random), other_policy = drawn_policy(model.config, 70, random);
    expect_law(model.weights, tokens, policy, other, other_policy, GetParam());
    if (HasFailure()) return;
  }
}

// A decode step over few heads and many positions, whose work threads share out page by page and column by column.
TEST_P(KvTypes, ALongTextOnManyThreadsIsThatOnOne) {
  for (const auto& [heads, kv_heads, head_dim] : {std::tuple{2, 1, 34}, std::tuple{9, 3, 64}, std::tuple{12, 1, 16}}) {
    model::ModelConfig config = shaped(9700 + static_cast<uint64_t>(heads), heads, kv_heads, head_dim);
    config.num_hidden_layers = 2, config.routing.units = {{1, 0.9}};
    const Model model(config, 9700);
    Random random(9700);
    const std::vector<int32_t> tokens = model::random_tokens(model.config, 700, random);
    const RoutingPolicy policy = RoutingPolicy::causal({-1.5f});
    Engine one(model.weights, {.threads = 1, .kernels = &kernels::kernels_for(kernels::Isa::reference), .kv_type = GetParam()});
    const auto last = [&](Engine& engine) {
      Sequence sequence = engine.new_sequence();
      Reading out;
      for (const size_t count : {size_t{690}, size_t{1}, size_t{2}, size_t{1}}) {
        const WorkItem item{.sequence = &sequence, .tokens = std::span(tokens).subspan(static_cast<size_t>(sequence.position()), count), .policy = &policy};
        out.append(engine.forward({&item, 1}), 0);
      }
      EXPECT_GT(sequence.length(1), 512);
      return out;
    };
    const Reading expected = last(one);
    for (const kernels::Isa isa : isas())
      for (const int threads : {2, 5, 13}) {
        Engine engine(model.weights, {.threads = threads, .kernels = &kernels::kernels_for(isa), .kv_type = GetParam()});
        expect_same(last(engine), expected, str(kernels::isa_name(isa), ", threads ", threads, ", ", kv_heads, " of ", heads, " heads"));
        if (HasFailure()) return;
      }
  }
}

// Against f32, under the same decisions: only keys and values are rounded, to 11 bits, 8 bits, and 127 steps of the greatest of 32.
TEST_P(KvTypes, LogitsAreNearThoseOfF32) {
  double worst = 0;
  for (uint64_t seed = 9800; seed < 9800 + cases(10); ++seed) {
    const Model model(shaped(seed, 8, 2, 32), seed);
    Random random(seed);
    const std::vector<int32_t> tokens = model::random_tokens(model.config, 120, random);
    const RoutingPolicy policy = RoutingPolicy::given(model::random_decisions(model.config, 120, random));
    Engine narrow(model.weights, {.threads = 1, .kv_type = GetParam()}), wide(model.weights, {.threads = 1});
    const std::vector<float> a = read(narrow, tokens, policy).logits, b = read(wide, tokens, policy).logits;
    double error = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) error += std::pow(a[i] - b[i], 2), size += std::pow(b[i], 2);
    worst = std::max(worst, std::sqrt(error / size));
  }
  const double bound = GetParam() == KvType::f32 ? 0 : GetParam() == KvType::f16 ? 5e-4 : GetParam() == KvType::bf16 ? 4e-3 : 6e-3;
  EXPECT_LE(worst, bound);
  EXPECT_GE(worst, bound / 20);  // what is asked for is what is done
  std::printf("relative error of the logits: %g\n", worst);
}

}  // namespace
}  // namespace fathom::infer::test
