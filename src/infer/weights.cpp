#include "infer/weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/thread_pool.h"
#include "formats/ggml_types.h"
#include "model/schema.h"

namespace fathom::infer {
namespace {

using formats::GgmlType;
using kernels::PackedMatrix;
using kernels::Packing;
using model::StoredTensor;

Packing packing_of(GgmlType type) {
  switch (type) {
    case GgmlType::F32: return Packing::f32;
    case GgmlType::F16: return Packing::f16;
    case GgmlType::BF16: return Packing::bf16;
    case GgmlType::Q8_0: return Packing::q8;
    case GgmlType::Q4_0: return Packing::q4;
    case GgmlType::Q4_1: return Packing::q4_min;
    case GgmlType::Q5_0: return Packing::q5;
    case GgmlType::Q5_1: return Packing::q5_min;
    case GgmlType::Q4_K: return Packing::q4_k;
    case GgmlType::Q5_K: return Packing::q5_k;
    case GgmlType::Q6_K: return Packing::q6_k;
  }
  FATHOM_ASSERT(false, "ggml type without a packing");
}

// Matrices follow each other at multiples of a cache line.
int64_t room(const StoredTensor& t) { return (kernels::packed_bytes(packing_of(t.type), t.rows(), t.columns()) + 63) / 64 * 64; }

constexpr const char* kEmbedding = "model.embed_tokens.weight";
const char* head_name(const model::ModelConfig& c) { return c.tie_word_embeddings ? kEmbedding : "lm_head.weight"; }

class Packer {
 public:
  Packer(const Weights::Source& source, int threads, bool check, const std::function<void()>& let_go) : source_(source), threads_(threads), check_(check), let_go_(let_go) {}

  // The matrices to come, in their order: their memory is one buffer.
  kernels::Buffer reserve(const std::vector<std::string>& names) {
    int64_t bytes = 0;
    for (const std::string& name : names) bytes += room(source_(name));
    kernels::Buffer storage(bytes / static_cast<int64_t>(sizeof(float)));
    next_ = reinterpret_cast<std::byte*>(storage.data());
    return storage;
  }
  std::vector<float> vector(const std::string& name, int64_t size) {
    const StoredTensor& t = source_(name);
    check(t);
    std::vector<float> values = t.to_f32();
    FATHOM_ASSERT(static_cast<int64_t>(values.size()) == size, name, " has ", values.size(), " elements, not ", size);
    return values;
  }
  float scalar(const std::string& name) { return vector(name, 1)[0]; }
  // Not packed: rows are read from where the source has them.
  StoredTensor embedding(int64_t vocabulary, int64_t width) {
    StoredTensor t = source_(kEmbedding);
    FATHOM_ASSERT(t.rows() == vocabulary && t.columns() == width, kEmbedding, " is ", t.rows(), " x ", t.columns(), ", not ", vocabulary, " x ", width);
    check(t);
    if (t.owner) return t;
    const auto copy = std::make_shared<const std::vector<std::byte>>(t.bytes.begin(), t.bytes.end());
    t.bytes = *copy;
    t.owner = copy;
    return t;
  }
  PackedMatrix matrix(const std::string& name, int64_t outputs, int64_t inner) {
    const StoredTensor& t = source_(name);
    FATHOM_ASSERT(t.rows() == outputs && t.columns() == inner, name, " is ", t.rows(), " x ", t.columns(), ", not ", outputs, " x ", inner);
    std::byte* const at = next_;
    next_ += room(t);
    const Packing packing = packing_of(t.type);
    std::atomic<bool> sound{true};
    if (kernels::is_plain(packing)) {
      PackedMatrix packed(packing, outputs, inner, [&](int64_t n, std::byte* row) {
        const std::span<const std::byte> from = t.row(n);
        if (!from.empty()) std::memcpy(row, from.data(), from.size());
        read(from.size());
        if (check_ && !formats::is_finite(t.type, from)) sound = false;
      }, threads_, at);
      if (!sound) t.refuse_not_finite();
      return packed;
    }
    PackedMatrix packed(packing, outputs, inner, [&](int64_t n, const kernels::QuantizedRow& row) {
      thread_local formats::UnpackedBlocks blocks;
      const std::span<const std::byte> from = t.row(n);
      formats::unpack(t.type, from, blocks);
      read(from.size());
      std::ranges::copy(blocks.codes, row.codes.begin());
      std::ranges::copy(blocks.d, row.scale.begin());
      std::ranges::copy(blocks.sub_scale, row.sub_scale.begin());
      std::ranges::copy(blocks.sub_minimum, row.sub_minimum.begin());
      // Files of two levels subtract their minima, we add them.
      const uint16_t sign = blocks.layout.two_level ? 0x8000 : 0;
      std::ranges::transform(blocks.dmin, row.minimum.begin(), [sign](uint16_t bits) { return static_cast<uint16_t>(bits ^ sign); });
      if (check_ && !(formats::is_finite(GgmlType::F16, std::as_bytes(row.scale)) && formats::is_finite(GgmlType::F16, std::as_bytes(row.minimum)))) sound = false;
    }, threads_, at);
    if (!sound) t.refuse_not_finite();
    return packed;
  }

