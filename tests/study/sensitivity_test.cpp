// The loss without a part is that of a routed model whose tokens skip it, in the engine.
#include "study/sensitivity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "infer/dense_walk.h"
#include "infer/score.h"
#include "model/random_model.h"

namespace fathom::study {
namespace {

using routing::Part;

// The summed loss of `engine`, whose one unit is the block, when the half of tokens skips it whose stream it changes least.
double least(infer::Engine& engine, const model::ModelConfig& dense, const model::Weights& tensors, std::span<const std::span<const int32_t>> windows, int block) {
  infer::DenseWalk walk(infer::Weights::from(dense, tensors), windows);
  for (int b = 0; b < block; ++b) walk.advance();
  std::vector<std::pair<double, size_t>> ratio;  // of tokens behind the first two of a text
  size_t tokens = 0;
  walk.look({.attention = {}, .mlp = [&](const infer::DenseWalk::Rows& rows) {
               const auto C = static_cast<size_t>(dense.hidden_size);
               for (size_t n = 0; n < rows.position.size(); ++n, ++tokens) {
                 double changed = 0, size = 0;
                 for (size_t c = n * C; c < (n + 1) * C; ++c) changed += std::pow(rows.now[c] - rows.before[c], 2), size += std::pow(rows.before[c], 2);
                 if (rows.position[n] >= 2) ratio.emplace_back(changed / size, tokens);
               }
             }});
  std::ranges::sort(ratio);
  std::vector<uint8_t> run(tokens, static_cast<uint8_t>(routing::Path::full));
  for (size_t i = 0; i < ratio.size() / 2; ++i) run[ratio[i].second] = static_cast<uint8_t>(routing::Path::skip);
  double sum = 0;
  size_t at = 0;
  for (const std::span<const int32_t> window : windows) {
    routing::Decisions decisions;
    decisions.run = {{run.begin() + static_cast<ptrdiff_t>(at), run.begin() + static_cast<ptrdiff_t>(at + window.size())}};
    at += window.size();
    for (const float nll : infer::score_document(engine, window, {.policy = infer::RoutingPolicy::given(std::move(decisions))}).nll) sum += nll;
  }
  return sum;
}

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
        EXPECT_GT(one.change, 0);
        if (part == Part::block) EXPECT_NEAR(one.least, least(engine, dense, tensors, windows, block) / static_cast<double>(s.tokens) - s.loss, 1e-6) << seed << " " << block;
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
