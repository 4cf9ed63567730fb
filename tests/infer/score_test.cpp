#include "infer/score.h"

#include "core/error.h"
#include "support.h"

namespace fathom::infer::test {
namespace {

TEST(Score, EveryDocumentIsAsAlone) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Model model = Model::drawn(seed + 6000, {.dense = seed % 7 == 0, .paths = true, .adapters = true});
    SCOPED_TRACE(model.describe());
    Random random(seed);
    Engine engine(model.weights, {.threads = 1});
    std::vector<std::vector<int32_t>> texts;
    for (int i = 0; i < 12; ++i) texts.push_back(model::random_tokens(model.config, 1 + static_cast<int64_t>(random.below(60)), random));
    const std::vector<std::span<const int32_t>> documents(texts.begin(), texts.end());
    for (const RoutingPolicy& policy : {RoutingPolicy::causal(model::random_thresholds(model.config, random)),
                                        RoutingPolicy::teacher(model.config), RoutingPolicy::control(model.config)}) {
      for (int64_t rows : {1, 10, 100, 10000}) {
        size_t next = 0;
        score_documents(engine, documents, {.policy = policy, .rows_per_step = rows}, [&](DocumentScore&& score) {
          ASSERT_EQ(score.document, next);
          const std::vector<int32_t>& tokens = texts[next++];
          const Reading reading = read(engine, tokens, policy);
          EXPECT_EQ(score.decisions.run, reading.decisions.run);
          for (size_t r = 0; r < score.decisions.score.size(); ++r)
            EXPECT_TRUE(same_bits(score.decisions.score[r], reading.decisions.score[r]));
          ASSERT_EQ(score.nll.size(), tokens.size() - 1);
          ASSERT_EQ(score.best.size(), tokens.size() - 1);
          const int64_t V = model.config.vocab_size;
          for (size_t t = 0; t + 1 < tokens.size(); ++t) {
            const float* const row = reading.logits.data() + static_cast<int64_t>(t) * V;
            ASSERT_EQ(score.nll[t], static_cast<float>(engine.kernels().log_sum_exp(row, V) - row[tokens[t + 1]]));
          }
        });
        EXPECT_EQ(next, texts.size());
        EXPECT_EQ(engine.pool().pages_in_use(), 0);
      }
    }
    if (HasFailure()) return;
  }
}

TEST(Score, MemoryIsThatOfTheStepAndNotOfTheCorpus) {
  const Model model = Model::drawn(6100);
  Random random(1);
  std::vector<std::vector<int32_t>> texts;
  for (int i = 0; i < 200; ++i) texts.push_back(model::random_tokens(model.config, 16, random));
  const std::vector<std::span<const int32_t>> documents(texts.begin(), texts.end());
  Engine engine(model.weights, {.threads = 1});
  score_documents(engine, documents, {.policy = RoutingPolicy::full(model.config), .rows_per_step = 32}, [](DocumentScore&&) {});
  EXPECT_LE(engine.pool().peak_pages(), 4 * model.config.num_hidden_layers);
}

TEST(Score, RefusesEmptyAndOverlongDocuments) {
  const Model model = Model::drawn(6200);
  Engine engine(model.weights, {.threads = 1});
  const ScoreOptions options{.policy = RoutingPolicy::full(model.config)};
  EXPECT_THROW(score_document(engine, {}, options), UserError);
  const std::vector<int32_t> all(model.config.max_position_embeddings, 0);
  EXPECT_EQ(score_document(engine, all, options).nll.size(), all.size() - 1);
  const std::vector<int32_t> more(all.size() + 1, 0);
  EXPECT_THROW(score_document(engine, more, options), UserError);
}

}  // namespace
}  // namespace fathom::infer::test
