#include "convert/peft.h"

#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"

namespace fathom::convert {
namespace {

constexpr const char* kOfModel = "base_model.model.";  // what PEFT has before the names of the model that it wraps

// An alpha divided by its rank is the factor of an adapter.
Json alpha(double scale, int64_t rank) {
  const double value = scale * static_cast<double>(rank);
  return value == std::round(value) ? Json(static_cast<int64_t>(value)) : Json(value);
}

}  // namespace

Tuned take_adapters(Tuned& tuned) {
  Tuned out{.tensors = {}, .adapter_scale = std::exchange(tuned.adapter_scale, 0)};
  for (auto it = tuned.tensors.begin(); it != tuned.tensors.end();) {
    const auto at = it++;
    if (!projection_of_adapter(at->first).empty()) out.tensors.insert(tuned.tensors.extract(at));
  }
  return out;
}

void write_peft(const std::string& folder, const Tuned& adapters) {
  Json targets = Json::array(), ranks = Json::object(), alphas = Json::object();
  int64_t rank = 0;  // of the first, which the others have too unless a pattern says otherwise
  for (const auto& [name, tensor] : adapters.tensors) {
    if (!name.ends_with(kAdapterA)) continue;
    const std::string projection = projection_of_adapter(name);
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
