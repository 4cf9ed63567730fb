#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <set>

#include "core/file.h"
#include "data/prepare.h"
#include "model/folder.h"
#include "routing/dial.h"
#include "text/tokenizer.h"
#include "train/helpers.h"
#include "train/schedule.h"

namespace fathom::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Training : public ::testing::Test {
 protected:
  std::string run(const std::string& name = "run") { return join_path(folder_.path(), name); }
  TemporaryFolder folder_;
};

// The grammar's sentences are predictable but for names, verbs, things and two digits.
const Overrides kLearn = {{"budget.steps", "250"}, {"batch_size", "8"}, {"sequence_length", "64"}, {"optimizer.lr", "1e-2"}, {"interval.eval_steps", "0"},
                          {"interval.log_steps", "10"}, {"interval.checkpoint_steps", "0"}, {"interval.final_eval_tokens", "4096"},
                          {"calibration.tokens", "2048"}};

Overrides with(Overrides a, const Overrides& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST_F(Training, LearnsUnderTheCausalRuleToo) {
  const Json s = train(tiny(kLearn), {.run = run()});
  const Json& f = s.at("figures");
  const double causal = f.at("loss"), topk = f.at("loss_topk");
  EXPECT_LT(causal, 1.2);
  EXPECT_LT(topk, 1.2);
  EXPECT_LT(std::abs(causal - topk), 0.1);
  for (const Json& share : f.at("share")) EXPECT_NEAR(share.get<double>(), 0.25, 0.1);
  EXPECT_GT(f.at("bits_per_byte").get<double>(), 0);
}

TEST_F(Training, EveryRecipeRunsAndLearns) {
  const std::vector<Overrides> recipes = {
      {{"model.fathom", "null"}},
      {{"model.fathom.selection", "threshold"}},
      {{"model.fathom.selection", "random"}},
      {{"model.fathom.rule", "predictor"}},
      {{"model.fathom.rule", "router_bce"}, {"model.fathom.gate", "sigmoid"}},
      {{"model.fathom.gate", "hard"}, {"model.fathom.kv", "keep"}, {"model.fathom.forced_positions", "2"}},
      {{"model.fathom.gate", "raw"}, {"model.fathom.router_input", "normed"}, {"model.fathom.router_bias", "true"}, {"router.noise", "0.1"},
       {"losses.router_z", "1e-4"}, {"router.capacity_warmup_share", "0.5"}, {"accumulation", "2"}},
      {{"model.fathom.routed_blocks", "all"}, {"model.fathom.capacity", "0.5"}, {"model.tie_word_embeddings", "false"}}};
  int number = 0;
  for (const Overrides& recipe : recipes) {
    const TrainConfig config = tiny(with(with(kLearn, {{"budget.steps", "40"}, {"schedule.warmup_steps", "5"}}), recipe));
    const Json s = train(config, {.run = run(std::to_string(number))});
    EXPECT_LT(s.at("figures").at("loss").get<double>(), 4.0) << number;  // log 320 = 5.8
    EXPECT_TRUE(std::isfinite(s.at("figures").at("loss_topk").get<double>())) << number;
    ++number;
  }
}

TEST_F(Training, TheModelFolderHoldsWhatWasTrained) {
  const TrainConfig config = tiny();
  const Json s = train(config, {.run = run()});
  const auto folder = model::ModelFolder::open(join_path(run(), "model"));
  EXPECT_EQ(folder->config().routing, config.model.routing);
  EXPECT_EQ(folder->config().vocab_size, 320);
  EXPECT_EQ(folder->config().eos_token_ids, std::vector<int64_t>{0});
  ASSERT_TRUE(folder->dial().has_value());
  const routing::DialTable& dial = *folder->dial();
  EXPECT_EQ(dial.points.back().dial, 1);
  EXPECT_EQ(dial.points.size(), 3u);  // 0.7, the default, 1
  const routing::DialPoint point = dial.at(dial.default_dial);
  for (const double c : point.capacity) EXPECT_NEAR(c, 0.25, 0.01);
  EXPECT_GT(point.loss, 0);
  EXPECT_EQ(folder->tokenizer().identity(), text::Tokenizer::load(corpus()).identity());
  // The last checkpoint's weights are the model's.
  nn::Transformer from_checkpoint(folder->config()), from_folder(folder->config());
  load_weights(find_checkpoints(run()).back().path, from_checkpoint);
  from_folder.load(*folder);
  for (const nn::Parameter& p : from_folder.parameters()) EXPECT_TRUE(at::equal(p.tensor, from_checkpoint.parameter(p.name))) << p.name;
  EXPECT_EQ(s, read_json(join_path(run(), "summary.json")));
}

// What stood around the documents, not what the tokenizer could have put there.
TEST_F(Training, TheModelKnowsTheEndsOfItsDocuments) {
  const std::string text = join_path(folder_.path(), "text.txt");
  std::string all;
  for (int i = 0; i < 300; ++i) all += str("Ada sees the red boat number ", i, ".\n", i % 3 == 2 ? "<|endoftext|>\n" : "");
  atomic_write(text, all);
  Json json = parse_json(text::Tokenizer::load(corpus()).json(), "tokenizer");
  json["post_processor"] = parse_json(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "b", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                                          "pair": [], "special_tokens": {"b": {"id": "b", "ids": [9], "tokens": ["b"]}}})", "template");
  const text::Tokenizer tokenizer = text::Tokenizer::from_json(json.dump(), "tokenizer");
  ASSERT_TRUE(tokenizer.bos_id() && tokenizer.eos_id());
  for (const bool bos : {false, true})
    for (const bool eos : {false, true}) {
      const std::string name = str(bos, eos), data = join_path(folder_.path(), "data" + name);
      data::PrepareOptions options;
      options.validation_share = 0.2, options.add_bos = bos, options.add_eos = eos;
      data::prepare({text}, data, tokenizer, options);
      train(tiny({{"data.dataset", data}, {"budget.steps", "1"}}), {.run = run(name)});
      const auto folder = model::ModelFolder::open(join_path(run(name), "model"));
      EXPECT_EQ(folder->config().bos_token_id.has_value(), bos);
      EXPECT_EQ(folder->config().bos_token_id.value_or(9), 9);
      EXPECT_EQ(folder->config().eos_token_ids, eos ? std::vector<int64_t>{*tokenizer.eos_id()} : std::vector<int64_t>{});
      EXPECT_EQ(folder->generation().eos_token_ids, folder->config().eos_token_ids);
    }
}

