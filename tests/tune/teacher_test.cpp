// What the teacher says against the network's own softmax, and the file that keeps it.
#include <gmock/gmock.h>

#include <cmath>
#include <fstream>

#include "core/file.h"
#include "train/evaluate.h"
#include "tune/helpers.h"
#include "tune/teacher_cache.h"

namespace fathom::tune {
namespace {

using ::testing::HasSubstr;
using train::error_of;

train::Batch batch_of(int64_t rows, int64_t first = 0) {
  const auto data = data::Dataset::open(train::corpus(), "train");
  const std::vector<int64_t> begins = train::evaluation_windows(*data, 64 * 32, 32, 0, 1);
  return train::read_batch(*data, std::span(begins).subspan(static_cast<size_t>(first), static_cast<size_t>(rows)), 32);
}

TeacherOptions options(const std::string& cache = "") { return {.top = 8, .threads = 1, .cache = cache, .rows = "these", .row_tokens = 32}; }

// Rows with a document's end in them are among the first 64, or the comparison would not see whether documents are kept apart.
TEST(Teacher, SaysWhatTheNetworkSays) {
  const auto folder = model::ModelFolder::open(models().dense);
  Teacher teacher(folder, options());
  const train::Batch batch = batch_of(64);
  EXPECT_TRUE(std::ranges::any_of(batch.document_start, [](int32_t s) { return s > 0; }));
  nn::Transformer network(folder->config());
  network.load(*folder);
  const at::NoGradGuard no_grad;
  nn::ForwardOptions forward;
  forward.logits = true;
  const nn::ForwardResult own = network.forward(train::to_tensors(batch), forward);
  const at::Tensor expected = at::log_softmax(own.logits.reshape({-1, folder->config().vocab_size}), -1);
  const Teacher::Answer answer = teacher.ask(batch);
  const nn::Teacher& said = answer.said;
  ASSERT_EQ(said.ids.sizes().vec(), (std::vector<int64_t>{64 * 32, 8}));
  const auto [top, ids] = at::topk(expected, 8, -1);
  EXPECT_LT((said.log_probability - top).abs().max().item<double>(), 0.01) << "half of an f16's last place at −16, and rounding";
  EXPECT_LT((expected.gather(1, said.ids.to(at::kLong)) - top).abs().max().item<double>(), 1e-3) << "ids of other likelihoods";
  EXPECT_EQ(answer.targets, own.target_count);
  EXPECT_NEAR(answer.nll / static_cast<double>(answer.targets), own.loss.item<double>(), 1e-4);
  TeacherOptions all = options();
  all.top = 0;
  const nn::Teacher logits = Teacher(folder, all).ask(batch).said;
  EXPECT_LT((at::log_softmax(logits.logits, -1) - expected).abs().max().item<double>(), 1e-3);
}

TEST(Teacher, KeptRowsAreTheSameToTheBit) {
  const TemporaryFolder place;
  const auto folder = model::ModelFolder::open(models().dense);
  const std::string cache = join_path(place.path(), "cache");
  Teacher fresh(folder, options());
  const nn::Teacher first = fresh.ask(batch_of(2)).said, second = fresh.ask(batch_of(2, 2)).said;
  {
    Teacher filling(folder, options(cache));
    EXPECT_TRUE(filling.rows(batch_of(2), 0).log_probability.equal(first.log_probability));
    EXPECT_EQ(filling.cached_rows(), 2);
    EXPECT_THAT(error_of([&] { Teacher(folder, options(cache)); }), HasSubstr("another process fills it"));
  }
  Teacher kept(folder, options(cache));
  EXPECT_EQ(kept.cached_rows(), 2);
  for (const auto& [row, expected] : {std::pair(0, &first), std::pair(2, &second)}) {
    const nn::Teacher said = kept.rows(batch_of(2, row), row);
    EXPECT_TRUE(said.ids.equal(expected->ids));
    EXPECT_TRUE(said.log_probability.equal(expected->log_probability));
  }
  EXPECT_EQ(kept.cached_rows(), 4);
  EXPECT_TRUE(kept.rows(batch_of(2, 2), 2).log_probability.equal(second.log_probability)) << "from the file this time";
  EXPECT_EQ(kept.cache_bytes(4 * 32), file_size([&] { return join_path(cache, list_folder(cache).front()); }()));
  // Other rows, another file.
  TeacherOptions other = options(cache);
  other.rows = "others";
  EXPECT_EQ(Teacher(folder, other).cached_rows(), 0);
}

std::vector<std::byte> record(char c) { return std::vector<std::byte>(10, static_cast<std::byte>(c)); }

TEST(TeacherCache, DropsWhatWasNotFinishedAndRefusesWhatIsDamaged) {
  const TemporaryFolder place;
  const Json key = {{"what", "test"}};
  std::string path;
  {
    TeacherCache cache(place.path(), key, 10);
    for (const char c : {'a', 'b', 'c'}) cache.append(record(c));
    path = cache.path();
    EXPECT_EQ(cache.read(1), record('b'));
  }
  std::filesystem::resize_file(path, static_cast<uintmax_t>(file_size(path) - 1));
  {
    TeacherCache cache(place.path(), key, 10);
    EXPECT_EQ(cache.records(), 2);
    cache.append(record('d'));
    EXPECT_EQ(cache.read(2), record('d'));
    EXPECT_EQ(cache.read(0), record('a'));
  }
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(file_size(path)) - 2 * 42);  // the second record's first byte
    file.put('x');
  }
  {
    const TeacherCache cache(place.path(), key, 10);
    EXPECT_THAT(error_of([&] { cache.read(1); }), HasSubstr("record 1: found other bytes than were written"));
    EXPECT_EQ(cache.read(2), record('d'));
  }
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.put('x');
  }
  EXPECT_THAT(error_of([&] { TeacherCache(place.path(), key, 10); }), HasSubstr("another header"));
  std::filesystem::resize_file(path, 5);  // killed while it was made
  EXPECT_EQ(TeacherCache(place.path(), key, 10).records(), 0);
}

