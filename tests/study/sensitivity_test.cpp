// The loss without a part is that of a routed model whose tokens skip it, in the engine.
#include "study/sensitivity.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "infer/score.h"
#include "model/random_model.h"

namespace fathom::study {
namespace {

using routing::Part;

TEST(Sensitivity, IsTheLossOfAModelThatSkips) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    Random random(seed);
    model::ModelConfig dense = model::random_config(random, {.dense = true});
    dense.max_position_embeddings = 64;
    const model::Weights tensors = model::random_weights(dense, seed);
    std::vector<std::vector<int32_t>> texts;
    for (int i = 0; i < 12; ++i) texts.push_back(model::random_tokens(dense, 30, random));
    const std::vector<std::span<const int32_t>> windows(texts.begin(), texts.end());
    const Sensitivity s = measure_sensitivity(infer::Weights::from(dense, tensors), windows, {.share = 0.5, .forced_positions = 2, .threads = 1});
    ASSERT_EQ(static_cast<int64_t>(s.blocks.size()), dense.num_hidden_layers);
    EXPECT_EQ(s.tokens, 12 * 29);
    for (int block = 0; block < dense.num_hidden_layers; ++block)
      for (const Part part : {Part::block, Part::attention, Part::mlp}) {
        model::ModelConfig routed = dense;
        routed.routing.units = {{.block = block, .capacity = 0.5, .part = part}};
        routed.routing.gate = routing::Gate::hard;
        routed.routing.kv = routing::KvPolicy::keep;
        routed.routing.forced_positions = 2;
        model::Weights with = tensors;
        with[model::unit_prefix(routed.routing.units[0]) + "router.weight"].assign(static_cast<size_t>(dense.hidden_size), 0.0f);
        infer::Engine engine(infer::Weights::from(routed, with), {.threads = 1});
        double sum = 0;
        infer::score_documents(engine, windows, {.policy = infer::RoutingPolicy::causal({1.0f})}, [&](infer::DocumentScore&& d) {
          for (const float nll : d.nll) sum += nll;
        });
        const Sensitivity::One& one = s.blocks[static_cast<size_t>(block)].of(part);
        EXPECT_NEAR(one.all, sum / static_cast<double>(s.tokens) - s.loss, 1e-6) << seed << " " << routed.routing.units[0].name();
        EXPECT_NE(one.least, 0);
        EXPECT_GT(one.change, 0);
      }
    const Sensitivity nobody = measure_sensitivity(infer::Weights::from(dense, tensors), windows, {.share = 0, .threads = 1});
    const Sensitivity everybody = measure_sensitivity(infer::Weights::from(dense, tensors), windows, {.share = 1, .threads = 1});
    for (size_t i = 0; i < s.blocks.size(); ++i) {
      EXPECT_EQ(nobody.blocks[i].mlp.least, 0);
      EXPECT_EQ(everybody.blocks[i].mlp.least, everybody.blocks[i].mlp.all);
    }
    EXPECT_EQ(s.to_json()["blocks"].size(), s.blocks.size());
    EXPECT_NE(s.chart().find("attention, all tokens"), std::string::npos);
  }
}

TEST(Sensitivity, RefusesRoutedModels) {
  Random random(3);
  const model::ModelConfig c = model::random_config(random, {});
  const std::vector<int32_t> text = {0, 1, 2};
  const std::vector<std::span<const int32_t>> windows = {text};
  EXPECT_THROW(measure_sensitivity(infer::Weights::from(c, model::random_weights(c, 1)), windows), UserError);
}

}  // namespace
}  // namespace fathom::study
