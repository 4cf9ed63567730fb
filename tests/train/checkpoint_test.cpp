#include "train/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/file.h"
#include "data/prepare.h"
#include "formats/safetensors.h"
#include "text/tokenizer.h"
#include "train/helpers.h"
#include "train/metrics.h"

namespace fathom::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A run that was stopped after six of its steps.
class StoppedRun : public ::testing::Test {
 protected:
  void SetUp() override {
    run_ = join_path(folder_.path(), "run");
    int64_t now = 0;
    RunOptions options{.run = run_};
    options.after_step = [&](int64_t step, double, nn::Transformer&) { now = step; };
    options.stop = [&] { return now == 6; };
    EXPECT_THROW(train(config_, options), Interrupted);
  }
  std::string resume_error(const TrainConfig& config) {
    return error_of([&] { train(config, {.run = run_, .resume = true}); });
  }
  std::string last() { return find_checkpoints(run_).back().path; }

  TemporaryFolder folder_;
  std::string run_;
  TrainConfig config_ = tiny({{"interval.keep_last", "1"}, {"interval.eval_steps", "2"}});
};

TEST_F(StoppedRun, KeepsTheLastAndTheBest) {
  const std::vector<Found> found = find_checkpoints(run_);
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found.back().step, 6);
  EXPECT_LE(found.size(), 2u);
  const Progression p = read_checkpoint(found.back().path).progression;
  ASSERT_TRUE(p.best_loss.has_value());
  bool best_is_there = false;
  for (const Found& f : found) best_is_there |= f.step == p.best_step && f.validation_loss == p.best_loss;
  EXPECT_TRUE(best_is_there);
}

TEST_F(StoppedRun, RefusesAnotherConfigurationByName) {
  EXPECT_THAT(resume_error(tiny({{"optimizer.lr", "1e-4"}, {"interval.keep_last", "1"}, {"interval.eval_steps", "2"}})),
              AllOf(HasSubstr("optimizer.lr: found "), HasSubstr("as the run was started with")));
  EXPECT_THAT(resume_error(tiny({{"threads", "2"}, {"interval.keep_last", "1"}, {"interval.eval_steps", "2"}})), HasSubstr("threads"));
}

TEST_F(StoppedRun, AllowsOtherIntervals) {
  EXPECT_EQ(resume_error(tiny({{"interval.keep_last", "3"}, {"interval.eval_steps", "2"}, {"interval.checkpoint_steps", "1"}})), "no error");
}

TEST_F(StoppedRun, RefusesADamagedState) {
  const std::string path = join_path(last(), "state.safetensors");
  std::string bytes = read_file(path, 1 << 30);
  bytes[bytes.size() / 2] ^= 1;
  atomic_write(path, bytes);
  EXPECT_THAT(resume_error(config_), AllOf(HasSubstr("state.safetensors"), HasSubstr("hash"), HasSubstr("earlier checkpoint")));
}

TEST_F(StoppedRun, RefusesATruncatedState) {
  const std::string path = join_path(last(), "state.safetensors");
  const std::string bytes = read_file(path, 1 << 30);
  atomic_write(path, bytes.substr(0, bytes.size() / 2));
  EXPECT_THAT(resume_error(config_), HasSubstr("hash"));
}