 private:
  // Bytes of the source, which is let go of every few MB; pages that another thread is just reading come back.
  void read(size_t bytes) {
    constexpr size_t kAtOnce = size_t{4} << 20;
    if (!let_go_) return;
    const size_t before = read_.fetch_add(bytes, std::memory_order_relaxed);
    if (before / kAtOnce != (before + bytes) / kAtOnce) let_go_();
  }

  void check(const StoredTensor& t) {
    if (!check_) return;
    constexpr int64_t kRows = 64;
    std::atomic<bool> sound{true};
    threads_.parallel_for((t.rows() + kRows - 1) / kRows, [&](int64_t chunk) {
      for (int64_t n = chunk * kRows; n < std::min(t.rows(), (chunk + 1) * kRows); ++n) {
        const std::span<const std::byte> row = t.row(n);
        read(row.size());
        if (!formats::is_finite(t.type, row)) sound = false;
      }
    });
    if (!sound) t.refuse_not_finite();  // by its place
  }

  const Weights::Source& source_;
  ThreadPool threads_;
  bool check_;
  const std::function<void()>& let_go_;
  std::atomic<size_t> read_{0};
  std::byte* next_ = nullptr;
};

// Its matrices are those of matrix_names(), in that order.
UnitWeights unit_weights(Packer& packer, const model::ModelConfig& config, const routing::RoutedUnit& unit) {
  const std::string at = model::unit_prefix(unit);
  const int64_t C = config.hidden_size, P = config.predictor_width();
  UnitWeights w;
  if (!unit.is_static()) {
    w.router = packer.vector(at + "router.weight", C);
    if (config.routing.router_bias) w.bias = packer.scalar(at + "router.bias");
    if (config.routing.rule == routing::CausalRule::predictor) {
      w.predictor_fc1 = packer.matrix(at + "predictor.fc1.weight", P, C);
      w.fc1_bias = packer.vector(at + "predictor.fc1.bias", P);
      w.fc2 = packer.vector(at + "predictor.fc2.weight", P);
      w.fc2_bias = packer.scalar(at + "predictor.fc2.bias");
    }
  }
  if (unit.paths.light) {
    w.light_down = packer.matrix(at + "light.down.weight", unit.light_rank, C);
    w.light_up = packer.matrix(at + "light.up.weight", C, unit.light_rank);
  }
  return w;
}

// The packed matrices of a model, in the order in which they are packed: the head first, while the others are not in memory yet.
std::vector<std::string> matrix_names(const model::ModelConfig& c) {
  std::vector<std::string> names = {head_name(c)};
  for (int64_t block = 0; block < c.num_hidden_layers; ++block) {
    const std::string at = model::layer_prefix(block);
    const auto [first, last] = c.routing.units_of(block);
    for (size_t u = first; u < last; ++u) {
      const std::string unit = model::unit_prefix(c.routing.units[u]);
      if (c.routing.rule == routing::CausalRule::predictor && !c.routing.units[u].is_static()) names.push_back(unit + "predictor.fc1.weight");
      if (!c.routing.units[u].paths.light) continue;
      for (const char* name : {"light.down", "light.up"}) names.push_back(unit + name + ".weight");
    }
    const auto projections = [&](const std::string& part, std::initializer_list<const char*> list) {
      for (const char* name : list) {
        names.push_back(at + part + name + "_proj.weight");
        if (!c.adapters.on(name)) continue;
        for (const char* factor : {"A", "B"}) names.push_back(str(at, part, name, "_proj.lora_", factor, ".weight"));
      }
    };
    if (c.has_part(block, routing::Part::attention)) projections("self_attn.", {"q", "k", "v", "o"});
    if (c.has_part(block, routing::Part::mlp)) projections("mlp.", {"gate", "up", "down"});
  }
  return names;
}

}  // namespace

model::WeightBytes weight_bytes(const model::ModelFolder& folder) {
  model::WeightBytes out;
  double bytes = 0, elements = 0;
  for (const std::string& name : matrix_names(folder.config())) {
    const StoredTensor& t = folder.stored(name);
    const double each = kernels::bytes_per_weight(packing_of(t.type)), n = static_cast<double>(t.rows()) * static_cast<double>(t.columns());
    if (name.ends_with("_proj.weight") || name.find(".light.") != std::string::npos || model::is_adapter(name)) bytes += each * n, elements += n;
    else if (name == head_name(folder.config())) out.head = each;
  }
  if (elements > 0) out.blocks = bytes / elements;
  return out;
}

int64_t resident_bytes(const model::ModelFolder& folder) {
  const std::vector<std::string> names = matrix_names(folder.config());
  int64_t bytes = 0;
  for (const model::TensorSpec& spec : model::schema(folder.config()))
    if (std::ranges::find(names, spec.name) != names.end()) bytes += room(folder.stored(spec.name));
    else if (spec.name != kEmbedding) bytes += spec.elements() * static_cast<int64_t>(sizeof(float));
  return bytes;
}

int64_t BlockWeights::vector_elements() const {
  int64_t total = 0;
  for (const std::vector<float>* v : {&attention_norm, &mlp_norm, &q_bias, &k_bias, &v_bias, &o_bias, &gate_bias, &up_bias, &down_bias, &q_norm, &k_norm})
    total += static_cast<int64_t>(v->size());
  return total;
}

std::shared_ptr<const Weights> Weights::from(const model::ModelConfig& config, const Source& source, int threads, bool refuse_not_finite, const std::function<void()>& let_go) {
  auto weights = std::make_shared<Weights>();
  Weights& w = *weights;
  w.config_ = config;
  const int64_t C = config.hidden_size, HD = config.num_attention_heads * config.head_dim;
  const int64_t GD = config.num_key_value_heads * config.head_dim, F = config.intermediate_size;
  Packer packer(source, threads, refuse_not_finite, let_go);
  // First, and let go of before the others take their place: its rows are all looked at here, and few of them later.
  if (!config.tie_word_embeddings) w.embedding_ = packer.embedding(config.vocab_size, C);
  w.storage_ = packer.reserve(matrix_names(config));
  w.head_ = packer.matrix(head_name(config), config.vocab_size, C);
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const std::string at = model::layer_prefix(block);
    const auto [first, last] = config.routing.units_of(block);
    for (size_t u = first; u < last; ++u) w.units_.push_back(unit_weights(packer, config, config.routing.units[u]));
    BlockWeights b;
    const auto project = [&](const std::string& part, const std::string& name, int64_t outputs, int64_t inner, PackedMatrix& to, std::optional<AdapterWeights>& adapter) {
      const std::string projection = at + part + name + "_proj.";
      to = packer.matrix(projection + "weight", outputs, inner);
      if (!config.adapters.on(name)) return;
      adapter.emplace();
      adapter->down = packer.matrix(projection + "lora_A.weight", config.adapters.rank, inner);
      adapter->up = packer.matrix(projection + "lora_B.weight", outputs, config.adapters.rank);
    };
    if (config.has_part(block, routing::Part::attention)) {
      b.attention_norm = packer.vector(at + "input_layernorm.weight", C);
      project("self_attn.", "q", HD, C, b.q, b.q_adapter);
      project("self_attn.", "k", GD, C, b.k, b.k_adapter);
      project("self_attn.", "v", GD, C, b.v, b.v_adapter);
      project("self_attn.", "o", C, HD, b.o, b.o_adapter);
      if (config.qkv_bias) {
        b.q_bias = packer.vector(at + "self_attn.q_proj.bias", HD);
        b.k_bias = packer.vector(at + "self_attn.k_proj.bias", GD);
        b.v_bias = packer.vector(at + "self_attn.v_proj.bias", GD);
      }
      if (config.output_bias) b.o_bias = packer.vector(at + "self_attn.o_proj.bias", C);
      if (config.qk_norm) {
        b.q_norm = packer.vector(at + "self_attn.q_norm.weight", config.head_dim);
        b.k_norm = packer.vector(at + "self_attn.k_norm.weight", config.head_dim);
      }
    }
    if (config.has_part(block, routing::Part::mlp)) {
      b.mlp_norm = packer.vector(at + "post_attention_layernorm.weight", C);
      project("mlp.", "gate", F, C, b.gate, b.gate_adapter);
      project("mlp.", "up", F, C, b.up, b.up_adapter);
      project("mlp.", "down", C, F, b.down, b.down_adapter);
      if (config.mlp_bias) {
        b.gate_bias = packer.vector(at + "mlp.gate_proj.bias", F);
        b.up_bias = packer.vector(at + "mlp.up_proj.bias", F);
        b.down_bias = packer.vector(at + "mlp.down_proj.bias", C);
      }
    }
    w.blocks_.push_back(std::move(b));
  }
  w.final_norm_ = packer.vector("model.norm.weight", C);
  return weights;
}

