#include "train/optimizer.h"

#include <cmath>
#include <optional>

namespace fathom::train {

std::vector<Group> make_groups(const std::vector<nn::Parameter>& parameters, const OptimizerConfig& config, const LrScale& lr_scale) {
  std::vector<Group> groups;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const double scale = lr_scale ? lr_scale(parameters[i]) : parameters[i].router ? config.router_lr_scale : 1.0;
    const double decay = parameters[i].matrix ? config.weight_decay : 0.0;
    size_t g = 0;
    while (g < groups.size() && (groups[g].lr_scale != scale || groups[g].weight_decay != decay)) ++g;
    if (g == groups.size()) groups.push_back({scale, decay, {}});
    groups[g].members.push_back(i);
  }
  return groups;
}

AdamW::AdamW(std::vector<nn::Parameter> parameters, OptimizerConfig config, const LrScale& lr_scale)
    : parameters_(std::move(parameters)), config_(config), groups_(make_groups(parameters_, config_, lr_scale)) {
  for (const nn::Parameter& p : parameters_)
    moments_.push_back({at::zeros_like(p.tensor.detach()), at::zeros_like(p.tensor.detach()), at::zeros({}, at::kFloat)});
}

double AdamW::gradient_norm() const {
  double squares = 0;
  for (const nn::Parameter& p : parameters_) {
    if (!p.tensor.grad().defined()) continue;
    const double norm = at::linalg_vector_norm(p.tensor.grad().detach(), 2).item<double>();
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

void AdamW::step(double lr, double gradient_norm) {
  const at::NoGradGuard no_grad;
  // The kernel divides gradients by grad_scale as it reads them: clipping costs no pass of its own.
  std::optional<at::Tensor> scale;
  if (config_.clip > 0 && gradient_norm > config_.clip)
    scale = at::scalar_tensor(gradient_norm / config_.clip, at::TensorOptions().dtype(at::kFloat));
  for (const Group& group : groups_) {
    std::vector<at::Tensor> values, gradients, first, second, steps;
    for (const size_t i : group.members) {
      const at::Tensor& gradient = parameters_[i].tensor.grad();
      if (!gradient.defined()) continue;
      values.push_back(parameters_[i].tensor.detach());
      gradients.push_back(gradient.detach().contiguous());
      first.push_back(moments_[i].first);
      second.push_back(moments_[i].second);
      moments_[i].steps.add_(1);
      steps.push_back(moments_[i].steps);
    }
    if (values.empty()) continue;
    at::_fused_adamw_(values, gradients, first, second, {}, steps, lr * group.lr_scale, config_.beta1, config_.beta2,
                      group.weight_decay, config_.eps, /*amsgrad=*/false, /*maximize=*/false, scale, {});
    // The fused kernel writes through a tensor list without counting it as a change; the network's bf16 copies are
    // refreshed by that count (without this a bf16 run trains on its initial matrices for ever).
    for (const at::Tensor& value : values) value.unsafeGetTensorImpl()->bump_version();
  }
  drop_gradients();
}

void AdamW::drop_gradients() {
  for (nn::Parameter& p : parameters_) p.tensor.mutable_grad().reset();
}

}  // namespace fathom::train
