// Parameters: their memory, names, initial values, and the way from and to a model folder.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "model/schema.h"
#include "nn/memory.h"
#include "nn/pass.h"

namespace fathom::nn {

using at::Tensor;

namespace {

bool ends_with(const std::string& name, std::string_view end) {
  return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
}

void copy_into(const Tensor& to, const std::vector<float>& values) {
  at::NoGradGuard no_grad;
  to.copy_(at::from_blob(const_cast<float*>(values.data()), to.sizes(), at::kFloat));
}

}  // namespace

Tensor TransformerState::at(const std::string& name) const {
  const auto it = named.find(name);
  return it == named.end() ? Tensor() : it->second;
}

void TransformerState::ensure_positions(int64_t positions) {
  if (cosine.defined() && cosine.size(0) >= positions) return;
  std::tie(cosine, sine) = rope_table(positions, config.head_dim, config.rope_theta, type, config.rope_scaling);
}

void TransformerState::refresh_low() {
  at::NoGradGuard no_grad;
  const auto refresh = [](Weight& w) {
    if (w.parts.empty()) return;
    uint64_t version = 0;  // versions only rise
    for (const Tensor& part : w.parts) version += part._version();
    if (w.low.defined() && w.low_version == version) return;
    if (!w.low.defined()) w.low = at::empty_like(w.joined, at::kBFloat16);
    w.low.copy_(w.joined);
    w.low_version = version;
  };
  for (BlockWeights& b : blocks) {
    for (Weight* w : {&b.qkv, &b.o, &b.gate_up, &b.down}) refresh(*w);
    if (b.qkv.parts.empty()) continue;
    b.q = b.qkv.rows(0, 1);
    b.kv = b.qkv.rows(1, 2);
  }
  for (UnitWeights& u : units)
    for (Weight* w : {&u.light_down, &u.light_up}) refresh(*w);
  refresh(head);
}

void refuse_untrainable(const model::ModelConfig& c, const std::string& where) {
  if (c.adapters.rank > 0)
    throw UserError({where, "adapters", str("rank ", c.adapters.rank), "none", "adapters that were kept apart are not trained on: fathom convert SOURCE OUT --from ARTIFACT --adapters merged"});
}

// Who has exited would be another state of every token.
static void refuse_exits(const routing::RoutingConfig& routing) {
  for (size_t u = 0; u < routing.units.size(); ++u)
    if (routing.units[u].paths.exit)
      throw UserError({"the network", str("fathom.units[", u, "].paths"), routing.units[u].paths.text(), "paths without exit", "exits are decided by the engine alone"});
}

namespace {

const std::vector<std::pair<std::string, const char*>> kLoraTargets = {
    {"q", "self_attn.q_proj"}, {"k", "self_attn.k_proj"}, {"v", "self_attn.v_proj"}, {"o", "self_attn.o_proj"},
    {"gate", "mlp.gate_proj"}, {"up", "mlp.up_proj"},     {"down", "mlp.down_proj"}};

// The names of projections that get an adapter: "self_attn.q_proj" and so on.
std::vector<std::string> adapted(const Trainable& trainable, const model::ModelConfig& config) {
  const Lora& lora = trainable.lora;
  if (lora.rank == 0) return {};
  if (trainable.everything) throw UserError({"the network", "lora.rank", std::to_string(lora.rank), "0 where everything is trained", ""});
  if (lora.rank < 0 || lora.rank > config.hidden_size)
    throw UserError({"the network", "lora.rank", std::to_string(lora.rank), str("1 to ", config.hidden_size), ""});
  std::vector<std::string> out;
  for (const std::string& target : lora.targets) {
    const auto it = std::ranges::find(kLoraTargets, target, [](const auto& pair) { return pair.first; });
    if (it == kLoraTargets.end()) throw UserError({"the network", "lora.targets", "\"" + printable(target) + "\"", "some of q, k, v, o, gate, up, down", ""});
    out.push_back(it->second);
  }
  return out;
}

}  // namespace

Transformer::Transformer(model::ModelConfig config, at::ScalarType dtype, const Trainable& trainable) : state_(std::make_unique<TransformerState>()) {
  FATHOM_ASSERT(dtype == at::kFloat || dtype == at::kDouble);
  refuse_untrainable(config, "the network");
  use_kept_memory();
  TransformerState& s = *state_;
  s.config = std::move(config);
  refuse_exits(s.config.routing);
  s.type = dtype;
  if (trainable.lora.rank > 0) s.adapter_scale = trainable.lora.alpha / static_cast<double>(trainable.lora.rank);
  const auto specs = model::schema(s.config);
  const std::vector<std::string> adapters = adapted(trainable, s.config);
  const auto new_parameter = [&](const model::TensorSpec& spec, const Tensor& memory) {
    Parameter p;
    p.name = spec.name;
    p.matrix = spec.shape.size() == 2;
    p.router = spec.name.find(".router.") != std::string::npos || spec.name.find(".predictor.") != std::string::npos;
    p.light = spec.name.find(".light.") != std::string::npos;
    const bool is_trained = trainable.everything || (p.router && trainable.routers) || (p.light && trainable.light);
    p.tensor = memory.view(spec.shape).detach().requires_grad_(is_trained);
    s.named[p.name] = p.tensor;
    if (is_trained) s.trained.push_back(p);
    s.tensors.push_back(std::move(p));
  };
  const auto new_adapter = [&](const std::string& projection, const Tensor& w) {
    const auto factor = [&](const char* name, at::IntArrayRef shape) {
      const Parameter p{.name = projection + name, .tensor = at::zeros(shape, dtype).requires_grad_(true), .matrix = true, .adapter = true};
      s.named[p.name] = p.tensor;
      s.trained.push_back(p);
      return p.tensor;
    };
    const int64_t rank = trainable.lora.rank;
    const Tensor a = factor(".lora_A.weight", {rank, w.size(1)}), b = factor(".lora_B.weight", {w.size(0), rank});
    return Adapter{a, b, s.adapter_scale};
  };
  const std::vector<std::vector<const char*>> joined = {{"q_proj.weight", "k_proj.weight", "v_proj.weight"}, {"gate_proj.weight", "up_proj.weight"},
                                                          {"q_proj.bias", "k_proj.bias", "v_proj.bias"},       {"gate_proj.bias", "up_proj.bias"}};
  for (size_t i = 0; i < specs.size();) {
    size_t count = 1;
    for (const auto& group : joined)
      if (ends_with(specs[i].name, group[0])) count = group.size();
    int64_t elements = 0, offset = 0;
    for (size_t j = i; j < i + count; ++j) elements += specs[j].elements();
    const Tensor memory = at::zeros({elements}, dtype);
    for (size_t j = i; j < i + count; ++j) {
      new_parameter(specs[j], memory.narrow(0, offset, specs[j].elements()));
      offset += specs[j].elements();
    }
    i += count;
  }

  const auto weight = [&](const std::vector<std::string>& names) {
    Weight w;
    int64_t rows = 0;
    for (const auto& name : names) {
      w.parts.push_back(s.at(name));
      FATHOM_ASSERT(w.parts.back().defined(), name);
      rows += w.parts.back().size(0);
    }
    for (size_t i = 0; i < names.size(); ++i) {
      const std::string projection = names[i].substr(0, names[i].size() - std::string_view(".weight").size());
      if (std::ranges::none_of(adapters, [&](const std::string& a) { return ends_with(projection, "." + a); })) continue;
      w.adapters.resize(names.size());
      w.adapters[i] = new_adapter(projection, w.parts[i]);
    }
    const int64_t columns = w.parts[0].size(1);
    w.joined = w.parts[0].detach().as_strided({rows, columns}, {columns, 1});
    for (const std::string& name : names)
      if (const Tensor bias = s.at(name.substr(0, name.rfind('.')) + ".bias"); bias.defined()) w.biases.push_back(bias);
    FATHOM_ASSERT(w.biases.empty() || w.biases.size() == names.size(), names[0]);
    if (!w.biases.empty()) w.bias = w.biases[0].detach().as_strided({rows}, {1});
    return w;
  };
  s.embedding = s.at("model.embed_tokens.weight");
  s.final_norm = s.at("model.norm.weight");
  s.head = weight({s.config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight"});
  for (int64_t block = 0; block < s.config.num_hidden_layers; ++block) {
    const std::string p = model::layer_prefix(block);
    BlockWeights b;
    if (s.config.has_part(block, routing::Part::attention)) {
      b.input_norm = s.at(p + "input_layernorm.weight");
      b.qkv = weight({p + "self_attn.q_proj.weight", p + "self_attn.k_proj.weight", p + "self_attn.v_proj.weight"});
      b.q = b.qkv.rows(0, 1);
      b.kv = b.qkv.rows(1, 2);
      b.o = weight({p + "self_attn.o_proj.weight"});
      b.q_norm = s.at(p + "self_attn.q_norm.weight");
      b.k_norm = s.at(p + "self_attn.k_norm.weight");
    }
    if (s.config.has_part(block, routing::Part::mlp)) {
      b.post_norm = s.at(p + "post_attention_layernorm.weight");
      b.gate_up = weight({p + "mlp.gate_proj.weight", p + "mlp.up_proj.weight"});
      b.down = weight({p + "mlp.down_proj.weight"});
    }
    s.blocks.push_back(std::move(b));
  }
  for (const routing::RoutedUnit& unit : s.config.routing.units) {
    const std::string p = model::unit_prefix(unit);
    UnitWeights u;
    u.router = s.at(p + "router.weight");
    u.router_bias = s.at(p + "router.bias");
    u.fc1 = s.at(p + "predictor.fc1.weight");
    u.fc1_bias = s.at(p + "predictor.fc1.bias");
    u.fc2 = s.at(p + "predictor.fc2.weight");
    u.fc2_bias = s.at(p + "predictor.fc2.bias");
    if (unit.paths.light) {
      u.light_down = weight({p + "light.down.weight"});
      u.light_up = weight({p + "light.up.weight"});
    }
    s.units.push_back(std::move(u));
  }
  s.ones = at::ones({s.config.hidden_size}, dtype);
}

Transformer::~Transformer() = default;
const model::ModelConfig& Transformer::config() const { return state_->config; }
const std::vector<Parameter>& Transformer::parameters() const { return state_->trained; }
const std::vector<Parameter>& Transformer::tensors() const { return state_->tensors; }

Tensor Transformer::parameter(const std::string& name) const {
  const Tensor t = state_->at(name);
  FATHOM_ASSERT(t.defined(), name);
  return t;
}

void Transformer::init(uint64_t seed) {
  const double deviation = state_->config.initializer_range;
  const double residual = deviation / std::sqrt(2.0 * static_cast<double>(state_->config.num_hidden_layers));
  for (const Parameter& p : state_->tensors) {
    const bool norm = ends_with(p.name, "norm.weight");
    std::vector<float> values(static_cast<size_t>(p.tensor.numel()), norm ? 1.0f : 0.0f);
    if (p.matrix) {
      const bool to_residual = ends_with(p.name, "o_proj.weight") || ends_with(p.name, "down_proj.weight") || ends_with(p.name, "light.up.weight");
      Random random = Random(seed).fork(p.name);
      for (float& v : values) v = static_cast<float>((to_residual ? residual : deviation) * random.normal());
    }
    copy_into(p.tensor, values);
  }
  init_adapters(seed);
}

void Transformer::init_adapters(uint64_t seed) {
  for (const Parameter& p : state_->trained) {
    if (!p.adapter) continue;
    std::vector<float> values(static_cast<size_t>(p.tensor.numel()), 0.0f);
    if (ends_with(p.name, ".lora_A.weight")) {
      Random random = Random(seed).fork(p.name);
      for (float& v : values) v = static_cast<float>(random.normal() / std::sqrt(static_cast<double>(p.tensor.size(1))));
    }
    copy_into(p.tensor, values);
  }
}

void Transformer::load(const model::ModelFolder& folder) {
  for (const Parameter& p : state_->tensors) copy_into(p.tensor, folder.read_f32(p.name));
}

void Transformer::load(const std::string& name, const std::vector<float>& values) {
  const Tensor to = parameter(name);
  FATHOM_ASSERT(static_cast<int64_t>(values.size()) == to.numel(), name, ": ", values.size(), " values for ", to.numel());
  copy_into(to, values);
}

static std::vector<float> values_of(const Tensor& tensor) {
  const Tensor t = tensor.detach().to(at::kFloat).contiguous();
  return {t.const_data_ptr<float>(), t.const_data_ptr<float>() + t.numel()};
}

std::vector<float> Transformer::read(const std::string& name) const { return values_of(parameter(name)); }

std::vector<float> Transformer::merged(const std::string& name) const {
  at::NoGradGuard no_grad;
  const Tensor w = parameter(name);
  const std::string projection = ends_with(name, ".weight") ? name.substr(0, name.size() - 7) : name;
  const Tensor a = state_->at(projection + ".lora_A.weight"), b = state_->at(projection + ".lora_B.weight");
  return values_of(a.defined() ? w + at::mm(b, a) * state_->adapter_scale : w);
}

}  // namespace fathom::nn
