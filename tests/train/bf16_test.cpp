// bf16 compute reads copies of the matrices; a step of the optimizer must reach them.
#include <gtest/gtest.h>

#include "nn/transformer.h"
#include "train/helpers.h"
#include "train/optimizer.h"

namespace fathom::train {
namespace {

TEST(Bf16, AStepReachesTheCopiesOfTheMatrices) {
  const model::ModelConfig config = tiny({{"model.vocab_size", "320"}}).model;
  nn::Transformer stepped(config);
  stepped.init(3);
  nn::Batch batch;
  batch.tokens = at::randint(0, 320, {2, 32}, at::detail::createCPUGenerator(1), at::kLong);
  batch.targets = at::randint(0, 320, {2, 32}, at::detail::createCPUGenerator(2), at::kLong);
  nn::ForwardOptions options;
  options.compute = nn::Compute::bf16;
  const double before = stepped.forward(batch, options).loss.item<double>();

  OptimizerConfig o;
  o.weight_decay = 0;
  AdamW adam(stepped.parameters(), o);
  for (nn::Parameter p : stepped.parameters())
    if (p.matrix) p.tensor.mutable_grad() = at::randn(p.tensor.sizes(), at::detail::createCPUGenerator(5));
  {
    at::NoGradGuard no_grad;
    adam.step(0.05, 1.0);
  }
  const double after = stepped.forward(batch, options).loss.item<double>();

  nn::Transformer fresh(config);
  for (const nn::Parameter& p : stepped.parameters()) {
    const std::vector<float> values = stepped.read(p.name);
    fresh.load(p.name, values);
  }
  EXPECT_NE(before, after);
  EXPECT_EQ(after, fresh.forward(batch, options).loss.item<double>()) << "the copies are older than the parameters";
}

}  // namespace
}  // namespace fathom::train
