// Models whose matrices are of a file's types.
#pragma once
#include <map>

#include "formats/ggml_types.h"
#include "model/schema.h"
#include "support.h"

namespace fathom::infer::test {

using formats::GgmlType;

inline constexpr GgmlType kTypes[] = {GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q4_1,
                               GgmlType::Q5_0, GgmlType::Q5_1, GgmlType::Q4_K, GgmlType::Q5_K, GgmlType::Q6_K};

// Matrices of `type` where their rows are whole blocks of it (else f32), and the numbers that these stand for.
struct QuantizedModel {
  model::ModelConfig config;
  std::map<std::string, model::StoredTensor> stored;
  model::Weights plain;
  std::shared_ptr<const Weights> weights;

  QuantizedModel(const model::ModelConfig& c, uint64_t seed, const std::function<GgmlType(const std::string&)>& type_of) : config(c), plain(model::random_weights(c, seed)) {
    for (const model::TensorSpec& spec : model::schema(config)) {
      std::vector<float>& values = plain.at(spec.name);
      const GgmlType wanted = type_of(spec.name);
      const bool matrix = spec.shape.size() == 2 && spec.shape[0] > 1 && spec.shape[1] % formats::ggml_block_elements(wanted) == 0;
      const GgmlType type = matrix ? wanted : GgmlType::F32;
      const auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(formats::ggml_bytes(type, spec.elements())));
      formats::quantize(type, values, bytes->data());
      formats::dequantize(type, *bytes, values.data());
      stored.emplace(spec.name, model::StoredTensor{.where = "memory", .name = spec.name, .type = type, .shape = spec.shape, .bytes = *bytes,
                                                    .interleaved_head = 0, .owner = bytes});
    }
    weights = Weights::from(config, [this](const std::string& name) -> const model::StoredTensor& { return stored.at(name); });
  }
};

}  // namespace fathom::infer::test
