// The network as a whole: the law as far as it concerns nn, packed documents, padding, threads, loading, calibration.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <set>
#include <thread>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "core/file.h"
#include "core/random.h"
#include "model/folder.h"
#include "model/random_model.h"
#include "nn/calibration_walk.h"
#include "nn/matmul.h"
#include "nn/transformer.h"

namespace fathom::nn {
namespace {

using at::Tensor;

std::unique_ptr<Transformer> random_model(const model::ModelConfig& config, uint64_t seed, at::ScalarType type = at::kFloat) {
  auto model = std::make_unique<Transformer>(config, type);
  for (const auto& [name, values] : model::random_weights(config, seed)) model->load(name, values);
  return model;
}

Tensor random_tokens(const model::ModelConfig& config, int64_t B, int64_t T) { return at::randint(config.vocab_size, {B, T}, at::kLong); }

double largest_difference(const Tensor& a, const Tensor& b) { return a.numel() == 0 ? 0.0 : (a - b).abs().max().item<double>(); }

// A score closer to its threshold than this may fall either way (docs/architecture.md).
constexpr double kMargin = 1e-4;

TEST(Law, FullSequenceEqualsPrefixByPrefixUnderTheCausalRule) {
  at::NoGradGuard no_grad;
  at::manual_seed(1);
  Random random(21);
  int compared = 0;
  for (int round = 0; round < 12; ++round) {
    const auto config = model::random_config(random, {.plain = true});
    const auto model = random_model(config, static_cast<uint64_t>(round));
    const int64_t T = 20;
    ForwardOptions options;
    options.pick = Pick::causal;
    options.thresholds = model::random_thresholds(config, random);
    options.logits = true;
    Batch batch;
    batch.tokens = random_tokens(config, 2, T);
    const auto whole = model->forward(batch, options);
    bool close = false;  // a score on its threshold: later tokens may differ for good
    for (size_t r = 0; r < whole.routed.size(); ++r)
      close = close || (whole.routed[r].decision - options.thresholds[r]).abs().min().item<double>() < kMargin;
    if (close) continue;
    ++compared;
    for (int64_t t = 1; t <= T; ++t) {
      Batch prefix;
      prefix.tokens = batch.tokens.narrow(1, 0, t).contiguous();
      const auto part = model->forward(prefix, options);
      EXPECT_LT(largest_difference(part.logits, whole.logits.narrow(1, 0, t)), 2e-4);
      for (size_t r = 0; r < whole.routed.size(); ++r) EXPECT_TRUE(at::equal(part.routed[r].selected, whole.routed[r].selected.narrow(1, 0, t)));
    }
  }
  EXPECT_GE(compared, 6);
}

TEST(Law, TopKLooksIntoTheFutureAndTheCausalRuleDoesNot) {
  at::NoGradGuard no_grad;
  at::manual_seed(2);
  model::ModelConfig config;
  config.vocab_size = 40;
  config.hidden_size = 24;
  config.intermediate_size = 30;
  config.num_hidden_layers = 2;
  config.num_attention_heads = config.num_key_value_heads = 2;
  config.head_dim = 12;
  config.routing.units = {{1, 0.25}};
  const auto model = random_model(config, 4);
  ForwardOptions options;
  options.logits = true;
  options.thresholds = {0.0f};
  Batch batch;
  batch.tokens = random_tokens(config, 4, 24);
  Batch changed{batch.tokens.clone()};
  changed.tokens.narrow(1, 16, 8).copy_(random_tokens(config, 4, 8));
  for (Pick pick : {Pick::topk, Pick::causal}) {
    options.pick = pick;
    const double difference = largest_difference(model->forward(batch, options).logits.narrow(1, 0, 16), model->forward(changed, options).logits.narrow(1, 0, 16));
    if (pick == Pick::topk) {
      EXPECT_GT(difference, 1e-3);
    } else {
      EXPECT_LT(difference, 1e-5);
    }
  }
}

TEST(Law, CapacityOneWithGateOneIsTheDenseModelBitForBit) {
  at::manual_seed(3);
  Random random(8);
  for (int round = 0; round < 8; ++round) {
    auto config = model::random_config(random, {.plain = true});
    config.routing.gate = routing::Gate::hard;
    config.routing.selection = routing::Selection::topk;
    for (auto& block : config.routing.units) block.capacity = 1.0;
    auto dense_config = config;
    dense_config.routing = {};
    const auto routed = random_model(config, 5);
    Transformer dense(dense_config);
    for (const auto& p : dense.parameters()) dense.load(p.name, routed->read(p.name));
    Batch batch;
    batch.tokens = random_tokens(config, 3, 37);
    batch.targets = random_tokens(config, 3, 37);
    ForwardOptions options;
    options.logits = true;
    for (Pick pick : {Pick::topk, Pick::causal}) {
      options.pick = pick;
      options.thresholds.assign(config.routing.units.size(), -std::numeric_limits<float>::infinity());
      const auto a = routed->forward(batch, options);
      ForwardOptions dense_options;
      dense_options.logits = true;
      const auto b = dense.forward(batch, dense_options);
      EXPECT_TRUE(at::equal(a.logits, b.logits)) << largest_difference(a.logits, b.logits);
      EXPECT_TRUE(at::equal(a.loss, b.loss));
      at::NoGradGuard no_grad;  // another path through the code
      EXPECT_TRUE(at::equal(routed->forward(batch, options).logits, b.logits));
    }
  }
}

TEST(Law, AnImposedSelectionOfAllRowsGathersToTheSameBits) {
  // All tokens but one padded one are selected: the gathering path runs, and must give what the dense one gives.
  at::NoGradGuard no_grad;
  at::manual_seed(4);
  Random random(9);
  auto config = model::random_config(random, {.plain = true});
  config.routing.gate = routing::Gate::hard;
  auto dense_config = config;
  dense_config.routing = {};
  const auto routed = random_model(config, 6);
  Transformer dense(dense_config);
  for (const auto& p : dense.parameters()) dense.load(p.name, routed->read(p.name));
  Batch batch;
  batch.tokens = random_tokens(config, 2, 33);
  batch.lengths = at::tensor({33, 32}, at::kLong);
  ForwardOptions options;
  options.logits = true;
  options.pick = Pick::imposed;
  options.imposed.assign(config.routing.units.size(), at::ones({2, 33}, at::kBool));
  const auto a = routed->forward(batch, options).logits;
  const auto b = dense.forward(batch, {.logits = true}).logits;
  EXPECT_LT(largest_difference(a[0], b[0]), 1e-4);
  EXPECT_LT(largest_difference(a[1].narrow(0, 0, 32), b[1].narrow(0, 0, 32)), 1e-4);
}

TEST(Packing, LossOfPackedDocumentsIsTheSumOfSeparateOnes) {
  at::NoGradGuard no_grad;
  at::manual_seed(5);
  Random random(31);
  int different = 0;
  for (int round = 0; round < 10; ++round) {
    const auto config = model::random_config(random, {.plain = true});
    const auto model = random_model(config, static_cast<uint64_t>(round), at::kDouble);
    ForwardOptions options;
    options.pick = Pick::causal;  // what a document runs is its own affair under this rule
    options.thresholds = model::random_thresholds(config, random);
    options.token_nll = true;
    const std::vector<int64_t> lengths = {7, 1, 12, 10};
    std::vector<Tensor> tokens, targets, starts;
    double sum = 0;
    int64_t at = 0;
    for (int64_t n : lengths) {
      Batch one{random_tokens(config, 1, n), random_tokens(config, 1, n)};
      sum += model->forward(one, options).nll.sum().item<double>();
      tokens.push_back(one.tokens);
      targets.push_back(one.targets);
      starts.push_back(at::full({1, n}, at, at::kInt));
      at += n;
    }
    Batch packed{at::cat(tokens, 1), at::cat(targets, 1), at::cat(starts, 1)};
    EXPECT_NEAR(model->forward(packed, options).nll.sum().item<double>(), sum, 1e-9 * std::abs(sum));
    Batch unpacked{packed.tokens, packed.targets};
    // Unless nobody runs a block that attends, one long document is something else.
    different += std::abs(model->forward(unpacked, options).nll.sum().item<double>() - sum) > 1e-4;
  }
  EXPECT_GE(different, 7);
}

TEST(Padding, ChangesNothing) {
  at::manual_seed(6);
  Random random(41);
  for (int round = 0; round < 6; ++round) {
    const auto config = model::random_config(random, {.plain = true});
    const auto model = random_model(config, static_cast<uint64_t>(round), at::kDouble);
    ForwardOptions options;
    options.pick = pick_of(config.routing.selection);
    options.thresholds = model::random_thresholds(config, random);
    options.aux = {{kRouterBce, 0.1}, {kRouterZ, 0.1}};
    Batch batch{random_tokens(config, 2, 15), random_tokens(config, 2, 15)};
    Batch padded{at::cat({batch.tokens, random_tokens(config, 2, 6)}, 1), at::cat({batch.targets, at::full({2, 6}, kIgnored, at::kLong)}, 1)};
    padded.lengths = at::tensor({15, 15}, at::kLong);
    const auto a = model->forward(batch, options), b = model->forward(padded, options);
    EXPECT_NEAR(a.total.item<double>(), b.total.item<double>(), 1e-11);
    for (size_t r = 0; r < a.routed.size(); ++r) EXPECT_EQ(a.routed[r].selected_count, b.routed[r].selected_count);
    a.total.backward();
    std::vector<Tensor> gradients;
    for (const auto& p : model->parameters()) {
      gradients.push_back(p.tensor.grad().defined() ? p.tensor.grad().clone() : at::zeros_like(p.tensor));
      p.tensor.mutable_grad().reset();
    }
    b.total.backward();
    for (size_t i = 0; i < gradients.size(); ++i) {
      const Tensor g = model->parameters()[i].tensor.grad();
      EXPECT_LT(largest_difference(g.defined() ? g : at::zeros_like(gradients[i]), gradients[i]), 1e-10) << model->parameters()[i].name;
    }
  }
}

TEST(Forward, CountsAndKOfTopK) {
  at::NoGradGuard no_grad;
  Random random(51);
  auto config = model::random_config(random, {.plain = true});
  config.routing.units = {{0, 0.125}};
  config.routing.forced_positions = 0;
  const auto model = random_model(config, 1);
  Batch batch{random_tokens(config, 3, 17)};
  batch.lengths = at::tensor({17, 9, 1}, at::kLong);
  const auto result = model->forward(batch);
  EXPECT_EQ(result.routed[0].selected_count, 3 + 2 + 1);
  EXPECT_EQ(result.routed[0].token_count, 27);
  EXPECT_EQ(model->forward(batch, {.capacity = {1.0}}).routed[0].selected_count, 27);
  EXPECT_FALSE(result.loss.defined());
}

TEST(Forward, ScoreNoiseMovesSelectionAndIsAFunctionOfItsSeed) {
  at::NoGradGuard no_grad;
  at::manual_seed(8);
  Random random(61);
  auto config = model::random_config(random, {.plain = true});
  config.routing.units = {{0, 0.5}};
  config.routing.forced_positions = 0;
  const auto model = random_model(config, 1);
  Batch batch{random_tokens(config, 4, 40)};
  ForwardOptions options;
  const Tensor plain = model->forward(batch, options).routed[0].selected;
  options.score_noise = 1.0;
  options.noise_seed = 1;
  const Tensor first = model->forward(batch, options).routed[0].selected, again = model->forward(batch, options).routed[0].selected;
  options.noise_seed = 2;
  const Tensor second = model->forward(batch, options).routed[0].selected;
  // What it says that it selected by is what it selected by, under both rules of training.
  for (const Pick pick : {Pick::topk, Pick::threshold}) {
    options.pick = pick;
    options.thresholds = {0.1f};
    const RoutedResult r = model->forward(batch, options).routed[0];
    const Tensor in = r.selecting.masked_fill(~r.selected, INFINITY).amin(1), out = r.selecting.masked_fill(r.selected, -INFINITY).amax(1);
    EXPECT_TRUE(in.ge(out).all().item<bool>());
    EXPECT_GT(largest_difference(r.selecting, r.raw), 0.1);
  }
  EXPECT_TRUE(at::equal(first, again));
  EXPECT_FALSE(at::equal(first, second));
  EXPECT_FALSE(at::equal(first, plain));
}

TEST(Forward, SameBitsEveryTime) {
  at::manual_seed(9);
  Random random(71);
  const auto config = model::random_config(random, {.plain = true});
  const auto model = random_model(config, 2);
  Batch batch{random_tokens(config, 5, 64), random_tokens(config, 5, 64)};
  std::vector<Tensor> before;
  for (int round = 0; round < 3; ++round) {
    const auto result = model->forward(batch, {.thresholds = std::vector<float>(config.routing.units.size(), 0.0f)});
    result.total.backward();
    std::vector<Tensor> now = {result.total.detach()};
    for (const auto& p : model->parameters()) {
      now.push_back(p.tensor.grad().defined() ? p.tensor.grad().clone() : at::zeros_like(p.tensor));
      p.tensor.mutable_grad().reset();
    }
    for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(at::equal(before[i], now[i]));
    before = now;
  }
}

TEST(Forward, GradientsOfAScaledLossAndOfTwoMicroBatchesAddUp) {
  at::manual_seed(10);
  model::ModelConfig config;
  config.vocab_size = 30;
  config.hidden_size = 16;
  config.intermediate_size = 20;
  config.num_hidden_layers = 2;
  config.num_attention_heads = config.num_key_value_heads = 2;
  config.head_dim = 8;
  const auto model = random_model(config, 3, at::kDouble);
  Batch whole{random_tokens(config, 4, 9), random_tokens(config, 4, 9)};
  model->forward(whole).total.backward();
  std::vector<Tensor> expected;
  for (const auto& p : model->parameters()) {
    expected.push_back(p.tensor.grad().clone());
    p.tensor.mutable_grad().reset();
  }
  for (int half = 0; half < 2; ++half) {
    Batch part{whole.tokens.narrow(0, 2 * half, 2), whole.targets.narrow(0, 2 * half, 2)};
    (model->forward(part).total * 0.5).backward();
  }
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_LT(largest_difference(model->parameters()[i].tensor.grad(), expected[i]), 1e-12);
}

TEST(Forward, Bf16CopiesFollowTheParameters) {
  at::NoGradGuard no_grad;
  at::manual_seed(11);
  model::ModelConfig config;
  config.vocab_size = 30;
  config.hidden_size = 16;
  config.intermediate_size = 20;
  config.num_hidden_layers = 1;
  config.num_attention_heads = config.num_key_value_heads = 2;
  config.head_dim = 8;
  const auto model = random_model(config, 3);
  Batch batch{random_tokens(config, 2, 9), random_tokens(config, 2, 9)};
  const double before = model->forward(batch, {.compute = Compute::bf16}).loss.item<double>();
  for (const auto& p : model->parameters()) p.tensor.mul_(1.5);
  const double after = model->forward(batch, {.compute = Compute::bf16}).loss.item<double>();
  EXPECT_NEAR(after, model->forward(batch).loss.item<double>(), 0.05);
  EXPECT_GT(std::abs(after - before), 0.01);
}

TEST(Parameters, InitIsAFunctionOfTheSeedAndScalesTheResidualProjections) {
  model::ModelConfig config;
  config.vocab_size = 200;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.num_hidden_layers = 8;
  config.num_attention_heads = config.num_key_value_heads = 4;
  config.head_dim = 16;
  config.routing.units = {{1, 0.125}};
  config.routing.router_bias = true;
  Transformer a(config), b(config), c(config);
  a.init(1);
  b.init(1);
  c.init(2);
  for (const auto& p : a.parameters()) EXPECT_TRUE(at::equal(p.tensor, b.parameter(p.name))) << p.name;
  EXPECT_FALSE(at::equal(a.parameter("lm_head.weight"), c.parameter("lm_head.weight")));
  EXPECT_NEAR(a.parameter("model.embed_tokens.weight").std().item<double>(), 0.02, 1e-3);
  EXPECT_NEAR(a.parameter("model.layers.0.mlp.down_proj.weight").std().item<double>(), 0.02 / 4, 5e-4);
  EXPECT_NEAR(a.parameter("model.layers.0.self_attn.o_proj.weight").std().item<double>(), 0.02 / 4, 5e-4);
  EXPECT_TRUE(at::equal(a.parameter("model.norm.weight"), at::ones({64})));
  EXPECT_TRUE(at::equal(a.parameter("model.layers.1.router.bias"), at::zeros({1})));
  EXPECT_GT(a.parameter("model.layers.1.router.weight").std().item<double>(), 0.01);
  const auto specs = model::schema(config);
  ASSERT_EQ(specs.size(), a.parameters().size());
  for (size_t i = 0; i < specs.size(); ++i) {
    EXPECT_EQ(specs[i].name, a.parameters()[i].name);
    EXPECT_EQ(specs[i].shape, a.parameters()[i].tensor.sizes().vec());
    EXPECT_EQ(a.parameters()[i].matrix, specs[i].shape.size() == 2);
    EXPECT_EQ(a.parameters()[i].router, specs[i].name.find(".router.") != std::string::npos);
  }
}

TEST(Parameters, ThroughAModelFolderAndBack) {
  Random random(81);
  const auto config = model::random_config(random, {.plain = true});
  const auto weights = model::random_weights(config, 9);
  TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "model");
  model::write_model_folder(path, model::model_to_write(config, weights));
  Transformer model(config);
  model.load(*model::ModelFolder::open(path));
  for (const auto& [name, values] : weights) EXPECT_EQ(model.read(name), values) << name;
}

TEST(Transformer, RefusesUnitsThatItDoesNotCompute) {
  Random random(1);
  model::ModelConfig config = model::random_config(random, {.plain = true});
  const auto refusal = [&](const routing::RoutedUnit& unit) {
    config.routing.units = {unit};
    try {
      Transformer network(config);
    } catch (const UserError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(refusal({.block = 0, .capacity = 0.5}), "no error");
  EXPECT_EQ(refusal({.block = 0, .capacity = 0.5, .part = routing::Part::attention}), "no error");
  EXPECT_EQ(refusal({.block = 0, .capacity = 0.5, .paths = {.light = true}, .light_rank = 1}), "no error");
  EXPECT_EQ(refusal({.block = 0, .capacity = 0.5, .paths = {.exit = true}}),
            "the network: fathom.units[0].paths: found exit,skip,full, expected paths without exit; exits are decided by the engine alone");
}

TEST(CalibrationWalk, RefusesUnitsThatAreNotPlain) {
  Random random(1);
  model::ModelConfig config = model::random_config(random, {.plain = true});
  config.routing.units = {{.block = 0, .capacity = 0.5, .part = routing::Part::mlp}};
  Transformer network(config);
  EXPECT_THROW(CalibrationWalk(network, {random_tokens(config, 1, 4)}), UserError);
}

TEST(CalibrationWalk, EqualsTheForwardUnderTheCausalRule) {
  at::NoGradGuard no_grad;
  at::manual_seed(12);
  Random random(91);
  for (int round = 0; round < 8; ++round) {
    const auto config = model::random_config(random, {.plain = true});
    const auto model = random_model(config, static_cast<uint64_t>(round));
    const size_t R = config.routing.units.size();
    Batch batch{random_tokens(config, 7, 19), random_tokens(config, 7, 19)};
    batch.lengths = at::tensor({19, 4, 19, 12, 19, 1, 19}, at::kLong);
    for (int64_t b = 0; b < 7; ++b) batch.targets[b].slice(0, batch.lengths[b].item<int64_t>()).fill_(kIgnored);
    CalibrationWalk walk(*model, batch, Compute::f32, 3);
    for (int dial = 0; dial < 2; ++dial) {
      walk.restart();
      const auto thresholds = model::random_thresholds(config, random);
      ForwardOptions options;
      options.pick = Pick::causal;
      options.thresholds = thresholds;
      const auto whole = model->forward(batch, options);
      for (size_t r = 0; r < R; ++r) {
        const auto scores = walk.scores(r, {thresholds.begin(), thresholds.begin() + static_cast<int64_t>(r)});
        ASSERT_EQ(static_cast<int64_t>(scores.size()), whole.routed[r].token_count);
        size_t i = 0;
        for (int64_t b = 0; b < 7; ++b)
          for (int64_t t = 0; t < batch.lengths[b].item<int64_t>(); ++t, ++i) {
            if (t < config.routing.forced_positions) EXPECT_EQ(scores[i], std::numeric_limits<float>::infinity());
            else EXPECT_NEAR(scores[i], whole.routed[r].decision[b][t].item<float>(), 1e-4);
          }
      }
      const auto figures = walk.finish(thresholds);
      EXPECT_NEAR(figures.loss, whole.loss.item<double>(), 1e-5);
      for (size_t r = 0; r < R; ++r) {
        EXPECT_NEAR(figures.capacity[r], static_cast<double>(whole.routed[r].selected_count) / static_cast<double>(whole.routed[r].token_count), 1e-12);
        EXPECT_TRUE(at::equal(figures.selected[r], whole.routed[r].selected));
      }
    }
  }
}

TEST(Transformer, RefusesWhatItDoesNotCompute) {
  Random random(3);
  const auto plain = model::random_config(random, {.plain = true});
  Transformer network(plain);
  const auto refusal = [&](auto change) {
    auto config = plain;
    change(config);
    try {
      Transformer other(config);
    } catch (const UserError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(refusal([](auto& c) { c.adapters.rank = 2; }),
            "the network: adapters: found rank 2, expected none; adapters that were kept apart are not trained on: fathom convert SOURCE OUT --from ARTIFACT --adapters merged");
  EXPECT_EQ(refusal([](auto& c) { c.qkv_bias = c.output_bias = c.mlp_bias = c.qk_norm = true; }), "no error");
  EXPECT_EQ(refusal([](auto& c) { c.rope_scaling = {.type = model::RopeScaling::Type::linear, .factor = 2}; }), "no error");
}

TEST(Threads, ParallelForUsesMoreThanOne) {
  const int before = at::get_num_threads();
  at::set_num_threads(2);
  std::set<std::thread::id> ids;
  std::mutex mutex;
  at::parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const std::lock_guard lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  at::set_num_threads(before);
  EXPECT_EQ(ids.size(), 2u) << "compiled without -fopenmp, or a second OpenMP runtime";
}

TEST(Matmul, ReportNamesATrueF32Route) {
  const MatmulReport report = measure_matmul();
  EXPECT_GT(report.mkl_gflops, 1.0);
  EXPECT_GT(report.onednn_gflops, 1.0);
  EXPECT_GT(report.bf16_gflops, 1.0);
  if (report.route == F32Route::onednn) {
    EXPECT_LT(report.onednn_error, 5e-6);
  }
  EXPECT_EQ(f32_route_from(name_of(F32Route::onednn)), F32Route::onednn);
  EXPECT_EQ(compute_from(name_of(Compute::bf16)), Compute::bf16);
  EXPECT_THROW(f32_route_from("cublas"), UserError);
  EXPECT_THROW(compute_from("fp8"), UserError);
  use_f32_route(report.route);
  EXPECT_EQ(f32_route(), report.route);
}

}  // namespace
}  // namespace fathom::nn
