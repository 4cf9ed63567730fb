// What a start that fails costs: no text is prepared for a run that cannot be, and text that was prepared is not lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/file.h"
#include "train/helpers.h"

namespace fathom::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Starting : public ::testing::Test {
 protected:
  void SetUp() override { write_text(text_); }
  TrainConfig from_text(Overrides more) {
    more.insert(more.begin(), {{"data.text", text_}, {"data.vocab_size", "300"}, {"data.validation_share", "0.2"}, {"interval.eval_tokens", "64"}});
    return tiny(more);
  }
  TemporaryFolder folder_;
  std::string text_ = join_path(folder_.path(), "t.txt"), run_ = join_path(folder_.path(), "run");
};

TEST_F(Starting, WhatNeedsNoTextIsAskedBeforeTheTextIsPrepared) {
  const std::string tokenizer = join_path(corpus(), "tokenizer.json");
  const std::vector<std::pair<Overrides, const char*>> faults = {
      {{{"model.hidden_size", "16384"}, {"model.num_attention_heads", "128"}, {"model.num_key_value_heads", "128"}, {"model.intermediate_size", "200000"}, {"model.num_hidden_layers", "100"}}, "of memory that are free"},
      {{{"batch_size", "1048576"}, {"accumulation", "1000"}}, "batch_size: found 1048576 rows"},
      {{{"data.tokenizer", tokenizer}, {"batch_size", "1048576"}, {"accumulation", "1000"}}, "batch_size: found 1048576 rows"},
      {{{"data.tokenizer", tokenizer}, {"model.vocab_size", "300"}}, "at least the tokenizer's 320"},
      {{{"budget.steps", "1e12"}, {"sequence_length", "512"}, {"batch_size", "1024"}}, "tokens in all"}};
  for (const auto& [overrides, message] : faults) {
    int asked = 0;  // while a tokenizer is trained and while text is prepared
    RunOptions options{.run = run_};
    options.stop = [&] { return ++asked < 0; };
    EXPECT_THAT(error_of([&] { train(from_text(overrides), options); }), HasSubstr(message));
    EXPECT_EQ(asked, 0) << message;
    EXPECT_FALSE(exists(run_)) << message;
  }
}

TEST_F(Starting, TextThatWasPreparedOutlivesAFailure) {
  const std::string data = join_path(run_, "data");
  const Overrides fault = {{"sequence_length", "100000"}, {"model.max_position_embeddings", "100000"}};
  EXPECT_THAT(error_of([&] { train(from_text(fault), {.run = run_}); }), HasSubstr("tokens of held-out text"));
  EXPECT_EQ(list_folder(run_), std::vector<std::string>{"data"});
  EXPECT_THAT(error_of([&] { train(from_text({}), {.run = run_}); }), AllOf(HasSubstr(data + ": found there already"), HasSubstr("--data.dataset " + data)));
  // A dataset that was there before is nobody's to remove.
  const Overrides dataset = {{"data.dataset", data}, {"interval.eval_tokens", "64"}};
  Overrides wrong = dataset;
  wrong.insert(wrong.end(), fault.begin(), fault.end());
  EXPECT_THAT(error_of([&] { train(tiny(wrong), {.run = run_}); }), HasSubstr("tokens of held-out text"));
  EXPECT_EQ(list_folder(run_), std::vector<std::string>{"data"});
  EXPECT_EQ(train(tiny(dataset), {.run = run_}).at("steps"), 12);
}

}  // namespace
}  // namespace fathom::train
