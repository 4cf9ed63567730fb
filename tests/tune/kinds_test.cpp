// Every kind of conversion through the whole road: routers alone leave dial 1 the dense model, a crash changes nothing, the artifact over the source is the model.
#include <gmock/gmock.h>

#include "core/file.h"
#include "model/cost.h"
#include "tune/helpers.h"

namespace fathom::tune {
namespace {

using routing::Part;
using routing::Paths;

constexpr Paths kSkipFull{.exit = false, .skip = true, .light = false, .full = true},
    kSkipLightFull{.exit = false, .skip = true, .light = true, .full = true};

struct Kind {
  const char* name;
  convert::SurgeryOptions options;
  bool fit = true;
  bool lossless = true;   // routers and light paths alone leave dial 1 the dense model
  bool same_blocks = true;
  Picks picks = Picks::threshold;
  What last = What::adapters;
};

convert::SurgeryOptions options_of(const std::function<void(convert::SurgeryOptions&)>& change = {}) {
  convert::SurgeryOptions o{.blocks = {1, 2}, .light_rank = 4, .target = 0.8, .lowest = 0.7, .highest = 0.9, .context = 32};
  if (change) change(o);
  return o;
}

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {.name = "parts", .options = options_of([](auto& o) { o.parts = {Part::attention, Part::mlp}; })},
      {.name = "attention", .options = options_of([](auto& o) { o.parts = {Part::attention}, o.target = 0.95, o.lowest = 0.9, o.highest = 0.97; })},
      {.name = "mlp", .options = options_of([](auto& o) { o.parts = {Part::mlp}; })},
      {.name = "full_attention", .options = options_of([](auto& o) { o.full_attention = {2}; })},
      {.name = "skip", .options = options_of([](auto& o) { o.paths = kSkipFull; })},
      {.name = "three_paths", .options = options_of([](auto& o) { o.paths = kSkipLightFull; })},
      {.name = "three_paths_of_parts", .options = options_of([](auto& o) { o.paths = kSkipLightFull, o.parts = {Part::attention, Part::mlp}; })},
      {.name = "drop", .options = options_of([](auto& o) { o.kv = routing::KvPolicy::drop; })},
      {.name = "drop_of_parts", .options = options_of([](auto& o) { o.kv = routing::KvPolicy::drop, o.parts = {Part::attention, Part::mlp}, o.paths = kSkipFull; })},
      {.name = "router_of_two_layers", .options = options_of([](auto& o) { o.rule = routing::CausalRule::predictor; })},
      {.name = "gate", .options = options_of([](auto& o) { o.rule = routing::CausalRule::predictor, o.gate = routing::Gate::one_plus_tanh; }), .lossless = false},
      {.name = "beside_a_static_block", .options = options_of([](auto& o) { o.blocks = {2}, o.statics = {1}, o.target = 0.7, o.lowest = 0.65, o.highest = 0.74; }), .lossless = false},
      {.name = "beside_a_dropped_block", .options = options_of([](auto& o) { o.blocks = {1}, o.dropped = {2}; }), .lossless = false, .same_blocks = false},
      {.name = "not_fitted", .options = options_of(), .fit = false},
      {.name = "by_topk", .options = options_of(), .picks = Picks::topk},
      {.name = "everything", .options = options_of(), .last = What::everything},
  };
  return all;
}

class EveryKind : public ::testing::TestWithParam<size_t> {};

TEST_P(EveryKind, GoesTheWholeRoad) {
  const Kind& kind = kinds()[GetParam()];
  const TemporaryFolder folder;
  const auto path = [&](const std::string& name) { return join_path(folder.path(), name); };
  convert_dense(path("converted"), kind.options, kind.fit);
  TuneConfig config = tiny(path("converted"));
  config.lowest = kind.options.lowest, config.highest = kind.options.highest;
  config.picks = kind.picks;
  config.adapters = Keep::merged;
  if (kind.last == What::everything) config.stages.back().what = What::everything;
  if (!kind.same_blocks) config.other_teacher = true;
  const Json summary = tune(config, {.run = path("whole")});

  // A crash in the second stage, between checkpoints.
  struct Crash {};
  RunOptions crash{.run = path("cut")};
  crash.after_step = [](size_t stage, int64_t step, nn::Transformer&) {
    if (stage == 1 && step == 5) throw Crash();
  };
  EXPECT_THROW(tune(config, crash), Crash);
  tune(config, {.run = path("cut"), .resume = true});
  for (const char* file : {"model/model.safetensors", "model/fathom_dial.json", "model/config.json"}) EXPECT_EQ(bytes_of(path(std::string("whole/") + file)), bytes_of(path(std::string("cut/") + file))) << file;

  // The dial is what it says on the text that it was calibrated on.
  const auto tuned = model::ModelFolder::open(path("whole/model"));
  ASSERT_TRUE(tuned->dial());
  for (const routing::DialPoint& p : tuned->dial()->points) {
    EXPECT_GT(p.block_fraction, 0) << p.dial;
    EXPECT_NEAR(model::expected_block_fraction(tuned->config(), 32, p.capacity), p.block_fraction, 0.03) << p.dial;
  }

  const bool parts = kind.same_blocks && kind.last != What::everything;
  EXPECT_EQ(!summary.at("artifact").get<std::string>().empty(), parts);
  if (parts) {
    lay_artifact(path("whole"), path("laid"));
    for (const char* file : {"model.safetensors", "fathom_dial.json", "config.json"}) EXPECT_EQ(bytes_of(path(std::string("laid/") + file)), bytes_of(path(std::string("whole/model/") + file))) << file;
  }

  config.stages.pop_back();
  const Json routers = tune(config, {.run = path("routers")});
  // What is said over the dense model is said of the same text.
  const double one = routers.at("dial").at("points").back().at("loss"), dense = routers.at("dense_loss");
  EXPECT_NEAR(one, dense, kind.lossless ? 1e-6 : 2.0);
  EXPECT_EQ(full_losses(path("routers/model")) == full_losses(models().dense), kind.lossless);
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryKind, ::testing::Range(size_t{0}, kinds().size()), [](const auto& info) { return std::string(kinds()[info.param].name); });

}  // namespace
}  // namespace fathom::tune