TEST_F(StoppedRun, RefusesWrongCheckpointFiles) {
  const std::string path = join_path(last(), "checkpoint.json");
  const Json good = read_json(path);
  const auto with = [&](const std::function<void(Json&)>& change) {
    Json j = good;
    change(j);
    atomic_write(path, j.dump());
    return resume_error(config_);
  };
  EXPECT_THAT(with([](Json& j) { j["version"] = 99; }), AllOf(HasSubstr("version"), HasSubstr("99"), HasSubstr("another version")));
  EXPECT_THAT(with([](Json& j) { j["progression"]["step"] = 5; }), AllOf(HasSubstr("progression.step"), HasSubstr("folder's name")));
  EXPECT_THAT(with([](Json& j) { j["progression"]["step"] = 500; }), HasSubstr("progression.step"));
  EXPECT_THAT(with([](Json& j) { j["progression"]["loader"]["epoch"] = -1; }), HasSubstr("progression.loader.epoch"));
  EXPECT_THAT(with([](Json& j) { j["progression"].erase("tokens"); }), HasSubstr("progression.tokens"));
  EXPECT_THAT(with([](Json& j) { j["identity"]["precision"] = "fp8"; }), AllOf(HasSubstr(path), HasSubstr("identity.precision"), HasSubstr("\"fp8\""), HasSubstr("bf16")));
  EXPECT_THAT(with([](Json& j) { j["identity"]["f32_route"] = "blas"; }), AllOf(HasSubstr(path), HasSubstr("identity.f32_route"), HasSubstr("\"blas\""), HasSubstr("onednn")));
  EXPECT_THAT(with([](Json& j) { j["identity"]["tokenizer"] = "0"; }), AllOf(HasSubstr("tokenizer"), HasSubstr("last checkpoint")));
  EXPECT_THAT(with([](Json& j) { j["identity"]["dataset"] = "0"; }), AllOf(HasSubstr("dataset"), HasSubstr("prepared anew")));
  EXPECT_THAT(with([](Json& j) { j["identity"]["config"]["optimizer"]["lr"] = 0.5; }), HasSubstr("optimizer.lr"));
  EXPECT_THAT(with([](Json& j) { j["extra"] = 1; }), HasSubstr("extra"));
  atomic_write(path, "{\"version\": 1, ");
  EXPECT_THAT(resume_error(config_), HasSubstr("checkpoint.json"));
  remove_all(path);
  EXPECT_THAT(resume_error(config_), HasSubstr("checkpoint.json"));
}

// Nothing that the configuration and the step fix is taken from the file unseen.
TEST_F(StoppedRun, RefusesAProgressionThatContradictsTheConfiguration) {
  const std::string path = join_path(last(), "checkpoint.json");
  const Json good = read_json(path);
  const auto with = [&](const char* pointer, int64_t change) {
    Json j = good;
    Json& value = j["progression"][Json::json_pointer(pointer)];
    value = value.get<int64_t>() + change;
    atomic_write(path, j.dump());
    return resume_error(config_);
  };
  for (const char* field : {"/total", "/tokens", "/loader/seed", "/loader/epoch", "/loader/position"})
    for (const int64_t change : {int64_t{1}, int64_t{1} << 40})
      EXPECT_THAT(with(field, change), AllOf(HasSubstr("checkpoint.json: progression."), HasSubstr("expected"))) << field;
  EXPECT_EQ(with("/total", 0), "no error");
}

// A step far beyond the budget is refused before the epochs up to it are gone through, which would take hours.
TEST_F(StoppedRun, RefusesAStepBeyondTheBudgetAtOnce) {
  const int64_t step = 1000000000000;
  const std::string folder = join_path(std::filesystem::path(last()).parent_path().string(), str("step-", step));
  std::filesystem::rename(last(), folder);
  Json j = read_json(join_path(folder, "checkpoint.json"));
  j["progression"]["step"] = j["progression"]["total"] = step;
  atomic_write(join_path(folder, "checkpoint.json"), j.dump());
  EXPECT_THAT(resume_error(config_), AllOf(HasSubstr("progression.total"), HasSubstr(str(step))));
}

TEST_F(StoppedRun, RefusesQuantilesOfAnotherModel) {
  const std::string path = join_path(last(), "state.safetensors"), about = join_path(last(), "checkpoint.json");
  const Json good = read_json(about);
  for (const size_t count : {0u, 1u, 3u}) {  // the model has two routed blocks
    const TemporaryFolder folder;
    const std::string copy = join_path(folder.path(), "state.safetensors");
    {
      const formats::SafetensorsFile file(path);
      std::vector<formats::TensorEntry> entries;
      for (const formats::TensorView& t : file.tensors())
        entries.push_back({t.name, t.dtype, t.name == "quantile.decision" ? std::vector<int64_t>{static_cast<int64_t>(count)} : t.shape});
      formats::SafetensorsWriter writer(copy, entries);
      const std::vector<std::byte> zeros(4 * count);
      for (const formats::TensorView& t : file.tensors()) writer.append(t.name == "quantile.decision" ? std::span<const std::byte>(zeros) : t.bytes);
      writer.commit();
    }
    const std::string kept = read_file(path, 1 << 30);
    atomic_write(path, read_file(copy, 1 << 30));
    Json j = good;
    Hasher hasher;
    const std::string bytes = read_file(path, 1 << 30);
    hasher.update(bytes.data(), bytes.size());
    j["state_hash"] = hasher.hex();
    atomic_write(about, j.dump());
    EXPECT_THAT(resume_error(config_), AllOf(HasSubstr("state.safetensors: quantile.decision: found " + std::to_string(count)), HasSubstr("one per routed block: 2")));
    atomic_write(path, kept);
    atomic_write(about, good.dump());
  }
}

