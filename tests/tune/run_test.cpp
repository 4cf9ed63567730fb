// Whole runs: resumed to the bit, lossless where only routers and light paths were tuned, budgets that are met, the artifact that makes the same model.
#include <gmock/gmock.h>

#include <filesystem>
#include <limits>
#include <optional>
#include <utility>

#include "convert/artifact.h"
#include "convert/surgery.h"
#include "core/file.h"
#include "infer/score.h"
#include "tune/finish.h"
#include "tune/helpers.h"

namespace fathom::tune {
namespace {

using ::testing::HasSubstr;
using train::error_of;

std::vector<std::string> results(const std::string& run, const TuneConfig& config) {
  std::vector<std::string> out = {bytes_of(join_path(run, "model/model.safetensors")), bytes_of(join_path(run, "model/fathom_dial.json")), bytes_of(join_path(run, "artifact/tuned.safetensors"))};
  for (size_t i = 0; i < config.stages.size(); ++i) out.push_back(bytes_of(join_path(run, str(i + 1, "-", name_of(config.stages[i].what, kWhatNames), "/tuned.safetensors"))));
  return out;
}

void expect_equal_metrics(const std::string& a, const std::string& b) {
  const std::vector<Json> x = stage_metrics(a), y = stage_metrics(b);
  ASSERT_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(x[i], y[i]);
}

class Resume : public ::testing::TestWithParam<const char*> {};

TEST_P(Resume, IsBitExact) {
  TuneConfig config = tiny(models().routed);
  const std::string kind = GetParam();
  const TemporaryFolder folder;
  if (kind == "bf16") config.precision = train::Precision::bf16;
  if (kind == "accumulation") config.accumulation = 2, config.batch_size = 2;
  if (kind == "cache") config.teacher_cache = join_path(folder.path(), "cache");
  if (kind == "logits") config.teacher_top = 0;
  if (kind == "alone") config.teacher = "", config.loss_weight = 1;
  if (kind == "other") {
    config.other = {join_path(folder.path(), "other.txt")}, config.other_share = 0.3;
    config.teacher_cache = join_path(folder.path(), "cache");
    std::string text;
    for (int i = 0; i < 3000; ++i) text += str(i * 7919 % 1000, i % 9 == 8 ? "\n\n" : " ");
    atomic_write(config.other[0], text);
  }
  const std::string whole = join_path(folder.path(), "whole"), cut = join_path(folder.path(), "cut");
  const Json expected = tune(config, {.run = whole});
  int interruptions = 0;
  // Between checkpoints, right after a resume, at the end of the first stage's last step but one, in the second stage.
  for (const auto& [stage, at] : std::vector<std::pair<size_t, int64_t>>{{0, 2}, {0, 3}, {0, 5}, {1, 1}, {1, 4}}) {
    std::pair<size_t, int64_t> now;
    RunOptions options{.run = cut, .resume = interruptions > 0};
    options.after_step = [&](size_t s, int64_t step, nn::Transformer&) { now = {s, step}; };
    options.stop = [&, stage = stage, at = at] { return now == std::pair(stage, at); };
    try {
      tune(config, options);
    } catch (const Interrupted&) {
      ++interruptions;
    }
  }
  EXPECT_EQ(interruptions, 5);
  const Json found = tune(config_of_run(cut), {.run = cut, .resume = true});
  if (kind == "alone") {
    EXPECT_EQ(bytes_of(join_path(whole, "model/model.safetensors")), bytes_of(join_path(cut, "model/model.safetensors")));
  } else {
    EXPECT_EQ(results(whole, config), results(cut, config));
  }
  for (const char* stage : {"1-routers", "2-adapters"}) expect_equal_metrics(join_path(whole, stage), join_path(cut, stage));
  EXPECT_EQ(found.at("dial"), expected.at("dial"));
}

// A crash leaves checkpoints that are older than the last steps: those are computed again.
TEST(Tune, AfterACrashIsBitExact) {
  const TuneConfig config = tiny(models().routed);
  const TemporaryFolder folder;
  const std::string whole = join_path(folder.path(), "whole"), cut = join_path(folder.path(), "cut");
  tune(config, {.run = whole});
  struct Crash {};
  // Checkpoints are made behind step 3: whoever goes on begins there, or where there is none at the beginning of the stage.
  std::vector<std::pair<size_t, int64_t>> begins;
  const auto go = [&](std::optional<std::pair<size_t, int64_t>> end) {
    RunOptions options{.run = cut, .resume = !begins.empty()};
    bool first = true;
    options.after_step = [&](size_t stage, int64_t step, nn::Transformer&) {
      if (std::exchange(first, false)) begins.emplace_back(stage, step);
      if (end == std::pair(stage, step)) throw Crash();
    };
    tune(config, options);
  };
  for (const std::pair<size_t, int64_t>& at : {std::pair<size_t, int64_t>{0, 2}, {0, 5}, {1, 2}, {1, 5}}) EXPECT_THROW(go(at), Crash);
  go({});
  EXPECT_EQ(begins, (std::vector<std::pair<size_t, int64_t>>{{0, 1}, {0, 1}, {0, 4}, {1, 1}, {1, 4}}));
  EXPECT_EQ(results(whole, config), results(cut, config));
  for (const char* stage : {"1-routers", "2-adapters"}) expect_equal_metrics(join_path(whole, stage), join_path(cut, stage));
}

INSTANTIATE_TEST_SUITE_P(Kinds, Resume, ::testing::Values("plain", "bf16", "accumulation", "cache", "logits", "alone", "other"), [](const auto& info) { return std::string(info.param); });

TEST(Tune, RoutersAloneLeaveDialOneTheDenseModelToTheBit) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run");
  tune(tiny(models().routed, {What::routers}), {.run = run});
  EXPECT_EQ(full_losses(join_path(run, "model")), full_losses(models().dense));
  const auto before = model::ModelFolder::open(models().routed), after = model::ModelFolder::open(join_path(run, "model"));
  for (const model::TensorSpec& spec : model::schema(before->config())) {
    const bool trained = spec.name.find("router.") != std::string::npos || spec.name.find("light.") != std::string::npos;
    EXPECT_EQ(before->read_f32(spec.name) == after->read_f32(spec.name), !trained) << spec.name;
  }
}

// A block that the dial shuts for all tokens leaves the others their thresholds.
TEST(Tune, AShutBlockLeavesTheOthersTheirDial) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run"), shut = join_path(folder.path(), "shut");
  std::filesystem::copy(models().routed, shut, std::filesystem::copy_options::recursive);
  routing::DialTable table = *model::ModelFolder::open(shut)->dial();
  for (routing::DialPoint& p : table.points)
    if (p.dial < 1) p.thresholds[0] = std::numeric_limits<float>::infinity();
  model::write_dial(shut, table);
  tune(tiny(shut, {What::routers}), {.run = run});
  const Json dials = stage_metrics(join_path(run, "1-routers")).front().at("dials");
  ASSERT_EQ(dials.size(), 3U);
  for (size_t i = 1; i < 3; ++i) EXPECT_GT(dials[i].at("block_fraction").get<double>(), dials[i - 1].at("block_fraction").get<double>() + 0.01);
}

