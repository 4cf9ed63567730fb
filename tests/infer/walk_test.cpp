// The walk block by block is the engine's forward: scores, paths and losses to the bit, for every gate, rule and kv policy.
#include "infer/walk.h"

#include <cmath>
#include <limits>

#include "infer/score.h"
#include "support.h"

namespace fathom::infer::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<std::vector<int32_t>> drawn_texts(const model::ModelConfig& config, Random& random) {
  std::vector<std::vector<int32_t>> texts;
  const uint64_t longest = static_cast<uint64_t>(std::min<int64_t>(config.max_position_embeddings, 300));
  for (uint64_t n = 2 + random.below(5); n-- > 0;) texts.push_back(model::random_tokens(config, 1 + static_cast<int64_t>(random.below(longest)), random));
  return texts;
}
std::vector<std::span<const int32_t>> spans(const std::vector<std::vector<int32_t>>& texts) { return {texts.begin(), texts.end()}; }

TEST(BlockWalk, ScoresAndFiguresAreTheEngines) {
  uint64_t compared = 0;
  for (uint64_t seed = 0; seed < 0 + cases(100); ++seed) {
    const Model m = Model::drawn(seed);
    SCOPED_TRACE(str(seed, " ", m.describe()));
    Random random(seed + 1000);
    const auto texts = drawn_texts(m.config, random);
    const auto windows = spans(texts);
    const std::vector<float> thresholds = model::random_thresholds(m.config, random);
    const std::vector<routing::RoutedUnit>& units = m.config.routing.units;
    const size_t U = units.size();
    std::vector<std::vector<float>> score(U);
    std::vector<double> took(thresholds.size());
    double nll = 0, tokens = 0, predicted = 0;
    Engine engine(m.weights, {.threads = 2, .kernels = nullptr, .kv_bytes = 0});
    score_documents(engine, windows, {.policy = RoutingPolicy::causal(thresholds)}, [&](DocumentScore&& s) {
      for (const float x : s.nll) nll += x, ++predicted;
      const size_t T = texts[s.document].size();
      tokens += static_cast<double>(T);
      for (size_t t = 0; t < T; ++t) {
        const bool forced = static_cast<int64_t>(t) < m.config.routing.forced_positions;
        bool exited = false;
        size_t cut = 0;
        for (size_t u = 0; u < U; ++u) {
          const float found = s.decisions.score[u][t], seen = forced ? kInfinity : exited ? -kInfinity : found;
          score[u].push_back(seen);
          exited = exited || (units[u].paths.exit && !forced && !(found >= thresholds[cut]));
          for (size_t i = 0; i < units[u].cuts(); ++i) took[cut + i] += !exited && seen >= thresholds[cut + i];
          cut += units[u].cuts();
        }
      }
    });
    BlockWalk walk(m.weights, windows, {.threads = 2, .kernels = nullptr, .kv_bytes = 0});
    for (int round = 0; round < 2; ++round) {  // a walk begun anew knows nothing of the one before
      walk.restart();
      for (size_t u = round; u < U; u += 2) {  // also when asked for every second unit only
        if (units[u].is_static()) continue;
        EXPECT_TRUE(same_bits(walk.scores(u, thresholds), score[u])) << u;
        EXPECT_TRUE(same_bits(walk.scores(u, thresholds), score[u])) << "asked again";
        ++compared;
      }
      const BlockWalk::Figures figures = walk.finish(thresholds);
      ASSERT_EQ(figures.capacity.size(), took.size());
      for (size_t c = 0; c < took.size(); ++c) EXPECT_EQ(figures.capacity[c], took[c] / tokens);
      if (predicted > 0) EXPECT_NEAR(figures.loss, nll / predicted, 1e-12 * nll);
      else EXPECT_TRUE(std::isnan(figures.loss));
    }
  }
  EXPECT_GT(compared, cases(60));
}

TEST(BlockWalk, ADenseModelHasALoss) {
  const Model m = Model::drawn(3, {.dense = true});
  Random random(4);
  const auto texts = drawn_texts(m.config, random);
  Engine engine(m.weights);
  double nll = 0, predicted = 0;
  score_documents(engine, spans(texts), {.policy = RoutingPolicy::full(m.config)}, [&](DocumentScore&& s) {
    for (const float x : s.nll) nll += x, ++predicted;
  });
  EXPECT_NEAR(BlockWalk(m.weights, spans(texts)).finish({}).loss, nll / predicted, 1e-9);
}

TEST(BlockWalk, RefusesWhatItCannotRead) {
  uint64_t seed = 5;
  while (Model::drawn(seed, {}).config.routing.rule == routing::CausalRule::predictor) ++seed;  // whose decisions the router does not make
  Model m = Model::drawn(seed, {});
  const std::vector<int32_t> wrong = {0, static_cast<int32_t>(m.config.vocab_size)};
  const std::vector<std::span<const int32_t>> windows = {wrong};
  EXPECT_THROW(BlockWalk(m.weights, windows), UserError);
  const std::vector<int32_t> longer(static_cast<size_t>(m.config.max_position_embeddings) + 1);
  const std::vector<std::span<const int32_t>> too_long = {longer};
  EXPECT_THROW(BlockWalk(m.weights, too_long), UserError);
  // A router of NaN decides nothing without a word.
  const std::string router = model::layer_prefix(m.config.routing.units[0].block) + "router.weight";
  m.tensors.at(router)[0] = NAN;
  const std::vector<int32_t> fine = {1, 2, 3};
  const std::vector<std::span<const int32_t>> text = {fine};
  BlockWalk walk(Weights::from(m.config, m.tensors), text);
  EXPECT_THROW(walk.scores(0, {}), UserError);
  int steps = 0;
  EXPECT_THROW(BlockWalk(m.weights, text, {}, [&] { if (++steps == 1) throw Interrupted("stop"); }), Interrupted);
}

}  // namespace
}  // namespace fathom::infer::test
