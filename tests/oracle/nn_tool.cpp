// nn_tool CASES.json: runs the network on cases written by the Python tests and stores what it found.
// Each case: {"config": …, "in": FILE, "out": FILE, "dtype": "f32"|"f64", "compute", "pick", "thresholds", "capacity", "aux",
// "tau", "noise", "noise_seed", "loss_weight", "budget": {"target", "context", "shares"}, "trainable": {"routers", "light", "rank", "alpha",
// "targets"}, "train": {"lr", "beta1", "beta2", "eps", "decay", "clip"}}. In: tensors by name, "tokens", "targets", "document_start",
// "lengths", "imposed.R", "teacher.ids", "teacher.log_probability", "teacher.logits". With "train", tokens and targets have a leading axis of steps.
// Out: F64 tensors.
#include <cstdio>
#include <iostream>

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/json.h"
#include "formats/safetensors.h"
#include "nn/matmul.h"
#include "nn/transformer.h"
#include "train/optimizer.h"

namespace {

using namespace fathom;
using at::Tensor;

Tensor read(const formats::SafetensorsFile& file, const std::string& name) {
  const formats::TensorView* view = file.find(name);
  if (!view) return {};
  at::ScalarType type = at::kFloat;
  switch (view->dtype) {
    case formats::Dtype::F64: type = at::kDouble; break;
    case formats::Dtype::F32: type = at::kFloat; break;
    case formats::Dtype::I64: type = at::kLong; break;
    case formats::Dtype::I32: type = at::kInt; break;
    case formats::Dtype::BOOL: type = at::kBool; break;
    default: throw UserError("nn_tool: type of " + name);
  }
  Tensor t = at::empty(view->shape, type);
  std::copy(view->bytes.begin(), view->bytes.end(), static_cast<std::byte*>(t.mutable_data_ptr()));
  return t;
}

class Output {
 public:
  void add(const std::string& name, const Tensor& value) {
    if (value.defined()) tensors_.emplace_back(name, value.detach().to(at::kDouble).contiguous());
  }
  void write(const std::string& path) const {
    std::vector<formats::TensorEntry> entries;
    for (const auto& [name, t] : tensors_) entries.push_back({name, formats::Dtype::F64, t.sizes().vec()});
    formats::SafetensorsWriter writer(path, entries);
    for (const auto& [name, t] : tensors_)
      if (t.numel() > 0) writer.append({static_cast<const std::byte*>(t.const_data_ptr()), static_cast<size_t>(t.numel()) * 8});
    writer.commit();
  }

