#include "infer/weights.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "model/schema.h"

namespace fathom::infer {
namespace {

using kernels::PackedMatrix;

// Floats of all packed matrices of a model.
int64_t packed_floats(const model::ModelConfig& c) {
  const int64_t C = c.hidden_size, HD = c.num_attention_heads * c.head_dim, GD = c.num_key_value_heads * c.head_dim;
  int64_t block = kernels::packed_size(HD, C) + 2 * kernels::packed_size(GD, C) + kernels::packed_size(C, HD) +
                  2 * kernels::packed_size(c.intermediate_size, C) + kernels::packed_size(C, c.intermediate_size);
  int64_t total = c.num_hidden_layers * block + kernels::packed_size(c.vocab_size, C);
  if (c.routing.rule == routing::CausalRule::predictor)
    total += static_cast<int64_t>(c.routing.blocks.size()) * kernels::packed_size(c.predictor_width(), C);
  return total;
}

class Packer {
 public:
  Packer(const Weights::Source& source, float* storage) : source_(source), next_(storage) {}

  std::vector<float> vector(const std::string& name, int64_t size) {
    std::vector<float> values = source_(name);
    FATHOM_ASSERT(static_cast<int64_t>(values.size()) == size, name, " has ", values.size(), " elements, not ", size);
    return values;
  }
  float scalar(const std::string& name) { return vector(name, 1)[0]; }
  PackedMatrix matrix(const std::string& name, int64_t outputs, int64_t inner) {
    return pack(vector(name, outputs * inner), outputs, inner);
  }
  PackedMatrix pack(const std::vector<float>& rows, int64_t outputs, int64_t inner) {
    float* const at = next_;
    next_ += kernels::packed_size(outputs, inner);
    return PackedMatrix(rows, outputs, inner, at);
  }

 private:
  const Weights::Source& source_;
  float* next_;
};

}  // namespace

int64_t BlockWeights::bytes() const {
  int64_t total = 0;
  for (const PackedMatrix* m : {&q, &k, &v, &o, &gate, &up, &down}) total += m->bytes();
  return total;
}

std::shared_ptr<const Weights> Weights::from(const model::ModelConfig& config, const Source& source) {
  auto weights = std::make_shared<Weights>();
  Weights& w = *weights;
  w.config_ = config;
  const int64_t C = config.hidden_size, HD = config.num_attention_heads * config.head_dim;
  const int64_t GD = config.num_key_value_heads * config.head_dim, F = config.intermediate_size, P = config.predictor_width();
  w.storage_ = kernels::Buffer(packed_floats(config));
  Packer packer(source, w.storage_.data());

  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const std::string at = model::layer_prefix(block);
    BlockWeights b;
    b.attention_norm = packer.vector(at + "input_layernorm.weight", C);
    b.q = packer.matrix(at + "self_attn.q_proj.weight", HD, C);
    b.k = packer.matrix(at + "self_attn.k_proj.weight", GD, C);
    b.v = packer.matrix(at + "self_attn.v_proj.weight", GD, C);
    b.o = packer.matrix(at + "self_attn.o_proj.weight", C, HD);
    b.mlp_norm = packer.vector(at + "post_attention_layernorm.weight", C);
    b.gate = packer.matrix(at + "mlp.gate_proj.weight", F, C);
    b.up = packer.matrix(at + "mlp.up_proj.weight", F, C);
    b.down = packer.matrix(at + "mlp.down_proj.weight", C, F);
    if (config.routing.routed_index(static_cast<int>(block)) >= 0) {
      RouterWeights& router = b.router;
      router.weight = packer.vector(at + "router.weight", C);
      if (config.routing.router_bias) router.bias = packer.scalar(at + "router.bias");
      if (config.routing.rule == routing::CausalRule::predictor) {
        router.predictor_fc1 = packer.matrix(at + "predictor.fc1.weight", P, C);
        router.fc1_bias = packer.vector(at + "predictor.fc1.bias", P);
        router.fc2 = packer.vector(at + "predictor.fc2.weight", P);
        router.fc2_bias = packer.scalar(at + "predictor.fc2.bias");
      }
    }
    w.blocks_.push_back(std::move(b));
  }
  w.final_norm_ = packer.vector("model.norm.weight", C);
  std::vector<float> embedding = packer.vector("model.embed_tokens.weight", config.vocab_size * C);
  if (config.tie_word_embeddings) {
    w.head_ = packer.pack(embedding, config.vocab_size, C);
  } else {
    w.embedding_ = std::move(embedding);
    w.head_ = packer.matrix("lm_head.weight", config.vocab_size, C);
  }
  return weights;
}

std::shared_ptr<const Weights> Weights::from(const model::ModelConfig& config,
                                             const std::map<std::string, std::vector<float>>& tensors) {
  return from(config, [&](const std::string& name) {
    const auto found = tensors.find(name);
    FATHOM_ASSERT(found != tensors.end(), "no tensor ", name);
    return found->second;
  });
}

std::shared_ptr<const Weights> Weights::load(const model::ModelFolder& folder) {
  return from(folder.config(), [&](const std::string& name) { return folder.read_f32(name); });
}

void Weights::embed(int32_t token, float* to) const {
  const int64_t C = config_.hidden_size;
  if (embedding_.empty()) return head_.copy_row(token, to);
  std::copy_n(embedding_.data() + token * C, C, to);
}

int64_t Weights::bytes() const {
  int64_t floats = storage_.size() + static_cast<int64_t>(embedding_.size() + final_norm_.size());
  for (const BlockWeights& b : blocks_)
    floats += static_cast<int64_t>(b.attention_norm.size() + b.mlp_norm.size() + b.router.weight.size() +
                                   b.router.fc1_bias.size() + b.router.fc2.size());
  return floats * static_cast<int64_t>(sizeof(float));
}

}  // namespace fathom::infer