std::shared_ptr<const Weights> Weights::from(const model::ModelConfig& config,
                                             const std::map<std::string, std::vector<float>>& tensors) {
  std::map<std::string, StoredTensor> stored;
  for (const model::TensorSpec& spec : model::schema(config)) {
    const auto found = tensors.find(spec.name);
    FATHOM_ASSERT(found != tensors.end(), "no tensor ", spec.name);
    FATHOM_ASSERT(static_cast<int64_t>(found->second.size()) == spec.elements(), spec.name, " has ", found->second.size(), " elements");
    stored.emplace(spec.name, StoredTensor{.where = "memory", .name = spec.name, .type = GgmlType::F32, .shape = spec.shape,
                                           .bytes = std::as_bytes(std::span(found->second)), .interleaved_head = 0, .owner = {}});
  }
  return from(config, [&](const std::string& name) -> const StoredTensor& { return stored.at(name); });
}

std::shared_ptr<const Weights> Weights::load(const model::ModelFolder& folder, int threads) {
  StoredTensor tensor;
  const auto source = [&](const std::string& name) -> const StoredTensor& {
    tensor = folder.stored(name);
    tensor.owner = folder.files();
    return tensor;
  };
  auto weights = from(folder.config(), source, threads > 0 ? threads : available_threads(), true, [&] { folder.release(); });
  folder.release();
  return weights;
}

void Weights::embed(int32_t token, float* to) const {
  if (embedding_.bytes.empty()) head_.copy_row(token, to);
  else embedding_.row_f32(token, to);
}

int64_t Weights::bytes() const {
  int64_t floats = storage_.size() + static_cast<int64_t>(final_norm_.size());
  for (const BlockWeights& b : blocks_) floats += b.vector_elements();
  for (const UnitWeights& u : units_) floats += static_cast<int64_t>(u.router.size() + u.fc1_bias.size() + u.fc2.size());
  return floats * static_cast<int64_t>(sizeof(float));
}

}  // namespace fathom::infer