// Rows of the second stage are those behind the first one's, so that a cache holds each once and in order, and it begins with what the first tuned.
TEST(Tune, TwoStagesAreOneStageAfterAnother) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run"), cache = join_path(folder.path(), "cache");
  TuneConfig config = tiny(models().routed);
  config.teacher_cache = cache;
  tune(config, {.run = run});
  const auto dense = model::ModelFolder::open(models().dense);
  std::string file;
  for (const std::string& name : list_folder(cache))
    if (name.ends_with(".rows")) file = join_path(cache, name);
  const int64_t record = 32 * config.teacher_top * 4 + 32;
  EXPECT_EQ((file_size(file) - 4096) / record, 12 * 4);
  // Row 24, the second stage's first, is the loader's row 24.
  const auto data = data::Dataset::open(train::corpus(), "train");
  train::Loader loader(data, 1, 32, train::state_after(*data, 32, config.seed, 24));
  Teacher teacher(dense, {.top = config.teacher_top, .threads = 1, .cache = cache, .rows = str(hash_bytes(data->manifest().to_json().dump()), ", seed ", config.seed), .row_tokens = 32});
  ASSERT_EQ(teacher.cached_rows(), 48);
  const train::Batch row = loader.next();
  EXPECT_TRUE(teacher.rows(row, 24).log_probability.equal(teacher.ask(row).said.log_probability));
  const convert::Tuned first = convert::read_tuned(join_path(run, "1-routers/tuned.safetensors"));
  const Json end = stage_metrics(join_path(run, "1-routers")).back(), begin = stage_metrics(join_path(run, "2-adapters")).front();
  EXPECT_EQ(begin.at("dials"), end.at("dials"));
}

