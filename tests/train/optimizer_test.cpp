#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "train/helpers.h"

namespace fathom::train {
namespace {

nn::Parameter parameter(const std::string& name, const std::vector<int64_t>& shape, bool matrix, bool router, uint64_t seed) {
  const at::Tensor t = at::randn(shape, at::detail::createCPUGenerator(seed));
  t.requires_grad_(true);
  return {name, t, matrix, router};
}

void set_gradient(nn::Parameter& p, uint64_t seed) {
  p.tensor.mutable_grad() = at::randn(p.tensor.sizes(), at::detail::createCPUGenerator(seed));
}

TEST(Groups, MatricesDecayAndRoutersHaveTheirOwnRate) {
  model::ModelConfig config = tiny({{"model.vocab_size", "320"}, {"model.fathom.rule", "predictor"}, {"model.fathom.router_bias", "true"}}).model;
  nn::Transformer network(config);
  OptimizerConfig o;
  o.weight_decay = 0.1;
  o.router_lr_scale = 3;
  const std::vector<Group> groups = make_groups(network.parameters(), o);
  size_t members = 0;
  for (const Group& g : groups)
    for (const size_t i : g.members) {
      const nn::Parameter& p = network.parameters()[i];
      ++members;
      const bool routing = p.name.find("router") != std::string::npos || p.name.find("predictor") != std::string::npos;
      EXPECT_EQ(g.lr_scale, routing ? 3 : 1) << p.name;
      const bool vector = p.name.find("norm") != std::string::npos || p.name.find("bias") != std::string::npos;
      const bool matrix = p.name.find("_proj") != std::string::npos || p.name.find("embed") != std::string::npos;
      if (vector || matrix) {
        EXPECT_EQ(g.weight_decay, matrix ? 0.1 : 0) << p.name;
      }
    }
  EXPECT_EQ(members, network.parameters().size());
}

// AdamW as the paper writes it, in f64.
TEST(AdamW, FollowsTheFormula) {
  OptimizerConfig o;
  o.weight_decay = 0.1;
  o.router_lr_scale = 2;
  o.clip = 0;
  std::vector<nn::Parameter> parameters = {parameter("m", {7, 5}, true, false, 1), parameter("v", {9}, false, false, 2), parameter("r", {1, 11}, false, true, 3)};
  AdamW adam(parameters, o);
  for (nn::Parameter& p : parameters) {
    at::Tensor x = p.tensor.detach().to(at::kDouble).clone(), m = at::zeros_like(x), v = at::zeros_like(x);
    const double scale = p.router ? 2 : 1, decay = p.matrix ? 0.1 : 0;
    for (int t = 1; t <= 3; ++t) {
      const double lr = 0.01 * t * scale;
      const at::Tensor g = at::randn(x.sizes(), at::detail::createCPUGenerator(static_cast<uint64_t>(t * 10))).to(at::kDouble);
      m = o.beta1 * m + (1 - o.beta1) * g;
      v = o.beta2 * v + (1 - o.beta2) * g * g;
      const at::Tensor mh = m / (1 - std::pow(o.beta1, t)), vh = v / (1 - std::pow(o.beta2, t));
      x = x - lr * decay * x - lr * mh / (vh.sqrt() + o.eps);
    }
    p.tensor.mutable_grad() = x;  // kept here for the comparison below
  }
  std::vector<at::Tensor> expected;
  for (nn::Parameter& p : parameters) {
    expected.push_back(p.tensor.grad().clone());
    p.tensor.mutable_grad().reset();
  }
  for (int t = 1; t <= 3; ++t) {
    for (nn::Parameter& p : parameters) set_gradient(p, static_cast<uint64_t>(t * 10));
    adam.step(0.01 * t, adam.gradient_norm());
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    const double error = (parameters[i].tensor.detach().to(at::kDouble) - expected[i]).abs().max().item<double>();
    EXPECT_LT(error, 2e-6) << parameters[i].name;
  }
}

TEST(AdamW, ClipsByTheGlobalNorm) {
  OptimizerConfig o;
  o.clip = 0.5;
  std::vector<nn::Parameter> a = {parameter("x", {6, 4}, true, false, 1), parameter("y", {3}, false, false, 2)};
  std::vector<nn::Parameter> b = {parameter("x", {6, 4}, true, false, 1), parameter("y", {3}, false, false, 2)};
  AdamW clipped(a, o);
  o.clip = 0;
  AdamW plain(b, o);
  for (size_t i = 0; i < 2; ++i) {
    set_gradient(a[i], 40 + i);
    set_gradient(b[i], 40 + i);
  }
  const double norm = clipped.gradient_norm();
  const double expected = std::sqrt(std::pow(a[0].tensor.grad().norm().item<double>(), 2) + std::pow(a[1].tensor.grad().norm().item<double>(), 2));
  EXPECT_NEAR(norm, expected, 1e-6 * expected);
  ASSERT_GT(norm, 0.5);
  for (nn::Parameter& p : b) p.tensor.mutable_grad().mul_(0.5 / norm);
  clipped.step(1e-2, norm);
  plain.step(1e-2, plain.gradient_norm());
  for (size_t i = 0; i < 2; ++i) EXPECT_LT((clipped.moments()[i].first - plain.moments()[i].first).abs().max().item<double>(), 1e-7);
}

TEST(AdamW, ParametersWithoutAGradientStayAsTheyAre) {
  OptimizerConfig o;
  std::vector<nn::Parameter> p = {parameter("x", {6, 4}, true, false, 1), parameter("y", {6, 4}, true, false, 2)};
  AdamW adam(p, o);
  const at::Tensor before = p[1].tensor.detach().clone();
  set_gradient(p[0], 5);
  adam.step(1e-2, adam.gradient_norm());
  EXPECT_TRUE(at::equal(before, p[1].tensor.detach()));
  EXPECT_EQ(adam.moments()[0].steps.item<float>(), 1);
  EXPECT_EQ(adam.moments()[1].steps.item<float>(), 0);
  EXPECT_FALSE(p[0].tensor.grad().defined());
}

TEST(AdamW, ANormWithANaNIsNotFinite) {
  std::vector<nn::Parameter> p = {parameter("x", {6, 4}, true, false, 1)};
  AdamW adam(p, {});
  set_gradient(p[0], 5);
  p[0].tensor.mutable_grad().view({-1})[3] = NAN;
  EXPECT_FALSE(std::isfinite(adam.gradient_norm()));
}

}  // namespace
}  // namespace fathom::train