TEST_F(StoppedRun, CleansWhatAKilledRunLeft) {
  const std::string half = join_path(run_, "checkpoints/.step-000000009.tmp-123-0");
  make_folders(half);
  atomic_write(join_path(half, "state.safetensors"), "half");
  atomic_write(join_path(run_, ".summary.json.tmp-77-1"), "{");
  for (const char* name : {".notes.tmp-keep", ".notes.tmp-77-1", ".model.tmp-mine"}) atomic_write(join_path(run_, name), "the user's own");
  EXPECT_EQ(find_checkpoints(run_).back().step, 6);
  EXPECT_EQ(resume_error(config_), "no error");
  EXPECT_FALSE(exists(half));
  EXPECT_FALSE(exists(join_path(run_, ".summary.json.tmp-77-1")));
  for (const char* name : {".notes.tmp-keep", ".notes.tmp-77-1", ".model.tmp-mine"}) EXPECT_TRUE(exists(join_path(run_, name))) << name;
}

TEST_F(StoppedRun, ADamagedSummaryIsRefusedByName) {
  const std::string path = join_path(run_, "summary.json");
  for (const auto& [text, message] : {std::pair("{}", "summary.json: model"), std::pair("[1]", "summary.json"), std::pair("{", "summary.json"),
                                      std::pair(R"({"figures": 3, "model": 5})", "summary.json: model: found the number 5"),
                                      std::pair(R"({"model": "m", "steps": 1, "tokens": 1, "train_flops": 1, "train_seconds": 1, "figures": {"parameters": 1, "loss": null}})", "figures.bits_per_byte")}) {
    atomic_write(path, text);
    EXPECT_THAT(resume_error(config_), HasSubstr(message)) << text;
  }
}

TEST_F(StoppedRun, AHalfRemovedCheckpointIsNone) {
  // prune_checkpoints hides a folder before it empties it.
  std::filesystem::rename(last(), join_path(run_, "checkpoints/.step-000000006.tmp-removed"));
  EXPECT_EQ(resume_error(config_), "no error");
  EXPECT_TRUE(exists(join_path(run_, "summary.json")));
}

TEST_F(StoppedRun, ASecondProcessIsRefused) {
  const FileLock lock = lock_run(run_);
  EXPECT_THAT(resume_error(config_), HasSubstr("another process"));
}

TEST_F(StoppedRun, ANewRunDoesNotOverwriteIt) {
  EXPECT_THAT(error_of([&] { train(config_, {.run = run_}); }), HasSubstr("another run"));
}

TEST_F(StoppedRun, AnExportThatIsStoppedWritesNothing) {
  const std::string out = join_path(folder_.path(), "exported");
  EXPECT_THROW(export_checkpoint(last(), out, [] { return true; }), Interrupted);
  EXPECT_FALSE(exists(out));
  EXPECT_THAT(error_of([&] { export_checkpoint(run_, out); }), AllOf(HasSubstr("found a folder without checkpoint.json"), HasSubstr(last())));
}

TEST_F(StoppedRun, ExportsACheckpoint) {
  const std::string model = join_path(folder_.path(), "exported");
  const Json figures = export_checkpoint(last(), model);
  EXPECT_GT(figures.at("loss").get<double>(), 0);
  EXPECT_TRUE(exists(join_path(model, "model.safetensors")));
  EXPECT_TRUE(exists(join_path(model, "fathom_dial.json")));
  EXPECT_TRUE(exists(join_path(model, "tokenizer.json")));
  EXPECT_THAT(error_of([&] { export_checkpoint(last(), model); }), HasSubstr("an existing path"));
}