TEST(Tune, AdaptersChangeTheirTargetsAlone) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run");
  TuneConfig config = tiny(models().routed, {What::adapters});
  config.lora.targets = {"q", "down"};
  tune(config, {.run = run});
  const auto before = model::ModelFolder::open(models().routed), after = model::ModelFolder::open(join_path(run, "model"));
  for (const model::TensorSpec& spec : model::schema(before->config())) {
    const bool trained = spec.name.find("router.") != std::string::npos || spec.name.find("light.") != std::string::npos || spec.name.find("q_proj") != std::string::npos || spec.name.find("down_proj") != std::string::npos;
    EXPECT_EQ(before->read_f32(spec.name) == after->read_f32(spec.name), !trained) << spec.name;
  }
}

TEST(Tune, TheArtifactOverTheSourceIsTheModel) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run"), laid = join_path(folder.path(), "laid");
  tune(tiny(models().routed), {.run = run});
  lay_artifact(run, laid);
  for (const char* file : {"model.safetensors", "fathom_dial.json", "config.json", "tokenizer.json"}) EXPECT_EQ(bytes_of(join_path(laid, file)), bytes_of(join_path(join_path(run, "model"), file))) << file;
  const auto other = model::ModelFolder::open(models().statics);
  const convert::Artifact artifact = convert::read_artifact(join_path(run, "artifact"));
  convert::Contents base;
  EXPECT_THAT(error_of([&] { convert::contents_of(*other, artifact, base); }), HasSubstr("routers and light paths were tuned for those weights"));
}

TEST(Tune, LossAndDivergenceFall) {
  for (const double target : {0.7, 0.85}) {
    const TemporaryFolder folder;
    const std::string run = join_path(folder.path(), "run");
    TuneConfig config = tiny(models().routed);
    config.lowest = config.highest = target;
    for (StageConfig& stage : config.stages) stage.tokens = 100 * 4 * 32, stage.noise = 0;
    config.interval.checkpoint_steps = 0;
    config.interval.eval_tokens = 2048;
    tune(config, {.run = run});
    const Json begin = stage_metrics(join_path(run, "1-routers")).front(), end = stage_metrics(join_path(run, "2-adapters")).back();
    ASSERT_EQ(begin.at("type"), "eval");
    ASSERT_EQ(end.at("type"), "eval");
    for (const char* what : {"kl", "loss"}) EXPECT_LT(end.at("dials")[0].at(what).get<double>(), begin.at("dials")[0].at(what).get<double>()) << what << " at " << target << "\n" << begin.dump() << "\n" << end.dump();
  }
}