 private:
  std::vector<std::pair<std::string, Tensor>> tensors_;
};

void run(const Json& json) {
  const auto config = model::ModelConfig::from_json(json.at("config"), "case");
  nn::Trainable trainable;
  if (json.contains("trainable")) {
    const Json& t = json.at("trainable");
    trainable = {.everything = false, .routers = t.at("routers").get<bool>(), .light = t.at("light").get<bool>()};
    trainable.lora = {.rank = t.at("rank").get<int64_t>(), .alpha = t.at("alpha").get<double>(), .targets = t.at("targets").get<std::vector<std::string>>()};
  }
  nn::Transformer model(config, json.value("dtype", "f32") == "f64" ? at::kDouble : at::kFloat, trainable);
  const formats::SafetensorsFile in(json.at("in").get<std::string>());
  const auto fill = [&](const nn::Parameter& p) {
    const Tensor value = read(in, p.name);
    if (!value.defined()) throw UserError("nn_tool: no tensor " + p.name);
    at::NoGradGuard no_grad;
    at::Tensor target = p.tensor;
    target.copy_(value);
  };
  for (const auto& p : model.tensors()) fill(p);
  for (const auto& p : model.parameters())
    if (p.adapter) fill(p);

  nn::ForwardOptions options;
  const std::string pick = json.value("pick", "topk");
  options.pick = pick == "topk" ? nn::Pick::topk : pick == "threshold" ? nn::Pick::threshold : pick == "random" ? nn::Pick::random
               : pick == "imposed" ? nn::Pick::imposed : pick == "straight_through" ? nn::Pick::straight_through : nn::Pick::causal;
  options.compute = nn::compute_from(json.value("compute", "f32"));
  if (json.contains("thresholds")) options.thresholds = json.at("thresholds").get<std::vector<float>>();
  if (json.contains("capacity")) options.capacity = json.at("capacity").get<std::vector<double>>();
  if (json.contains("aux")) options.aux = json.at("aux").get<std::map<std::string, double>>();
  options.straight_through_tau = json.value("tau", 1.0);
  options.score_noise = json.value("noise", 0.0);
  options.noise_seed = json.value("noise_seed", uint64_t{0});
  options.loss_weight = json.value("loss_weight", 1.0);
  if (json.contains("budget")) {
    const Json& b = json.at("budget");
    options.budget = {.target = b.at("target").get<double>(), .context = b.at("context").get<int64_t>(), .shares = b.at("shares").get<std::vector<double>>()};
  }
  options.teacher = {read(in, "teacher.ids"), read(in, "teacher.log_probability"), read(in, "teacher.logits")};
  options.token_nll = true;
  for (size_t r = 0; r < config.routing.units.size(); ++r)
    if (const Tensor imposed = read(in, "imposed." + std::to_string(r)); imposed.defined()) options.imposed.push_back(imposed);

  const Tensor tokens = read(in, "tokens"), targets = read(in, "targets");
  nn::Batch batch;
  batch.document_start = read(in, "document_start");
  batch.lengths = read(in, "lengths");
  Output out;
  if (json.contains("train")) {
    const Json& adam = json.at("train");
    train::OptimizerConfig o;
    o.beta1 = adam.at("beta1").get<double>(), o.beta2 = adam.at("beta2").get<double>(), o.eps = adam.at("eps").get<double>();
    o.weight_decay = adam.at("decay").get<double>(), o.clip = adam.at("clip").get<double>();
    train::AdamW optimizer(model.parameters(), o);
    Tensor losses = at::zeros({tokens.size(0)}, at::kDouble);
    for (int64_t step = 0; step < tokens.size(0); ++step) {
      batch.tokens = tokens[step];
      batch.targets = targets[step];
      const auto result = model.forward(batch, options);
      losses[step] = result.total.item<double>();
      result.total.backward();
      optimizer.step(adam.at("lr").get<double>(), optimizer.gradient_norm());
    }
    out.add("losses", losses);
  } else {
    batch.tokens = tokens;
    batch.targets = targets;
    options.logits = true;
    const auto result = model.forward(batch, options);
    out.add("logits", result.logits);
    for (size_t r = 0; r < result.routed.size(); ++r) {
      const std::string n = std::to_string(r);
      out.add("raw." + n, result.routed[r].raw);
      out.add("decision." + n, result.routed[r].decision);
      out.add("selected." + n, result.routed[r].selected);
      if (result.routed[r].light.defined()) out.add("light." + n, result.routed[r].light);
    }
    if (targets.defined()) {
      out.add("loss", result.loss);
      out.add("total", result.total);
      out.add("nll", result.nll);
      for (const auto& [name, value] : result.aux) out.add("aux." + name, value);
      if (result.block_fraction) out.add("block_fraction", at::full({}, *result.block_fraction, at::kDouble));
      result.total.backward();
      for (const auto& p : model.parameters()) out.add("grad." + p.name, p.tensor.grad().defined() ? p.tensor.grad() : at::zeros_like(p.tensor));
    }
  }
  out.write(json.at("out").get<std::string>());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 2) throw UserError("usage: nn_tool CASES.json");
    for (const Json& c : read_json(argv[1])) run(c);
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "nn_tool: " << e.what() << "\n";
    return 1;
  }
}
