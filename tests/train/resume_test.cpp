// Save, stop, resume: weights, moments, quantiles and every figure equal those of the run that was not interrupted.
#include <gtest/gtest.h>

#include "core/file.h"
#include "train/helpers.h"

namespace fathom::train {
namespace {

struct Variant {
  const char* name;
  Overrides overrides;
};

void PrintTo(const Variant& v, std::ostream* out) { *out << v.name; }

class Resume : public ::testing::TestWithParam<Variant> {};

TEST_P(Resume, IsBitExact) {
  const TrainConfig config = tiny(GetParam().overrides);
  const TemporaryFolder folder;
  const std::string whole = join_path(folder.path(), "whole"), cut = join_path(folder.path(), "cut");
  const Json expected = train(config, {.run = whole});

  int interruptions = 0;
  for (const int64_t at : {4, 5, 11}) {  // 4: between checkpoints of three steps; 5: right after a resume
    RunOptions options{.run = cut, .resume = at != 4};
    int64_t now = 0;
    options.after_step = [&](int64_t step, double, nn::Transformer&) { now = step; };
    options.stop = [&] { return now == at; };
    try {
      train(config, options);
    } catch (const Interrupted&) {
      ++interruptions;
    }
  }
  EXPECT_EQ(interruptions, 3);
  const Json found = train(config, {.run = cut, .resume = true});

  EXPECT_EQ(last_state(whole), last_state(cut));
  EXPECT_EQ(found.at("figures"), expected.at("figures"));
  EXPECT_EQ(found.at("train_flops"), expected.at("train_flops"));
  const std::vector<Json> a = metrics_of(whole), b = metrics_of(cut);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i], b[i]);
  EXPECT_EQ(read_file(join_path(whole, "model/model.safetensors"), 1 << 30), read_file(join_path(cut, "model/model.safetensors"), 1 << 30));
}

// A crash leaves checkpoints that are older than the last steps: those are computed again.
TEST_P(Resume, AfterACrashIsBitExact) {
  const TrainConfig config = tiny(GetParam().overrides);
  const TemporaryFolder folder;
  const std::string whole = join_path(folder.path(), "whole"), cut = join_path(folder.path(), "cut");
  train(config, {.run = whole});
  struct Crash {};
  for (const int64_t at : {2, 8}) {
    RunOptions options{.run = cut, .resume = at != 2};
    options.after_step = [&](int64_t step, double, nn::Transformer&) {
      if (step == at) throw Crash();
    };
    EXPECT_THROW(train(config, options), Crash);
  }
  train(config, {.run = cut, .resume = true});
  EXPECT_EQ(last_state(whole), last_state(cut));
  EXPECT_EQ(metrics_of(whole), metrics_of(cut));
}

INSTANTIATE_TEST_SUITE_P(
    All, Resume,
    ::testing::Values(Variant{"dense", {{"model.fathom", "null"}}}, Variant{"topk", {}},
                      Variant{"threshold", {{"model.fathom.selection", "threshold"}}},
                      Variant{"predictor", {{"model.fathom.rule", "predictor"}}},
                      Variant{"router_bce_hard", {{"model.fathom.rule", "router_bce"}, {"model.fathom.gate", "hard"}}},
                      Variant{"random", {{"model.fathom.selection", "random"}}},
                      Variant{"bf16", {{"precision", "bf16"}}},
                      Variant{"two_threads", {{"threads", "2"}}},
                      Variant{"everything", {{"accumulation", "2"}, {"router.noise", "0.5"}, {"router.capacity_warmup_steps", "7"},
                                             {"interval.log_steps", "5"}, {"schedule.kind", "wsd"}, {"losses.router_z", "1e-3"},
                                             {"model.fathom.kv", "keep"}, {"optimizer.clip", "0.3"}}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Determinism, TwoRunsAreEqual) {
  const TemporaryFolder folder;
  const std::string a = join_path(folder.path(), "a"), b = join_path(folder.path(), "b"), c = join_path(folder.path(), "c");
  train(tiny(), {.run = a});
  train(tiny(), {.run = b});
  train(tiny({{"seed", "2"}}), {.run = c});
  EXPECT_EQ(last_state(a), last_state(b));
  EXPECT_NE(last_state(a), last_state(c));
}

}  // namespace
}  // namespace fathom::train
