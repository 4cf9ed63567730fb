#include "convert/peft.h"

#include <cmath>

#include "core/error.h"
#include "core/file.h"
#include "core/float16.h"
#include "core/json.h"

namespace fathom::convert {
namespace {

using model::StoredTensor;

constexpr const char* kOfModel = "base_model.model.";  // what PEFT has before the names of the model that it wraps

// An alpha divided by its rank is the factor of an adapter.
Json alpha(double scale, int64_t rank) {
  const double value = scale * static_cast<double>(rank);
  return value == std::round(value) ? Json(static_cast<int64_t>(value)) : Json(value);
}

}  // namespace

void split_adapters(Tuned& from, Tuned& to) {
  for (auto it = from.tensors.begin(); it != from.tensors.end();) {
    const auto next = std::next(it);
    if (!projection_of_adapter(it->first).empty()) to.tensors.insert(from.tensors.extract(it));
    it = next;
  }
  std::swap(from.adapter_scale, to.adapter_scale);
}

void write_peft(const std::string& folder, const Tuned& adapters) {
  Json targets = Json::array(), ranks = Json::object(), alphas = Json::object();
  int64_t rank = 0;  // of the first, which the others have too unless a pattern says otherwise
  for (const auto& [name, tensor] : adapters.tensors) {
    const std::string projection = projection_of_adapter(name);
    if (!name.ends_with(kAdapterA)) continue;
    if (rank == 0) rank = tensor.rows();
    if (tensor.rows() != rank) ranks[projection] = tensor.rows(), alphas[projection] = alpha(adapters.adapter_scale, tensor.rows());
    targets.push_back(projection);
  }
  const Json config = {{"peft_type", "LORA"}, {"task_type", "CAUSAL_LM"}, {"base_model_name_or_path", nullptr}, {"inference_mode", true}, {"r", rank}, {"lora_alpha", alpha(adapters.adapter_scale, rank)},
                       {"rank_pattern", ranks}, {"alpha_pattern", alphas}, {"lora_dropout", 0.0}, {"bias", "none"}, {"target_modules", targets}};
  make_folders(folder);
  atomic_write(join_path(folder, "adapter_config.json"), config.dump(2) + "\n");
  write_tuned(join_path(folder, "adapter_model.safetensors"), adapters, formats::Dtype::F16, kOfModel);
}

}  // namespace fathom::convert
