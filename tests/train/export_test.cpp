// An export takes the weights of a checkpoint and the tokenizer and text that they were trained on, however the checkpoint is
// named, or nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "core/file.h"
#include "data/prepare.h"
#include "text/bpe_train.h"
#include "text/tokenizer.h"
#include "train/helpers.h"

namespace fathom::train {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Every path under a folder.
std::set<std::string> tree(const std::string& folder) {
  std::set<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) out.insert(entry.path().string());
  return out;
}

// A run that prepared its own text and trained its own tokenizer.
class Exporting : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string text = join_path(folder_.path(), "t.txt");
    write_text(text);
    train(tiny({{"data.text", text}, {"data.vocab_size", "300"}, {"data.validation_share", "0.2"}, {"interval.eval_steps", "0"}}), {.run = run_});
  }
  std::string last() { return find_checkpoints(run_).back().path; }
  std::string read(const std::string& path) { return read_file(path, 1 << 30); }

  TemporaryFolder folder_;
  std::string run_ = join_path(folder_.path(), "run"), out_ = join_path(folder_.path(), "exported");
};

TEST_F(Exporting, TheRunIsFoundHoweverTheCheckpointIsNamed) {
  const std::set<std::string> before = tree(run_);
  const std::string name = fs::path(last()).filename().string();
  const fs::path here = fs::current_path();
  for (const std::string& path : {last(), last() + "/", last() + "//", last() + "/../" + name, std::string("."), std::string("./"), "../" + name}) {
    SCOPED_TRACE(path);
    fs::current_path(last());
    EXPECT_EQ(error_of([&] { export_checkpoint(path, out_); }), "no error");
    fs::current_path(here);
    for (const char* file : {"tokenizer.json", "config.json", "model.safetensors", "fathom_dial.json"})
      EXPECT_EQ(read(join_path(out_, file)), read(join_path(run_, "model/" + std::string(file)))) << file;
    EXPECT_EQ(tree(run_), before);
    remove_all(out_);
  }
}

TEST_F(Exporting, ARunWithoutItsDataIsRefusedAndNothingIsPrepared) {
  remove_all(join_path(run_, "data"));
  const std::set<std::string> before = tree(run_);
  EXPECT_THAT(error_of([&] { export_checkpoint(last(), out_); }), AllOf(HasSubstr(join_path(run_, "data")), HasSubstr("the dataset that the run was trained on")));
  EXPECT_EQ(tree(run_), before);
  EXPECT_FALSE(exists(out_));
}

// The same folder, prepared again since the run: by another tokenizer, and from other text.
TEST(Exports, AnotherDatasetUnderTheSameNameIsRefused) {
  const TemporaryFolder folder;
  const std::string data = join_path(folder.path(), "data"), run = join_path(folder.path(), "run"), out = join_path(folder.path(), "exported"),
                    text = join_path(folder.path(), "other.txt");
  fs::copy(corpus(), data, fs::copy_options::recursive);
  train(tiny({{"data.dataset", data}}), {.run = run});
  const std::string checkpoint = find_checkpoints(run).back().path;
  const text::Tokenizer same = text::Tokenizer::load(data);
  write_text(text);
  const std::string words = read_file(text, 1 << 20);
  bool given = false;
  const text::BpeTrainOptions options{.vocab_size = 320};
  const text::Tokenizer other = text::Tokenizer::from_json(
      text::train_bpe([&](std::string& t) { return given ? false : (t = words, given = true); }, options).tokenizer_json, "other");
  ASSERT_EQ(other.vocab_size(), same.vocab_size());  // else the shapes would tell
  for (const auto& [tokenizer, field] : {std::pair(&other, "tokenizer: found "), std::pair(&same, "dataset: found ")}) {
    remove_all(data);
    data::prepare({text}, data, *tokenizer, {.validation_share = 0.3});
    EXPECT_THAT(error_of([&] { export_checkpoint(checkpoint, out); }), AllOf(HasSubstr(checkpoint), HasSubstr(field), HasSubstr("prepared anew")));
    EXPECT_FALSE(exists(out));
  }
  remove_all(data);
  fs::copy(corpus(), data, fs::copy_options::recursive);
  EXPECT_EQ(error_of([&] { export_checkpoint(checkpoint, out); }), "no error");
}

}  // namespace
}  // namespace fathom::train
