#include "train/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/file.h"
#include "train/helpers.h"
#include "train/overrides.h"
#include "train/schedule.h"

namespace fathom::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Config, DefaultsRoundTrip) {
  const TrainConfig c = tiny();
  EXPECT_EQ(TrainConfig::from_json(c.to_json(), "again"), c);
  EXPECT_TRUE(differences(c, TrainConfig::from_json(c.to_json(), "again")).empty());
}

TEST(Config, EveryFieldRoundTrips) {
  const TrainConfig c = tiny({{"schedule.kind", "wsd"}, {"schedule.warmup_steps", "3"}, {"schedule.decay_share", "0.5"}, {"router.noise", "0.25"},
                              {"router.capacity_warmup_steps", "4"}, {"router.capacity_curve", "cosine"}, {"losses.router_z", "1e-4"},
                              {"budget.flops", "1e9"}, {"model.fathom.rule", "predictor"}, {"precision", "auto"}, {"f32_route", "auto"},
                              {"accumulation", "3"}, {"calibration.dials", "[0.5, 0.75]"}, {"model.rope_theta", "5e4"}});
  EXPECT_EQ(c.schedule.kind, ScheduleKind::wsd);
  EXPECT_EQ(c.budget, Budget::flops);
  EXPECT_EQ(c.amount, 1e9);
  EXPECT_EQ(c.losses.at("router_z"), 1e-4);
  EXPECT_EQ(TrainConfig::from_json(c.to_json(), "again"), c);
}

TEST(Config, TextAndDatasetAreExclusiveOnTheCommandLineToo) {
  const TrainConfig c = tiny({{"data.text", "[\"a.txt\", \"b\"]"}});
  EXPECT_TRUE(c.data.dataset.empty());
  EXPECT_EQ(c.data.text, (std::vector<std::string>{"a.txt", "b"}));
  EXPECT_EQ(tiny({{"data.text", "one.txt"}}).data.text, std::vector<std::string>{"one.txt"});
  EXPECT_EQ(TrainConfig::from_json(c.to_json(), "again"), c);
}

TEST(Config, OverrideReplacesTheOtherBudget) {
  const TrainConfig c = tiny({{"budget.tokens", "1000"}});
  EXPECT_EQ(c.budget, Budget::tokens);
  EXPECT_EQ(c.amount, 1000);
}

TEST(Config, ADenseModelIsOneFromWhateverItSaysOfRouting) {
  const TrainConfig a = tiny({{"model.fathom", "null"}});
  const TrainConfig b = tiny({{"model.fathom.routed_blocks", "none"}, {"model.fathom.gate", "hard"}});
  EXPECT_TRUE(a.model.routing.dense());
  EXPECT_EQ(a, b);
}

TEST(Config, RulesThatAreLearnedHaveTheirLoss) {
  EXPECT_GT(tiny({{"model.fathom.rule", "predictor"}}).losses.at("predictor_bce"), 0);
  EXPECT_GT(tiny({{"model.fathom.rule", "router_bce"}}).losses.at("router_bce"), 0);
  EXPECT_TRUE(tiny().losses.empty());
}

TEST(Config, DifferencesNameFieldsAndPassOverIntervals) {
  const TrainConfig a = tiny(), b = tiny({{"optimizer.lr", "1e-3"}, {"seed", "2"}, {"interval.log_steps", "5"}, {"interval.keep_last", "7"}});
  EXPECT_EQ(differences(a, b), (std::vector<std::string>{"optimizer.lr", "seed"}));
}

TEST(Config, AFolderMayBeCalledLikeANumber) {
  for (const char* name : {"2024", "true", "1e5"}) EXPECT_EQ(tiny({{"data.dataset", name}}).data.dataset, name);
  EXPECT_EQ(tiny({{"data.text", "[\"a\", \"b\"]"}}).data.text, (std::vector<std::string>{"a", "b"}));
}