TEST_F(Training, CountsWhatTheBudgetCounts) {
  const TrainConfig config = tiny({{"model.vocab_size", "320"}, {"budget.flops", "1e9"}, {"router.capacity_warmup_share", "0.3"}});
  const Json s = train(config, {.run = run()});
  EXPECT_EQ(s.at("steps"), total_steps(config));
  const double planned = run_flops(config, total_steps(config)), spent = s.at("train_flops");
  EXPECT_DOUBLE_EQ(s.at("planned_flops"), planned);
  EXPECT_LE(spent, planned);  // documents do not see each other, which the plan takes no account of
  EXPECT_GT(spent, 0.95 * planned);
  EXPECT_EQ(s.at("tokens").get<int64_t>(), total_steps(config) * 4 * 32);
}

// Shares and FLOPs of the same steps, from two places: where more tokens run than the capacity says, more is counted.
TEST_F(Training, CountsTheTokensThatRan) {
  for (const char* selection : {"threshold", "random"}) {
    const TrainConfig config = tiny({{"model.vocab_size", "320"}, {"model.fathom.selection", selection}, {"interval.eval_steps", "0"}, {"model.fathom.capacity", "0.5"}});
    train(config, {.run = run(selection)});
    double before = 0;
    for (const Json& line : metrics_of(run(selection))) {
      if (line.at("type") != "train") continue;
      const double planned = step_flops(config, line.at("share").get<std::vector<double>>()), spent = line.at("flops").get<double>() - before;
      EXPECT_LE(spent, planned * 1.01) << selection << line;  // the plan rounds a share of a row up
      EXPECT_GT(spent, planned * 0.95) << selection << line;
      before = line.at("flops");
    }
    // No threshold is known before the first step: all tokens run.
    if (selection == std::string("threshold")) {
      EXPECT_EQ(metrics_of(run(selection))[0].at("share"), Json::parse("[1.0, 1.0]"));
    }
  }
}

TEST_F(Training, AFinishedRunAnswersWithItsSummary) {
  const Json s = train(tiny(), {.run = run()});
  EXPECT_EQ(train(tiny(), {.run = run(), .resume = true}), s);
  EXPECT_THAT(describe_summary(s), AllOf(HasSubstr("under the causal rule"), HasSubstr("bits per byte"), HasSubstr("top-k")));
}