// The budget is met within 2 %, from a start that is far from it: five seeds of the rows, of five conversions.
TEST(Tune, TheBudgetIsMet) {
  using convert::SurgeryOptions;
  const SurgeryOptions usual{.blocks = {1, 2}, .light_rank = 4, .target = 0.8, .lowest = 0.7, .highest = 0.9, .context = 32};
  std::vector<SurgeryOptions> conversions(5, usual);
  conversions[1].parts = {routing::Part::attention, routing::Part::mlp};
  conversions[2].paths = {.exit = false, .skip = true, .light = false, .full = true};
  conversions[3].paths = {.exit = false, .skip = true, .light = true, .full = true};
  conversions[4].kv = routing::KvPolicy::drop, conversions[4].blocks = {0, 1, 2, 3};
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(seed);
    const TemporaryFolder folder;
    const std::string run = join_path(folder.path(), "run");
    // At the thresholds of 0.8 the routers begin near it; a threshold table that is far off stands for a model of other text.
    const std::string moved = join_path(folder.path(), "moved");
    convert_dense(moved, conversions[seed - 1]);
    routing::DialTable table = *model::ModelFolder::open(moved)->dial();
    for (routing::DialPoint& p : table.points)
      for (float& t : p.thresholds) t -= 1;
    model::write_dial(moved, table);
    TuneConfig config = tiny(moved, {seed % 2 == 0 ? What::adapters : What::routers});
    config.seed = seed;
    config.lowest = config.highest = 0.8;
    config.stages[0].tokens = 150 * 4 * 32, config.stages[0].router_lr = 3e-3, config.stages[0].bias_lr = 3e-2, config.stages[0].noise = 0;
    config.interval.checkpoint_steps = 0;
    config.interval.eval_tokens = 2048;
    tune(config, {.run = run});
    std::vector<Json> lines = stage_metrics(join_path(run, seed % 2 == 0 ? "1-adapters" : "1-routers"));
    std::erase_if(lines, [](const Json& line) { return line.at("type") != "eval"; });
    ASSERT_EQ(lines.size(), 2U);
    const double before = lines.front().at("dials")[0].at("block_fraction"), after = lines.back().at("dials")[0].at("block_fraction");
    EXPECT_GT(std::abs(before - 0.8), 0.03) << "the start tests nothing";
    EXPECT_NEAR(after, 0.8, 0.02 * 0.8);
  }
}

// Every row runs as many tokens as the dial's shares say, whatever the scores' level: thresholds that are far off change nothing.
TEST(Tune, ByTopKBlocksKeepTheirSharesWithoutABudget) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run");
  TuneConfig config = tiny(models().routed, {What::routers});
  config.picks = Picks::topk;
  config.lowest = config.highest = 0.8;
  config.interval.log_steps = 1;
  tune(config, {.run = run});
  const routing::DialTable table = *model::ModelFolder::open(models().routed)->dial();
  const std::vector<double> capacity = table.at(0.8).capacity;
  int steps = 0;
  for (const Json& line : stage_metrics(join_path(run, "1-routers"))) {
    if (line.at("type") != "train") continue;
    ++steps;
    EXPECT_FALSE(line.at("aux").contains(nn::kBudget));
    const auto share = line.at("share").get<std::vector<double>>();
    ASSERT_EQ(share.size(), capacity.size());
    for (size_t cut = 0; cut < share.size(); ++cut) EXPECT_NEAR(share[cut], std::ceil(capacity[cut] * 32) / 32, 1e-9) << cut;
  }
  EXPECT_EQ(steps, 6);
  // So does the model: its thresholds are set for those shares, wherever scores went.
  const std::vector<double> kept = model::ModelFolder::open(join_path(run, "model"))->config().routing.capacities();
  for (size_t cut = 0; cut < kept.size(); ++cut) EXPECT_NEAR(kept[cut], capacity[cut], 1e-6) << cut;
}

TEST(Tune, AStaticModelLearnsWithoutRouters) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run");
  TuneConfig config = tiny(models().statics, {What::adapters});
  config.stages[0].tokens = 40 * 4 * 32;
  const Json summary = tune(config, {.run = run});
  EXPECT_TRUE(summary.at("dial").is_null());
  const std::vector<Json> lines = stage_metrics(join_path(run, "1-adapters"));
  EXPECT_LT(lines.back().at("dials")[0].at("kl").get<double>(), lines.front().at("dials")[0].at("kl").get<double>());
}