// docs/training.md, "Interrupting and resuming", says which.
TEST(Config, WhatAResumeMayChange) {
  const TrainConfig a = tiny();
  for (const Overrides& free : std::vector<Overrides>{{{"interval.log_steps", "7"}}, {{"interval.checkpoint_steps", "7"}}, {{"interval.checkpoint_seconds", "7"}},
                                                      {{"interval.keep_last", "7"}}, {{"calibration.tokens", "7"}}, {{"calibration.dials", "[0.5]"}},
                                                      {{"data.dataset", "elsewhere"}}})
    EXPECT_TRUE(differences(a, tiny(free)).empty()) << free[0].first;
  for (const Overrides& fixed : std::vector<Overrides>{{{"interval.eval_steps", "7"}}, {{"interval.eval_tokens", "7"}}, {{"interval.final_eval_tokens", "7"}},
                                                       {{"threads", "7"}}, {{"precision", "bf16"}}, {{"f32_route", "mkl"}}, {{"budget.steps", "7"}}})
    EXPECT_EQ(differences(a, tiny(fixed)), std::vector<std::string>{fixed[0].first});
}

TEST(Config, ReadsCommentsAndOverridesFromAFile) {
  const TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "c.json");
  atomic_write(path, "// what this is\n" + tiny_json().dump(2) + "/* end */\n");
  EXPECT_EQ(load_config(path, {{"optimizer.lr", "0.25"}}).optimizer.lr, 0.25);
}

TEST(Config, AWrongOverrideIsTheCommandLinesFault) {
  const TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "c.json");
  atomic_write(path, tiny_json().dump());
  const auto usage = [&](const Overrides& overrides) -> std::string {
    try {
      load_config(path, overrides);
    } catch (const UsageError& e) {
      return e.what();
    } catch (const UserError& e) {
      return std::string("not of usage: ") + e.what();
    }
    return "";
  };
  EXPECT_THAT(usage({{"seed", "3"}, {"optimizer.lr", "abc"}}), AllOf(::testing::StartsWith("--optimizer.lr abc: found the string \"abc\""), HasSubstr("expected a number")));
  EXPECT_THAT(usage({{"model.hidden_size", "-4"}, {"seed", "3"}}), ::testing::StartsWith("--model.hidden_size -4: found the number -4"));
  EXPECT_THAT(usage({{"model.fathom.gate", "shut"}}), AllOf(::testing::StartsWith("--model.fathom.gate shut: found \"shut\""), HasSubstr("sigmoid")));
  EXPECT_THAT(usage({{"calibration.dials", "[0.5, 0]"}}), ::testing::StartsWith("--calibration.dials [0.5, 0]: calibration.dials[1]: found 0"));
  EXPECT_THAT(usage({{"budget.steps", "0"}}), ::testing::StartsWith("--steps 0: found the number 0"));
  // The field that does not fit is in the file, but it did without the flag.
  EXPECT_THAT(usage({{"seed", "3"}, {"model.max_position_embeddings", "16"}}), AllOf(::testing::StartsWith("--model.max_position_embeddings 16: sequence_length"), HasSubstr("found 32")));
  // The file's own fault stays the file's.
  Json broken = tiny_json();
  broken["optimizer"]["lr"] = -1;
  atomic_write(path, broken.dump());
  EXPECT_THAT(usage({{"seed", "3"}}), AllOf(::testing::StartsWith("not of usage: "), HasSubstr(path)));
}

TEST(Config, PathsInAFileBecomeAbsolute) {
  const TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "c.json");
  atomic_write(path, tiny_json().dump());
  const TrainConfig c = load_config(path, {{"data.text", "[\"a/../b.txt\", \"/c\"]"}, {"data.tokenizer", "t.json"}});
  EXPECT_EQ(c.data.text[0], std::filesystem::current_path().string() + "/b.txt");
  EXPECT_EQ(c.data.text[1], "/c");
  EXPECT_EQ(c.data.tokenizer, std::filesystem::current_path().string() + "/t.json");
}

TEST(Config, TheExamplesAreRight) {
  int count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(FATHOM_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".json") continue;
    ++count;
    const TrainConfig c = load_config(entry.path().string(), {{"data.dataset", corpus()}, {"budget.flops", "1e14"}});
    EXPECT_GT(total_steps(c), 0) << entry.path();
  }
  EXPECT_GE(count, 3);
}

TEST(Overrides, SplitAtTheFirstEquals) {
  EXPECT_EQ(split_override("data.field=a=b"), (std::pair<std::string, std::string>{"data.field", "a=b"}));
  EXPECT_THAT(error_of([] { split_override("optimizer.lr"); }), AllOf(HasSubstr("--set"), HasSubstr("\"optimizer.lr\""), HasSubstr("FIELD=VALUE")));
  EXPECT_THROW(split_override("=3"), UsageError);
}

