// What tuning changed of a model and nothing else: routers, light paths, adapters beside projections, or whole weights. A safetensors file that is
// laid over the model that it was made for; docs/formats.md, "Tuned tensors".
#pragma once
#include <map>
#include <string>
#include <vector>

#include "convert/write.h"
#include "formats/dtype.h"

namespace fathom::convert {

// Ends of the names of an adapter's tensors.
inline constexpr const char* kAdapterA = ".lora_A.weight";
inline constexpr const char* kAdapterB = ".lora_B.weight";
// "….q_proj" of a tensor of its adapter; empty of any other.
std::string projection_of_adapter(const std::string& name);

struct Tuned {
  // Tensors of the model's schema, and of adapters "….q_proj.lora_A.weight" [r, in] and "….lora_B.weight" [out, r]; f32.
  std::map<std::string, model::StoredTensor> tensors;
  double adapter_scale = 0;  // a projection is W + adapter_scale · B · A

  bool changes(const std::string& name) const;  // the tensor of this name, by itself or by an adapter
  // UserError: a tensor that a model of `config` does not have, or in another shape; half of an adapter.
  void require_fit(const model::ModelConfig& config, const std::string& where) const;
};

// As it would come back from a file of `dtype`.
Tuned rounded(Tuned tuned, formats::Dtype dtype);
// Routers and predictors are F32 in the file, everything else `dtype` (F32 or F16). `before` stands before every name. Atomic.
void write_tuned(const std::string& path, const Tuned& tuned, formats::Dtype dtype, const std::string& before = "");
Tuned read_tuned(const std::string& path);

// The adapters of `tuned` as a model's that keeps them beside its projections. UserError where they are of several ranks, or not in all blocks that
// have the projection.
model::Adapters adapters_of(const Tuned& tuned, const model::ModelConfig& config, const std::string& where);

// The model with what `tuned` says in place of its own; adapters merged into their projections, unless the configuration of `base` has them beside
// these. `base` and `tuned` must outlive it. Of adapters the last tensor that was asked for stays in memory, until the next is.
Contents contents_of(const Contents& base, const Tuned& tuned);
// What tuning left alone is carried over. A changed matrix is `changed`; light paths, and adapters that stay apart, are Q8_0 where that has fewer than
// eight bits.
std::vector<TensorPlan> plan_tuned(const Contents& base, const Tuned& tuned, formats::GgmlType changed);
// A model without adapters that computes the same: merged into their projections. `model`'s tensors must outlive it.
Contents merged(Contents model);

}  // namespace fathom::convert
