// A step of training is what its configuration says: steps of train() replayed by plain calls of the network and the
// optimizer, with schedule, capacities, losses, norm and quantiles written out here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>

#include "core/file.h"
#include "core/random.h"
#include "data/shards.h"
#include "nn/memory.h"
#include "train/evaluate.h"
#include "train/finish.h"
#include "train/helpers.h"

namespace fathom::train {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TrainConfig whole(const Overrides& overrides) {
  TrainConfig config = tiny(overrides);
  config.model = effective_model(config, text::Tokenizer::load(corpus()), data::Dataset::open(corpus())->manifest(), "tiny");
  return config;
}

// The network, the optimizer and the running quantiles of a run, and what it said of its steps.
struct State {
  explicit State(const TrainConfig& config) : network(config.model), adam(network.parameters(), config.optimizer) {}
  nn::Transformer network;
  AdamW adam;
  Quantiles quantiles;
  std::vector<double> losses, norms, rates;
};

// The least score of the greatest `share` of them.
float quantile_of(std::vector<float> scores, double share) {
  std::sort(scores.begin(), scores.end(), std::greater<float>());
  return scores[static_cast<size_t>(std::ceil(share * static_cast<double>(scores.size()) - 1e-9)) - 1];
}

// Warm-up of 3 steps, 4 steps at the end down to a tenth; capacities from 1 to their own over 4 steps.
constexpr int64_t kWarmup = 3, kDecay = 4, kCapacityWarmup = 4;
const Overrides kSchedule = {{"schedule.kind", "wsd"}, {"schedule.warmup_steps", "3"}, {"schedule.decay_steps", "4"}, {"schedule.final_ratio", "0.1"},
                             {"router.capacity_warmup_steps", "4"}, {"accumulation", "2"}, {"interval.eval_steps", "0"}, {"budget.steps", "12"},
                             // So that an update depends on the size of a gradient, not on its direction alone.
                             {"optimizer.eps", "1e-2"}};

std::unique_ptr<State> replay(const TrainConfig& config) {
  auto state = std::make_unique<State>(config);
  state->network.init(config.seed);
  const auto& blocks = config.model.routing.units;
  const auto dataset = data::Dataset::open(corpus(), "train");
  Loader loader(dataset, config.batch_size, config.sequence_length, {.seed = config.seed});
  std::vector<float> raw(blocks.size(), -kInfinity), decision = raw;
  constexpr int64_t kSteps = 12;
  for (int64_t step = 0; step < kSteps; ++step) {
    nn::ForwardOptions options;
    options.pick = config.model.routing.selection == routing::Selection::threshold ? nn::Pick::threshold : nn::Pick::topk;
    options.thresholds = raw;
    const double way = std::min(1.0, static_cast<double>(step) / kCapacityWarmup);
    for (const auto& block : blocks) options.capacity.push_back(1 + way * (block.capacity - 1));
    options.score_noise = config.router.noise;
    options.aux = config.losses;

    std::vector<Batch> batches;
    double targets = 0, loss = 0;
    for (int64_t i = 0; i < config.accumulation; ++i) {
      batches.push_back(loader.next());
      for (const int32_t t : batches.back().target) targets += t != kIgnore;
    }
    std::vector<std::vector<float>> selecting(blocks.size()), deciding(blocks.size());
    for (size_t i = 0; i < batches.size(); ++i) {
      options.noise_seed = mix64(mix64(config.seed ^ 0x6e6f697365ULL) + static_cast<uint64_t>(step * config.accumulation) + i);
      const nn::ForwardResult result = state->network.forward(to_tensors(batches[i]), options);
      double share = 0;
      for (const int32_t t : batches[i].target) share += t != kIgnore;
      share /= targets;
      at::Tensor total = result.loss;
      for (const auto& [name, value] : result.aux) total = total + config.losses.at(name) * value;
      (total * share).backward();
      loss += share * result.loss.item<double>();
      for (size_t r = 0; r < blocks.size(); ++r)
        for (const auto& [score, all] : {std::pair(result.routed[r].selecting, &selecting[r]), std::pair(result.routed[r].decision, &deciding[r])}) {
          const at::Tensor s = score.contiguous();
          for (int64_t t = 0; t < s.numel(); ++t) {
            const int64_t position = t % config.sequence_length - batches[i].document_start[static_cast<size_t>(t)];
            all->push_back(position < config.model.routing.forced_positions ? kInfinity : s.const_data_ptr<float>()[t]);
          }
        }
    }
    double squares = 0;
    for (const nn::Parameter& p : state->network.parameters())
      if (p.tensor.grad().defined()) squares += p.tensor.grad().to(at::kDouble).square().sum().item<double>();
    const double rate = step < kWarmup            ? (static_cast<double>(step) + 1) / kWarmup
                        : step >= kSteps - kDecay ? 1 - 0.9 * static_cast<double>(step - (kSteps - kDecay)) / kDecay
                                                  : 1;
    state->losses.push_back(loss);
    state->norms.push_back(std::sqrt(squares));
    state->rates.push_back(rate * config.optimizer.lr);
    state->adam.step(state->rates.back(), state->norms.back());
    const double n = static_cast<double>(step), keep = step == 0 ? 0 : std::min(config.router.quantile_decay, (1 + n) / (10 + n));
    for (size_t r = 0; r < blocks.size(); ++r)
      for (const auto& [running, scores] : {std::pair(&raw[r], &selecting[r]), std::pair(&decision[r], &deciding[r])}) {
        const double found = quantile_of(*scores, options.capacity[r]);
        *running = static_cast<float>(step == 0 ? found : keep * *running + (1 - keep) * found);
      }
  }
  state->quantiles = {raw, decision, kSteps};
  return state;
}

std::unique_ptr<State> trained(const TrainConfig& config, const Overrides& overrides) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run");
  auto state = std::make_unique<State>(config);
  RunOptions options{.run = run};
  options.after_step = [&](int64_t, double loss, nn::Transformer&) { state->losses.push_back(loss); };
  train(tiny(overrides), options);
  for (const Json& line : metrics_of(run))
    if (line.at("type") == "train") {
      state->norms.push_back(line.at("gradient_norm"));
      state->rates.push_back(line.at("lr"));
    }
  const std::string path = find_checkpoints(run).back().path;
  Checkpoint c = read_checkpoint(path);
  load_tensors(path, c, state->adam, config.model.routing.units.size());
  state->quantiles = c.quantiles;
  return state;
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double bound, const char* what) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], bound * (1 + std::abs(expected[i]))) << what << " of step " << i + 1;
}