TEST(Tune, EverythingIsTrainedAndHasNoArtifact) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run");
  const Json summary = tune(tiny(models().routed, {What::routers, What::everything}), {.run = run});
  EXPECT_EQ(summary.at("artifact"), "");
  EXPECT_FALSE(exists(join_path(run, "artifact")));
  const auto before = model::ModelFolder::open(models().routed), after = model::ModelFolder::open(join_path(run, "model"));
  for (const model::TensorSpec& spec : model::schema(before->config())) EXPECT_NE(before->read_f32(spec.name), after->read_f32(spec.name)) << spec.name;
}

TEST(Tune, RefusesByName) {
  const TemporaryFolder folder;
  const auto refusal = [&](const TuneConfig& config) {
    const std::string run = join_path(folder.path(), "run");
    const std::string out = error_of([&] { tune(config, {.run = run}); });
    EXPECT_FALSE(exists(run)) << "something was left behind: " << out;
    return out;
  };
  TuneConfig config = tiny(models().routed);
  config.teacher = models().routed;
  EXPECT_THAT(refusal(config), HasSubstr("a model whose tokens choose their depth, expected a dense teacher"));
  config = tiny(models().dense, {What::routers});
  EXPECT_THAT(refusal(config), HasSubstr("make them with fathom convert"));
  config = tiny(models().routed);
  config.sequence_length = 1 << 19;
  EXPECT_THAT(refusal(config), HasSubstr("sequence_length"));
  config = tiny(models().routed, {What::adapters, What::routers});
  EXPECT_THAT(refusal(config), HasSubstr("stages[0]"));
  config = tiny(models().routed);
  config.stages.clear();
  EXPECT_THAT(refusal(config), HasSubstr("at least one stage"));
  config = tiny(models().routed);
  config.lowest = 0.95;
  EXPECT_THAT(refusal(config), HasSubstr("at most highest, 0.9"));
  config = tiny(models().routed);
  config.lora.rank = 0;
  EXPECT_THAT(refusal(config), HasSubstr("lora_rank"));
  config = tiny(models().routed);
  config.teacher.clear();
  config.loss_weight = 0;
  EXPECT_THAT(refusal(config), HasSubstr("above 0 without a teacher"));
  config = tiny(models().routed);
  config.teacher_top = 0, config.teacher_cache = join_path(folder.path(), "cache");
  EXPECT_THAT(refusal(config), HasSubstr("teacher_cache"));
  const std::string open = join_path(folder.path(), "open");
  convert_dense(open, {.blocks = {1, 2}, .light_rank = 4, .context = 32}, false);
  for (const bool topk : {false, true}) {
    config = tiny(open);
    topk ? void(config.picks = Picks::topk) : void(config.unit_budget_weight = 1);
    EXPECT_THAT(refusal(config), HasSubstr("no dial that was calibrated, expected the shares of every block"));
  }
}

TEST(Tune, AResumeMustBeTheSameRun) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run");
  const TuneConfig config = tiny(models().routed);
  int64_t now = 0;
  RunOptions options{.run = run};
  options.after_step = [&](size_t, int64_t step, nn::Transformer&) { now = step; };
  options.stop = [&] { return now == 3; };
  EXPECT_THROW(tune(config, options), Interrupted);
  EXPECT_THAT(error_of([&] { tune(config, {.run = run}); }), HasSubstr("go on with it by --resume"));
  TuneConfig other = config;
  other.kl_weight = 2;
  EXPECT_THAT(error_of([&] { tune(other, {.run = run, .resume = true}); }), HasSubstr("kl_weight: found 2"));
  EXPECT_EQ(config_of_run(run).to_json(), config.to_json());
  // A run of before these keys were thought of.
  Json old = config.to_json();
  old.erase("adapters"), old.erase("chat_share");
  const TuneConfig then = TuneConfig::from_json(old, "old");
  EXPECT_EQ(then.adapters, Keep::merged);
  EXPECT_EQ(then.chat_share, 0);
}

}  // namespace
}  // namespace fathom::tune