TEST_F(Training, PreparesTextIntoTheRun) {
  const std::string text = join_path(folder_.path(), "t.txt");
  write_text(text);
  const TrainConfig config = tiny({{"data.text", text}, {"data.vocab_size", "300"}, {"data.validation_share", "0.2"}, {"interval.eval_tokens", "64"}});
  const Json s = train(config, {.run = run()});
  EXPECT_TRUE(exists(join_path(run(), "data/manifest.json")));
  EXPECT_EQ(s.at("config").at("model").at("vocab_size"), 300);
}

TEST_F(Training, APipeIsReadOnceAndRefused) {
  const std::string pipe = join_path(folder_.path(), "pipe.txt");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(error_of([&] { train(tiny({{"data.text", pipe}}), {.run = run()}); }), AllOf(HasSubstr(pipe), HasSubstr("a pipe"), HasSubstr("more than once")));
}

TEST_F(Training, SkipsAStepThatIsNotFinite) {
  std::vector<float> kept;
  RunOptions options{.run = run()};
  options.after_step = [&](int64_t step, double, nn::Transformer& network) {
    const std::string name = "model.layers.0.mlp.up_proj.weight";
    if (step == 3) {
      kept = network.read(name);
      std::vector<float> broken = kept;
      broken[5] = NAN;
      network.load(name, broken);
    }
    if (step == 5) network.load(name, kept);
  };
  train(tiny({{"interval.eval_steps", "0"}}), options);
  int warnings = 0;
  for (const Json& line : metrics_of(run())) warnings += line.at("type") == "warning" && line.at("text").get<std::string>().find("not finite") != std::string::npos;
  EXPECT_EQ(warnings, 2);
}

TEST_F(Training, StopsWhenNothingIsFiniteAnyMore) {
  RunOptions options{.run = run()};
  options.after_step = [&](int64_t step, double, nn::Transformer& network) {
    if (step != 3) return;
    const std::string name = "model.norm.weight";
    std::vector<float> broken = network.read(name);
    broken[0] = INFINITY;
    network.load(name, broken);
  };
  const std::string message = error_of([&] { train(tiny({{"interval.eval_steps", "0"}, {"budget.steps", "40"}}), options); });
  EXPECT_THAT(message, AllOf(HasSubstr("step 13"), HasSubstr("10 steps in a row"), HasSubstr("lower optimizer.lr")));
}

TEST_F(Training, MetricsSayEverythingOfTheRouter) {
  train(tiny({{"model.fathom.rule", "predictor"}}), {.run = run()});
  bool train_line = false, eval_line = false;
  for (const Json& line : metrics_of(run())) {
    if (line.at("type") == "train") {
      train_line = true;
      for (const char* key : {"step", "tokens", "flops", "loss", "lr", "gradient_norm", "share", "agreement", "precision", "recall", "never", "capacity", "position"})
        EXPECT_TRUE(line.contains(key)) << key;
      EXPECT_GT(line.at("aux").at("predictor_bce").get<double>(), 0);
    }
    if (line.at("type") == "eval") {
      eval_line = true;
      for (const char* key : {"loss", "loss_topk", "bits_per_byte", "block_fraction", "total_fraction", "agreement"}) EXPECT_TRUE(line.contains(key)) << key;
    }
  }
  EXPECT_TRUE(train_line && eval_line);
}

TEST_F(Training, WarnsWhenRoutersCollapseToPositions) {
  RunOptions options{.run = run()};
  // Equal scores: ties go to the earlier positions.
  options.after_step = [&](int64_t, double, nn::Transformer& network) {
    for (const nn::Parameter& p : network.parameters())
      if (p.name.find("router") != std::string::npos) network.load(p.name, std::vector<float>(static_cast<size_t>(p.tensor.numel()), 0.0f));
  };
  train(tiny({{"batch_size", "16"}, {"interval.eval_steps", "0"}}), options);
  int warnings = 0;
  for (const Json& line : metrics_of(run())) warnings += line.at("type") == "warning" && line.at("text").get<std::string>().find("position alone") != std::string::npos;
  EXPECT_GT(warnings, 10);
}

TEST_F(Training, AThresholdThatIsNotKnownYetIsNoCollapse) {
  train(tiny({{"model.fathom.selection", "threshold"}, {"model.fathom.capacity", "0.5"}, {"budget.steps", "3"}, {"interval.eval_steps", "0"}}), {.run = run()});
  for (const Json& line : metrics_of(run())) EXPECT_NE(line.at("type"), "warning") << line;
}

