// AdamW (Loshchilov & Hutter 2019) over the network's parameters by LibTorch's fused kernel: one pass over parameter,
// gradient and both moments. Matrices decay, vectors do not; routers and predictors may have a learning rate of their own.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "nn/transformer.h"
#include "train/config.h"

namespace fathom::train {

struct Group {  // parameters that share learning rate and decay
  double lr_scale = 1, weight_decay = 0;
  std::vector<size_t> members;  // indices into the network's parameters
};
// A parameter's factor on the learning rate.
using LrScale = std::function<double(const nn::Parameter&)>;
std::vector<Group> make_groups(const std::vector<nn::Parameter>& parameters, const OptimizerConfig& config, const LrScale& lr_scale = {});

class AdamW {
 public:
  // Without `lr_scale` routers and predictors have config.router_lr_scale, everything else 1.
  AdamW(std::vector<nn::Parameter> parameters, OptimizerConfig config, const LrScale& lr_scale = {});

  // The global norm of all gradients, in f64. Not finite when a gradient is not.
  double gradient_norm() const;
  // One step at learning rate `lr`, the gradients scaled so that their norm is at most config.clip. Parameters without a
  // gradient stay as they are. The gradients are dropped.
  void step(double lr, double gradient_norm);
  void drop_gradients();

  // The state of parameter i: moments like the parameter and the number of its steps.
  struct Moments {
    at::Tensor first, second;
    at::Tensor steps;  // scalar f32
  };
  const std::vector<nn::Parameter>& parameters() const { return parameters_; }
  const std::vector<Moments>& moments() const { return moments_; }
  std::vector<Moments>& moments() { return moments_; }

 private:
  std::vector<nn::Parameter> parameters_;
  OptimizerConfig config_;
  std::vector<Group> groups_;
  std::vector<Moments> moments_;
};

}  // namespace fathom::train