TEST(Runs, TheBestCheckpointStaysWhenItIsNotTheLast) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run");
  RunOptions options{.run = run};
  options.after_step = [&](int64_t step, double, nn::Transformer& network) {
    if (step == 5) network.load("model.norm.weight", std::vector<float>(32, -30.0f));  // surely wrong from here on
  };
  const Json summary = train(tiny({{"interval.keep_last", "1"}, {"interval.eval_steps", "2"}, {"interval.checkpoint_steps", "1"}}), options);
  EXPECT_EQ(summary.at("best").at("step"), 4);
  const std::vector<Found> found = find_checkpoints(run);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].step, 4);
  EXPECT_EQ(found[0].validation_loss, summary.at("best").at("loss").get<double>());
  EXPECT_EQ(found[1].step, 12);
}

// What was there before stays, what the start wrote goes, and the corrected command runs.
TEST(Runs, AFailedStartLeavesNothingBehind) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run"), text = join_path(folder.path(), "broken.txt");
  std::string words;
  for (int i = 0; i < 3000; ++i) words += "Ada sees the red boat.\n";
  atomic_write(text, words + "\xff\xfe broken UTF-8\n" + words);
  const std::vector<std::pair<Overrides, const char*>> faults = {
      {{{"data.dataset", join_path(folder.path(), "none")}}, "no such folder"},
      {{{"model.vocab_size", "100"}}, "model.vocab_size"},
      {{{"model.hidden_size", "16384"}, {"model.num_attention_heads", "128"}, {"model.num_key_value_heads", "128"}, {"model.intermediate_size", "200000"}, {"model.num_hidden_layers", "100"}}, "of memory that are free"},
      {{{"batch_size", "1048576"}, {"accumulation", "1000"}}, "batch_size: found 1048576 rows of sequence_length 32"},
      {{{"data.text", text}, {"data.tokenizer", join_path(corpus(), "tokenizer.json")}}, "UTF-8"},
      {{{"sequence_length", "1000000"}, {"model.max_position_embeddings", "1000000"}}, "tokens"}};
  for (const bool made : {false, true}) {
    if (made) {
      make_folders(run);
      atomic_write(join_path(run, "notes.txt"), "mine");
    }
    for (const auto& [overrides, message] : faults) {
      EXPECT_THAT(error_of([&] { train(tiny(overrides), {.run = run}); }), HasSubstr(message));
      EXPECT_EQ(exists(run), made) << message;
      if (!made) continue;
      for (const auto& entry : std::filesystem::directory_iterator(run)) EXPECT_EQ(entry.path().filename(), "notes.txt") << message;
    }
  }
  EXPECT_EQ(train(tiny(), {.run = run}).at("steps"), 12);
  EXPECT_EQ(read_file(join_path(run, "notes.txt"), 100), "mine");
}

// A run replaces its own files without asking; those of somebody else it never meets.
TEST(Runs, AFolderThatHoldsWhatARunWritesIsRefused) {
  for (const char* name : {"model/mine.txt", "checkpoints/mine.txt", "metrics.jsonl", "summary.json", "data/mine.txt", "tokenizer.json"}) {
    const TemporaryFolder folder;
    const std::string run = join_path(folder.path(), "run"), file = join_path(run, name);
    make_folders(std::filesystem::path(file).parent_path().string());
    atomic_write(file, "mine");
    const std::string first = std::string(name).substr(0, std::string(name).find('/'));
    const bool from_text = first == "data" || first == "tokenizer.json";
    const std::string text = join_path(folder.path(), "text.txt");
    if (from_text) atomic_write(text, "Ada sees the red boat.\n");
    const TrainConfig config = from_text ? tiny({{"data.text", text}}) : tiny();
    EXPECT_THAT(error_of([&] { train(config, {.run = run}); }), AllOf(HasSubstr(join_path(run, first) + ": found there already"), HasSubstr("choose another folder")));
    EXPECT_EQ(read_file(file, 100), "mine");
    EXPECT_FALSE(exists(join_path(run, "config.json")));
  }
}

TEST(Runs, AFailureAfterTheFirstStepLeavesTheRun) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run");
  RunOptions options{.run = run};
  options.after_step = [](int64_t, double, nn::Transformer&) { throw UserError("power cut"); };
  EXPECT_THAT(error_of([&] { train(tiny(), options); }), HasSubstr("power cut"));
  EXPECT_TRUE(exists(join_path(run, "config.json")));
  EXPECT_EQ(train(tiny(), {.run = run, .resume = true}).at("steps"), 12);
}