TEST(Overrides, KnownPathsCoverTheWholeConfiguration) {
  const auto& known = known_paths();
  for (const char* path : {"optimizer.lr", "model.hidden_size", "model.fathom.capacity", "model.fathom", "losses.router_z", "budget.flops",
                           "data.text", "data.dataset", "schedule.warmup_share", "schedule.warmup_steps", "router.capacity_warmup_share",
                           "interval.keep_last", "calibration.dials", "seed", "threads", "precision", "f32_route", "model.vocab_size"})
    EXPECT_TRUE(std::binary_search(known.begin(), known.end(), path)) << path;
}

struct Bad {
  const char* field;
  const char* value;
  std::vector<const char*> says;  // all in the message
};

TEST(Config, EveryWrongFieldIsNamedWithWhatWasExpected) {
  const std::vector<Bad> cases = {
      {"optimizer.lr", "0", {"tiny", "optimizer.lr", "found 0", "above 0"}},
      {"optimizer.lr", "\"fast\"", {"optimizer.lr", "the string \"fast\"", "a number from 0"}},
      {"optimizer.beta2", "1", {"optimizer.beta2", "1", "0.999999"}},
      {"optimizer.clip", "-1", {"optimizer.clip", "-1", "a number from 0"}},
      {"batch_size", "0", {"batch_size", "0", "a whole number from 1"}},
      {"batch_size", "2.5", {"batch_size", "2.5", "a whole number"}},
      {"sequence_length", "4096", {"sequence_length", "4096", "max_position_embeddings, 2048"}},
      {"budget.steps", "0", {"budget.steps", "0", "from 1"}},
      {"schedule.kind", "cosin", {"schedule.kind", "\"cosin\"", "cosine, wsd"}},
      {"schedule.final_ratio", "2", {"schedule.final_ratio", "2", "from 0 to 1"}},
      {"precision", "fp8", {"precision", "\"fp8\"", "auto, f32, bf16"}},
      {"f32_route", "cublas", {"f32_route", "\"cublas\"", "mkl, onednn"}},
      {"seed", "-1", {"seed", "-1", "from 0"}},
      {"router.capacity_start", "0", {"router.capacity_start", "0", "above 0"}},
      {"losses.router_z", "-1", {"losses.router_z", "-1"}},
      {"model.hidden_size", "0", {"tiny: model", "hidden_size", "0"}},
      {"model.num_key_value_heads", "3", {"num_key_value_heads", "3", "a divisor of num_attention_heads 2"}},
      {"model.fathom.capacity", "1.5", {"fathom.capacity", "1.5", "at most 1"}},
      {"model.fathom.gate", "softmax", {"fathom.gate", "\"softmax\"", "one_plus_tanh"}},
      {"model.fathom.forced_positions", "33", {"forced_positions", "33", "sequence_length, 32"}},
      {"model.hidden_act", "gelu", {"hidden_act", "\"gelu\"", "\"silu\""}},
      {"data.vocab_size", "10", {"data.vocab_size", "10", "from 257"}},
      {"calibration.dials", "[0.5, 0]", {"calibration.dials[1]", "0", "above 0"}},
      {"interval.keep_last", "0", {"interval.keep_last", "0", "from 1"}},
      {"threads", "100000", {"threads", "100000", "to 1024"}},
  };
  for (const Bad& bad : cases) {
    const std::string message = error_of([&] { tiny({{bad.field, bad.value}}); });
    for (const char* part : bad.says) EXPECT_THAT(message, HasSubstr(part)) << bad.field << " = " << bad.value;
  }
}