TEST_F(Training, TheGatesTemperatureMattersToItsGradientOnly) {
  std::vector<std::vector<float>> routers;
  std::vector<double> losses;
  for (const char* tau : {"1", "0.1"}) {
    RunOptions options{.run = run(tau)};
    options.after_step = [&](int64_t step, double loss, nn::Transformer& network) {
      if (step > 1) return;
      losses.push_back(loss);
      for (const nn::Parameter& p : network.parameters())
        if (p.router) routers.push_back(network.read(p.name));
    };
    train(tiny({{"model.fathom.gate", "hard"}, {"router.straight_through_tau", tau}, {"budget.steps", "1"}, {"optimizer.eps", "1"}, {"optimizer.clip", "0"}}), options);
  }
  ASSERT_EQ(losses.size(), 2u);
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_NE(routers[0], routers[2]);
}

TEST_F(Training, TheRandomControlIsNoCollapse) {
  train(tiny({{"batch_size", "16"}, {"model.fathom.selection", "random"}}), {.run = run()});
  for (const Json& line : metrics_of(run())) EXPECT_NE(line.at("type"), "warning");
}

TEST_F(Training, TheRandomControlDrawsAnewInEveryStep) {
  train(tiny({{"batch_size", "16"}, {"accumulation", "2"}, {"model.fathom.selection", "random"}, {"interval.eval_steps", "0"}}), {.run = run()});
  std::set<double> shares;
  for (const Json& line : metrics_of(run())) {
    if (line.at("type") != "train") continue;
    shares.insert(line.at("share")[0].get<double>());
    EXPECT_LT(line.at("position")[0].get<double>(), 0.2) << line;
  }
  EXPECT_GT(shares.size(), 8u);  // of 12 steps
}

TEST_F(Training, AVocabularySmallerThanTheTokenizersIsRefused) {
  EXPECT_THAT(error_of([&] { train(tiny({{"model.vocab_size", "100"}}), {.run = run()}); }), AllOf(HasSubstr("model.vocab_size"), HasSubstr("the tokenizer's 320")));
}

// Known before the first step: what the end of the run needs.
TEST_F(Training, TooLittleHeldOutTextIsRefusedBeforeTheFirstStep) {
  std::string words;
  for (int i = 0; i < 300; ++i) words += "Ada sees the red boat.\n";
  const std::string text = join_path(folder_.path(), "t.txt"), data = join_path(folder_.path(), "data");
  atomic_write(text, words);
  const text::Tokenizer tokenizer = text::Tokenizer::load(corpus());
  for (const auto& [split, found] : {std::pair{data::SplitMode::by_tail, "tokens of held-out text"}, std::pair{data::SplitMode::none, "found 0 tokens"}}) {
    data::PrepareOptions prepare;
    prepare.split = split;
    prepare.validation_share = 0.01;
    data::prepare({text}, data, tokenizer, prepare);
    for (const char* fathom : {"{\"routed_blocks\": \"all\", \"capacity\": 0.5}", "null"}) {
      bool stepped = false;
      RunOptions options{.run = run()};
      options.after_step = [&](int64_t, double, nn::Transformer&) { stepped = true; };
      EXPECT_THAT(error_of([&] { train(tiny({{"data.dataset", data}, {"model.fathom", fathom}, {"interval.eval_steps", "0"}}), options); }),
                  AllOf(HasSubstr(data), HasSubstr("validation"), HasSubstr(found), HasSubstr("at least 2 × sequence_length + 1 = 65"), HasSubstr("validation share")));
      EXPECT_FALSE(stepped);
      remove_all(run());
    }
    remove_all(data);
  }
}

// Noise widens the scores that select: the quantile must be theirs, or more tokens than asked for lie above it.
TEST_F(Training, ThresholdSelectionKeepsNearItsCapacity) {
  for (const char* noise : {"0", "0.3", "1"}) {
    train(tiny(with(kLearn, {{"model.fathom.selection", "threshold"}, {"model.fathom.capacity", "0.125"}, {"router.noise", noise}, {"budget.steps", "120"},
                             {"router.quantile_decay", "0.9"}})),
          {.run = run(noise)});
    std::vector<double> share(2);
    int lines = 0;
    for (const Json& line : metrics_of(run(noise)))
      if (line.at("type") == "train" && line.at("step").get<int64_t>() > 60) {
        for (size_t r = 0; r < 2; ++r) share[r] += line.at("share")[r].get<double>();
        ++lines;
      }
    for (size_t r = 0; r < 2; ++r) EXPECT_NEAR(share[r] / lines, 0.125, 0.03) << "noise " << noise << ", block " << r;
  }
}

}  // namespace
}  // namespace fathom::train