TEST(Runs, AFileInTheRunsPlaceIsRefused) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run");
  atomic_write(run, "a file");
  EXPECT_THAT(error_of([&] { train(tiny(), {.run = run}); }), AllOf(HasSubstr(run), HasSubstr("a file"), HasSubstr("choose another name")));
}

TEST_F(StoppedRun, AFileInTheCheckpointsPlaceIsRefused) {
  const std::string folder = join_path(run_, "checkpoints");
  remove_all(folder);
  atomic_write(folder, "a file");
  EXPECT_THAT(resume_error(config_), AllOf(HasSubstr(folder), HasSubstr("found a file"), HasSubstr("move it away")));
}

TEST(Runs, ResumingWhatIsNoRunIsRefused) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { config_of_run(join_path(folder.path(), "no")); }), AllOf(HasSubstr("no such folder"), HasSubstr("--out")));
  EXPECT_THAT(error_of([&] { config_of_run(folder.path()); }), HasSubstr("without config.json"));
}

TEST(Runs, TheSameDataAtAnotherPlaceIsTheSame) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run"), moved = join_path(folder.path(), "moved");
  int64_t now = 0;
  RunOptions options{.run = run};
  options.after_step = [&](int64_t step, double, nn::Transformer&) { now = step; };
  options.stop = [&] { return now == 2; };
  EXPECT_THROW(train(tiny(), options), Interrupted);
  std::filesystem::copy(corpus(), moved, std::filesystem::copy_options::recursive);
  EXPECT_EQ(train(tiny({{"data.dataset", moved}}), {.run = run, .resume = true}).at("steps"), 12);
}

TEST(Runs, AnotherDatasetUnderTheSameNameIsRefused) {
  const TemporaryFolder folder;
  const std::string data = join_path(folder.path(), "data"), run = join_path(folder.path(), "run");
  std::filesystem::copy(corpus(), data, std::filesystem::copy_options::recursive);
  const TrainConfig config = tiny({{"data.dataset", data}});
  int64_t now = 0;
  RunOptions options{.run = run};
  options.after_step = [&](int64_t step, double, nn::Transformer&) { now = step; };
  options.stop = [&] { return now == 2; };
  EXPECT_THROW(train(config, options), Interrupted);
  const text::Tokenizer tokenizer = text::Tokenizer::load(data);
  remove_all(data);
  const std::string text = join_path(folder.path(), "other.txt");
  std::string words;
  for (int i = 0; i < 3000; ++i) words += "Ada sees the red boat.\n";
  atomic_write(text, words);
  data::prepare({text}, data, tokenizer, {});
  EXPECT_THAT(error_of([&] { train(config, {.run = run, .resume = true}); }), HasSubstr("dataset"));
}

// What a run said can be read while it goes on.
TEST(Metrics, EveryLineIsInBothFilesAtOnce) {
  const TemporaryFolder folder;
  Metrics metrics(folder.path(), 0);
  const auto events = [&] {
    std::string all;
    for (const std::string& name : list_folder(folder.path()))
      if (name.starts_with("events.")) all += read_file(join_path(folder.path(), name), 1 << 20);
    return all;
  };
  metrics.write({{"type", "train"}, {"step", 1}, {"loss", 2.5}});
  EXPECT_THAT(events(), HasSubstr("train/loss"));
  metrics.write({{"type", "warning"}, {"step", 2}, {"text", "block 3 has collapsed"}});
  EXPECT_THAT(events(), AllOf(HasSubstr("warning"), HasSubstr("block 3 has collapsed"), HasSubstr("text")));
}

TEST(Metrics, TruncationKeepsWholeLinesUpToAStep) {
  const TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "metrics.jsonl");
  const std::string one = "{\"step\":1,\"type\":\"train\"}\n", two = "{\"step\":2,\"type\":\"eval\"}\n";
  atomic_write(path, one + two + "{\"step\":2,\"type\":\"final\"}\n{\"step\":3,\"type\":\"train\"}\n{\"step\":2,\"ty");
  truncate_metrics(path, 2);
  EXPECT_EQ(read_file(path, 1000), one + two);
  atomic_write(path, one + "what?\n" + two);
  EXPECT_THAT(error_of([&] { truncate_metrics(path, 2); }), HasSubstr("metrics.jsonl:2"));
}

}  // namespace
}  // namespace fathom::train