TEST(Teacher, MustFit) {
  const auto dense = model::ModelFolder::open(models().dense), routed = model::ModelFolder::open(models().routed);
  EXPECT_EQ(error_of([&] { require_teacher(*dense, *routed, false); }), "no error");
  EXPECT_THAT(error_of([&] { require_teacher(*routed, *routed, false); }), HasSubstr("expected a dense teacher"));
  const TemporaryFolder place;
  const auto changed = [&](const char* key, int64_t value, const std::string& tokenizer = "") {
    const std::string path = join_path(place.path(), str(key, value));
    Json config = read_json(join_path(models().dense, "config.json"));
    config[key] = value;
    if (std::string(key) == "rope_theta") config.erase("rope_parameters");
    model::ModelConfig c = model::ModelConfig::from_json(config, "c");
    model::ModelToWrite out;
    out.config = c;
    out.tensor = [](const model::TensorSpec& spec) { return std::vector<float>(static_cast<size_t>(spec.elements()), 0.01F); };
    out.tokenizer_json = tokenizer.empty() ? bytes_of(join_path(models().dense, "tokenizer.json")) : tokenizer;
    model::write_model_folder(path, out);
    return model::ModelFolder::open(path);
  };
  EXPECT_THAT(error_of([&] { require_teacher(*changed("vocab_size", 400), *routed, true); }), HasSubstr("vocab_size: found 400, expected 320"));
  EXPECT_THAT(error_of([&] { require_teacher(*changed("intermediate_size", 128), *routed, false); }), HasSubstr("intermediate_size: found 128, expected 64"));
  for (const auto& [key, value] : std::vector<std::pair<const char*, int64_t>>{{"hidden_size", 64}, {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"head_dim", 8}, {"rope_theta", 500}}) {
    const std::string refused = error_of([&, key = key, value = value] { require_teacher(*changed(key, value), *routed, false); });
    EXPECT_THAT(refused, HasSubstr(str(key, ": found ", value, ", expected ")));
    EXPECT_THAT(refused, HasSubstr("--other-teacher"));
  }
  EXPECT_EQ(error_of([&] { require_teacher(*changed("intermediate_size", 160), *routed, true); }), "no error");
  EXPECT_THAT(error_of([&] { require_teacher(*changed("num_hidden_layers", 3), *routed, false); }), HasSubstr("num_hidden_layers: found 3, expected at least 4"));
  std::string other = bytes_of(join_path(models().dense, "tokenizer.json"));
  Json json = Json::parse(other);
  json["model"]["merges"].erase(json["model"]["merges"].size() - 1);
  EXPECT_THAT(error_of([&] { require_teacher(*changed("num_hidden_layers", 5, json.dump()), *routed, false); }), HasSubstr("tokenizer: found"));
}

}  // namespace
}  // namespace fathom::tune