TEST(Config, WrongFilesAreNamed) {
  const auto from = [](const std::function<void(Json&)>& change) {
    Json j = tiny_json();
    change(j);
    return error_of([&] { TrainConfig::from_json(j, "file.json"); });
  };
  EXPECT_THAT(from([](Json& j) { j["optimiser"] = Json::object(); }), AllOf(HasSubstr("file.json: optimiser"), HasSubstr("\"optimizer\" perhaps")));
  EXPECT_THAT(from([](Json& j) { j["optimizer"]["learning_rate"] = 1; }), AllOf(HasSubstr("optimizer.learning_rate"), HasSubstr("an unknown key")));
  EXPECT_THAT(from([](Json& j) { j["model"]["hiden_size"] = 1; }), AllOf(HasSubstr("hiden_size"), HasSubstr("\"hidden_size\" perhaps")));
  EXPECT_THAT(from([](Json& j) { j["losses"]["router_zz"] = 1; }), AllOf(HasSubstr("losses.router_zz"), HasSubstr("\"router_z\" perhaps")));
  EXPECT_THAT(from([](Json& j) { j.erase("model"); }), AllOf(HasSubstr("file.json: model"), HasSubstr("no such key")));
  EXPECT_THAT(from([](Json& j) { j["model"]["fathom"] = {{"routed_blocks", {0}}, {"paths", "exit,full"}, {"capacity", 0.5}}; }),
              AllOf(HasSubstr("file.json: model: fathom.units[0].paths"), HasSubstr("exit,full"), HasSubstr("training knows whole blocks")));
  EXPECT_THAT(from([](Json& j) { j["model"]["fathom"] = {{"routed_blocks", {0}}, {"granularity", "mlp"}, {"capacity", 0.5}}; }), HasSubstr("fathom.units[0].part"));
  EXPECT_THAT(from([](Json& j) { j["model"] = 3; }), AllOf(HasSubstr("model"), HasSubstr("the number 3")));
  EXPECT_THAT(from([](Json& j) { j["model"]["eos_token_id"] = 0; }), AllOf(HasSubstr("eos_token_id"), HasSubstr("the dataset gives it")));
  EXPECT_THAT(from([](Json& j) { j.erase("budget"); }), AllOf(HasSubstr("budget.steps"), HasSubstr("\"tokens\" and \"flops\"")));
  EXPECT_THAT(from([](Json& j) { j["budget"]["tokens"] = 5; }), AllOf(HasSubstr("\"steps\" and \"tokens\""), HasSubstr("one of")));
  EXPECT_THAT(from([](Json& j) { j.erase("data"); }), HasSubstr("neither \"dataset\" nor \"text\""));
  EXPECT_THAT(from([](Json& j) { j["data"]["text"] = "x"; }), HasSubstr("both \"dataset\" and \"text\""));
  EXPECT_THAT(from([](Json& j) { j["data"]["tokenizer"] = "t"; }), HasSubstr("a prepared dataset carries its tokenizer"));
  EXPECT_THAT(from([](Json& j) { j["data"] = {{"text", "x"}, {"validation_share", 0}}; }), HasSubstr("held-out text"));
  EXPECT_THAT(from([](Json& j) { j["schedule"] = {{"warmup_steps", 1}, {"warmup_share", 0.1}}; }), HasSubstr("both warmup_steps and warmup_share"));
  EXPECT_THAT(from([](Json& j) {
                j["model"]["fathom"]["rule"] = "predictor";
                j["losses"]["predictor_bce"] = 0;
              }), AllOf(HasSubstr("losses.predictor_bce"), HasSubstr("learns from it")));
  EXPECT_THAT(from([](Json& j) { j["losses"]["predictor_bce"] = 1; }), AllOf(HasSubstr("losses.predictor_bce"), HasSubstr("the rule is \"score\"")));
  EXPECT_THAT(from([](Json& j) {
                j["model"]["fathom"]["rule"] = "predictor";
                j["losses"]["router_bce"] = 1;
              }), AllOf(HasSubstr("losses.router_bce"), HasSubstr("the rule is \"predictor\"")));
  EXPECT_EQ(from([](Json& j) {
              j["model"]["fathom"] = nullptr;  // a routed model's twin
              j["losses"]["predictor_bce"] = 1;
            }), "no error");
  EXPECT_THAT(error_of([] { TrainConfig::from_json(Json::array(), "file.json"); }), AllOf(HasSubstr("file.json"), HasSubstr("an array of 0")));
}

TEST(Overrides, UnknownFieldsAreRefusedWithTheNearest) {
  const std::string message = error_of([] { tiny({{"optimizer.lrr", "1"}}); });
  EXPECT_THAT(message, AllOf(HasSubstr("optimizer.lrr"), HasSubstr("\"optimizer.lr\" perhaps")));
  EXPECT_THROW(tiny({{"zzzzzzzzzz", "1"}}), UsageError);
  Json j = {{"model", 3}};
  EXPECT_THAT(error_of([&] { apply_override(j, "model.hidden_size", "1", known_paths()); }), HasSubstr("a field inside the number 3"));
  // An object is held as one in a file is.
  EXPECT_THAT(error_of([&] { Json o; apply_override(o, "optimizer", R"({"lr": 1e-3, "lr": 5e-3})", known_paths()); }), AllOf(HasSubstr("--optimizer"), HasSubstr("lr")));
}

}  // namespace
}  // namespace fathom::train