void expect_same(State& found, State& expected, double bound) {
  expect_near(found.losses, expected.losses, bound, "loss");
  expect_near(found.norms, expected.norms, bound, "gradient norm");
  expect_near(found.rates, expected.rates, bound, "learning rate");
  for (size_t i = 0; i < found.adam.parameters().size(); ++i) {
    const auto difference = [](const at::Tensor& a, const at::Tensor& b) { return ((a - b).abs().max() / (b.abs().max() + 1e-12)).item<double>(); };
    const nn::Parameter &a = found.adam.parameters()[i], &b = expected.adam.parameters()[i];
    EXPECT_LT(difference(a.tensor.detach(), b.tensor.detach()), bound) << a.name;
    EXPECT_LT(difference(found.adam.moments()[i].first, expected.adam.moments()[i].first), 10 * bound) << a.name;
  }
  EXPECT_EQ(found.quantiles.updates, expected.quantiles.updates);
  for (size_t r = 0; r < expected.quantiles.raw.size(); ++r) {
    EXPECT_NEAR(found.quantiles.raw[r], expected.quantiles.raw[r], 10 * bound) << r;
    EXPECT_NEAR(found.quantiles.decision[r], expected.quantiles.decision[r], 10 * bound) << r;
  }
}

Overrides with(Overrides a, const Overrides& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// The same calls in the same order: equal but for the last bits of a rate.
constexpr double kSame = 1e-6;

TEST(Step, IsWhatPlainCallsComputeByTopK) {
  const Overrides overrides = with(kSchedule, {{"model.fathom.rule", "predictor"}, {"router.noise", "0.5"}, {"losses.predictor_bce", "0.7"}, {"losses.router_z", "0.1"},
                                               {"optimizer.clip", "1.05"}, {"optimizer.router_lr_scale", "2"}});
  const TrainConfig config = whole(overrides);
  const auto expected = replay(config), found = trained(config, overrides);
  expect_same(*found, *expected, kSame);
  const auto clipped = std::count_if(found->norms.begin(), found->norms.end(), [](double norm) { return norm > 1.05; });
  EXPECT_TRUE(clipped > 0 && clipped < 12) << ::testing::PrintToString(found->norms);  // or clipping would be no part of it
}

TEST(Step, IsWhatPlainCallsComputeByThreshold) {
  const Overrides overrides = with(kSchedule, {{"model.fathom.selection", "threshold"}, {"model.fathom.forced_positions", "2"}, {"router.noise", "0.3"},
                                               {"router.quantile_decay", "0.6"}});
  const TrainConfig config = whole(overrides);
  const auto expected = replay(config), found = trained(config, overrides);
  expect_same(*found, *expected, kSame);
}

// The mean is over all targets of a step, however many forwards it takes: parts with fewer targets count less.
TEST(Step, OfEightRowsIsTwiceFourRows) {
  const Overrides base = {{"interval.eval_steps", "0"}, {"optimizer.eps", "1e-2"}};
  const Overrides one = with(base, {{"batch_size", "8"}}), two = with(base, {{"batch_size", "4"}, {"accumulation", "2"}});
  const auto a = trained(whole(one), one), b = trained(whole(two), two);
  expect_same(*b, *a, 1e-4);
}

// A micro-batch's graph goes with its backward: a step of sixteen needs no more memory than one of one.
TEST(Step, HoldsOneGraphAtATime) {
  // Larger than anything else in this program, so that the most that was ever in use is this test's.
  const Overrides large = {{"sequence_length", "256"}, {"batch_size", "16"}, {"budget.steps", "1"}, {"interval.eval_steps", "0"},
                           {"losses.router_z", "1e-3"}};  // whose graph goes back through all blocks before
  std::vector<int64_t> peak, left;
  for (const char* accumulation : {"1", "16"}) {
    const TemporaryFolder folder;
    RunOptions options{.run = join_path(folder.path(), "run")};
    options.after_step = [&](int64_t, double, nn::Transformer&) {
      left.push_back(nn::memory_use().in_use);
      peak.push_back(nn::memory_use().peak);
    };
    train(tiny(with(large, {{"accumulation", accumulation}})), options);
  }
  EXPECT_LT(static_cast<double>(peak[1]), 1.1 * static_cast<double>(peak[0]));
  EXPECT_LT(left[1] - left[0], peak[0] / 10);
}

// The predictor learns what top-k selects.
TEST(Step, PredictorsComeToAgreeWithTheirTeacher) {
  const TemporaryFolder folder;
  const std::string run = join_path(folder.path(), "run");
  train(tiny({{"model.fathom.rule", "predictor"}, {"budget.steps", "150"}, {"batch_size", "8"}, {"optimizer.lr", "1e-2"}, {"interval.eval_steps", "0"},
              {"interval.checkpoint_steps", "0"}}),
        {.run = run});
  double first = 0, last = 0;
  for (const Json& line : metrics_of(run)) {
    if (line.at("type") != "train") continue;
    const int64_t step = line.at("step");
    for (const Json& agreement : line.at("agreement")) {
      if (step <= 10) first += agreement.get<double>() / 20;
      if (step > 140) last += agreement.get<double>() / 20;
    }
  }
  EXPECT_GT(last, first + 0.1) << first;
  EXPECT_GT(last, 0.8);
}

}  // namespace
}  // namespace fathom::train
