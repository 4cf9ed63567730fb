// Weights from a folder are those from memory; what they hold is what the model has.
#include "infer/weights.h"

#include "core/file.h"
#include "model/cost.h"
#include "support.h"

namespace fathom::infer::test {
namespace {

TEST(Weights, AFolderGivesWhatWasWritten) {
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    const Model model = Model::drawn(seed + 7000, {.dense = seed % 3 == 0, .paths = true, .adapters = true});
    SCOPED_TRACE(model.describe());
    TemporaryFolder temporary;
    const std::string path = join_path(temporary.path(), "model");
    model::write_model_folder(path, model::model_to_write(model.config, model.tensors));
    const auto folder = model::ModelFolder::open(path);
    const int64_t predicted = resident_bytes(*folder);
    const std::shared_ptr<const Weights> loaded = Weights::load(*folder);
    EXPECT_EQ(loaded->bytes(), model.weights->bytes());
    EXPECT_NEAR(static_cast<double>(predicted), static_cast<double>(loaded->bytes()), 8.0 * static_cast<double>(model.config.num_hidden_layers));  // single biases
    Random random(seed);
    const std::vector<int32_t> tokens = model::random_tokens(model.config, 20, random);
    const RoutingPolicy policy = RoutingPolicy::causal(model::random_thresholds(model.config, random));
    Engine ours(model.weights, {.threads = 1}), theirs(loaded, {.threads = 1});
    expect_same(read(theirs, tokens, policy), read(ours, tokens, policy), "from the folder");
  }
}

TEST(Weights, EmbeddingRowsAndBytes) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const Model model = Model::drawn(seed + 7100);
    const int64_t C = model.config.hidden_size;
    std::vector<float> row(C);
    const std::vector<float>& table = model.tensors.at("model.embed_tokens.weight");
    for (int64_t id = 0; id < model.config.vocab_size; ++id) {
      model.weights->embed(static_cast<int32_t>(id), row.data());
      ASSERT_TRUE(same_bits(row, std::span(table).subspan(id * C, C)));
    }
    // Panels are filled up to 16 outputs, so never less than the parameters and, for these small models, not much more.
    const int64_t elsewhere = model.config.tie_word_embeddings ? 0 : model.config.vocab_size * C;
    EXPECT_GE(model.weights->bytes(), (model::parameters(model.config).total() - elsewhere - 4 * model.config.num_hidden_layers) * 4);
  }
}

TEST(Weights, AMissingTensorIsAProgrammersError) {
  const Model model = Model::drawn(7200);
  model::Weights tensors = model.tensors;
  tensors.erase("model.norm.weight");
  EXPECT_THROW(Weights::from(model.config, tensors), std::logic_error);
  tensors["model.norm.weight"] = {1.0f};
  EXPECT_THROW(Weights::from(model.config, tensors), std::logic_error);
}

}  // namespace
}  // namespace fathom::infer::test
