#include "convert/tuned.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>

#include "core/error.h"
#include "core/float16.h"
#include "core/human.h"
#include "core/thread_pool.h"
#include "formats/safetensors.h"

namespace fathom::convert {
namespace {

using formats::Dtype;
using formats::GgmlType;
using model::StoredTensor;

constexpr const char* kScaleKey = "adapter_scale";

// "….q_proj.weight" → "….q_proj"
std::string projection_of(const std::string& name) { return name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name; }

bool decides(const std::string& name) { return name.find("router.") != std::string::npos || name.find("predictor.") != std::string::npos; }

std::vector<float> merged(const StoredTensor& base, const StoredTensor& a, const StoredTensor& b, double scale) {
  std::vector<float> out = base.to_f32();
  const std::vector<float> down = a.to_f32(), up = b.to_f32();
  const int64_t rank = a.rows(), in = a.columns();
  ThreadPool threads(available_threads());
  threads.parallel_for(b.rows(), [&](int64_t o) {
    float* row = out.data() + o * in;
    for (int64_t r = 0; r < rank; ++r) {
      const float factor = static_cast<float>(scale) * up[static_cast<size_t>(o * rank + r)];
      const float* from = down.data() + r * in;
      for (int64_t i = 0; i < in; ++i) row[i] += factor * from[i];
    }
  });
  return out;
}

// In memory of its own.
StoredTensor stored_copy(const StoredTensor& t) { return model::stored_f32(t.name, t.shape, t.to_f32()); }

}  // namespace

std::string projection_of_adapter(const std::string& name) {
  for (const std::string end : {kAdapterA, kAdapterB})
    if (name.ends_with(end)) return name.substr(0, name.size() - end.size());
  return "";
}

bool Tuned::changes(const std::string& name) const { return tensors.contains(name) || tensors.contains(projection_of(name) + kAdapterA); }

void Tuned::require_fit(const model::ModelConfig& config, const std::string& where) const {
  std::map<std::string, std::vector<int64_t>> known;
  for (model::TensorSpec& spec : model::schema(config)) known.emplace(std::move(spec.name), std::move(spec.shape));
  const auto hold = [&](const std::string& name, const std::vector<int64_t>& found, const std::vector<int64_t>& expected) {
    if (found != expected) throw UserError({where, name, "shape " + shape_text(found), "shape " + shape_text(expected), "it was tuned for another model"});
  };
  for (const auto& [name, tensor] : tensors) {
    const bool is_a = name.ends_with(kAdapterA);
    const std::string stem = projection_of_adapter(name), of = stem.empty() ? name : stem + ".weight";
    const auto spec = known.find(of);
    if (spec == known.end() || (!stem.empty() && spec->second.size() != 2)) throw UserError({where, name, "a tensor that the model does not have", "tensors of the model that was tuned", "it was tuned for another model"});
    if (stem.empty()) {
      hold(name, tensor.shape, spec->second);
      continue;
    }
    if (tensors.contains(of)) throw UserError({where, name, "an adapter beside the whole of " + of, "one of them", ""});
    const auto other = tensors.find(stem + (is_a ? kAdapterB : kAdapterA));
    if (other == tensors.end()) throw UserError({where, name, "half of an adapter", str("also ", stem, is_a ? kAdapterB : kAdapterA), "the file is damaged"});
    const int64_t rank = is_a ? tensor.shape.front() : tensor.shape.back();
    hold(name, tensor.shape, is_a ? std::vector<int64_t>{rank, spec->second[1]} : std::vector<int64_t>{spec->second[0], rank});
    if (is_a) hold(stem + kAdapterB, other->second.shape, {spec->second[0], rank});
  }
}

Tuned rounded(Tuned tuned, Dtype dtype) {
  for (auto& [name, tensor] : tuned.tensors) {
    if (dtype == Dtype::F32 || decides(name)) continue;
    std::vector<float> values = tensor.to_f32();
    for (float& v : values) v = f16_to_f32(f32_to_f16(v));
    tensor = model::stored_f32(name, tensor.shape, std::move(values));
  }
  return tuned;
}

void write_tuned(const std::string& path, const Tuned& tuned, Dtype dtype, const std::string& before) {
  FATHOM_ASSERT(dtype == Dtype::F32 || dtype == Dtype::F16, "");
  std::vector<formats::TensorEntry> entries;
  for (const auto& [name, tensor] : tuned.tensors) entries.push_back({before + name, decides(name) ? Dtype::F32 : dtype, tensor.shape});
  std::map<std::string, std::string> metadata = {{"producer", "fathom"}};
  if (tuned.adapter_scale != 0) metadata[kScaleKey] = str(tuned.adapter_scale);
  formats::SafetensorsWriter writer(path, entries, metadata);
  size_t i = 0;
  for (const auto& [name, tensor] : tuned.tensors) {
    const std::vector<float> values = tensor.to_f32();
    model::refuse_not_finite(values, path, name, "tuning diverged: go back to an earlier checkpoint with a lower learning rate");
    if (entries[i++].dtype == Dtype::F32) {
      writer.append(std::as_bytes(std::span(values)));
      continue;
    }
    std::vector<uint16_t> halves(values.size());
    std::ranges::transform(values, halves.begin(), f32_to_f16);
    writer.append(std::as_bytes(std::span(halves)));
  }
  writer.commit();
}

Tuned read_tuned(const std::string& path) {
  const formats::SafetensorsFile file(path);
  Tuned out;
  for (const formats::TensorView& t : file.tensors()) {
    if (t.dtype != Dtype::F32 && t.dtype != Dtype::F16 && t.dtype != Dtype::BF16) throw UserError({path, t.name, formats::dtype_name(t.dtype), "F32, F16 or BF16", ""});
    std::vector<float> values = t.to_f32();
    model::refuse_not_finite(values, path, t.name, "the file is damaged");
    out.tensors.emplace(t.name, model::stored_f32(t.name, t.shape, std::move(values)));
  }
  if (out.tensors.empty()) throw UserError({path, "", "no tensor", "what tuning changed", ""});
  if (const auto scale = file.metadata().find(kScaleKey); scale != file.metadata().end()) {
    const std::string& text = scale->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out.adapter_scale);
    if (error != std::errc() || end != text.data() + text.size() || !(out.adapter_scale > 0 && out.adapter_scale < 1e6)) throw UserError({path, str("__metadata__.", kScaleKey), "\"" + printable(text) + "\"", "a number above 0", "the file is damaged"});
  }
  const bool adapters = std::ranges::any_of(out.tensors, [](const auto& t) { return t.first.ends_with(kAdapterA); });
  if (adapters != (out.adapter_scale > 0)) throw UserError({path, str("__metadata__.", kScaleKey), adapters ? "none" : str(out.adapter_scale), adapters ? "the scale of its adapters" : "none: it has no adapters", "the file is damaged"});
  return out;
}

model::Adapters adapters_of(const Tuned& tuned, const model::ModelConfig& config, const std::string& where) {
  model::Adapters out;
  const auto refuse = [&](const std::string& name, const std::string& found, const std::string& expected) {
    throw UserError({where, name, found, expected, "merge the adapters into the weights: --adapters merged"});
  };
  const auto ends = [](const std::string& name, const char* projection) { return name.ends_with(str(".", projection, "_proj", kAdapterA)); };
  for (const char* projection : model::kProjections)
    if (std::ranges::any_of(tuned.tensors, [&](const auto& t) { return ends(t.first, projection); })) out.projections.emplace_back(projection);
  for (const auto& [name, tensor] : tuned.tensors) {
    if (!name.ends_with(kAdapterA)) continue;
    if (out.rank == 0) out.rank = tensor.rows();
    if (tensor.rows() != out.rank) refuse(name, str("rank ", tensor.rows()), str("rank ", out.rank, ", as of others"));
  }
  model::ModelConfig with = config;
  with.adapters = out;
  for (const model::TensorSpec& spec : model::schema(with))
    if (model::is_adapter(spec.name) && !tuned.tensors.contains(spec.name)) refuse(spec.name, "no adapter", "one in every block, or in none");
  return out;
}

namespace {

// A tensor that was made from others, kept until another is asked for.
struct Made {
  std::string name;
  StoredTensor tensor;
};

}  // namespace

Contents contents_of(const Contents& base, const Tuned& tuned) {
  Contents out = base;
  const bool apart = base.config.adapters.rank > 0;
  out.stored = [&base, &tuned, apart, last = std::make_shared<Made>()](const std::string& name) -> const StoredTensor& {
    const auto own = tuned.tensors.find(name);
    if (own != tuned.tensors.end() && !name.ends_with(kAdapterB)) return own->second;
    if (last->name == name) return last->tensor;
    if (own != tuned.tensors.end()) {  // a model's own adapters have no scale
      std::vector<float> values = own->second.to_f32();
      for (float& v : values) v *= static_cast<float>(tuned.adapter_scale);
      *last = {name, model::stored_f32(name, own->second.shape, std::move(values))};
      return last->tensor;
    }
    const StoredTensor& tensor = base.stored(name);
    const auto a = tuned.tensors.find(projection_of(name) + kAdapterA);
    if (apart || a == tuned.tensors.end()) return tensor;
    *last = {name, model::stored_f32(name, tensor.shape, merged(tensor, a->second, tuned.tensors.at(projection_of(name) + kAdapterB), tuned.adapter_scale))};
    return last->tensor;
  };
  return out;
}

Contents merged(Contents model) {
  if (model.config.adapters.rank == 0) return model;
  const model::Adapters adapters = std::exchange(model.config.adapters, {});
  model.stored = [stored = model.stored, adapters, last = std::make_shared<Made>()](const std::string& name) -> const StoredTensor& {
    const std::string projection = projection_of(name);
    const bool adapted = std::ranges::any_of(adapters.projections, [&](const std::string& p) { return projection.ends_with(str(".", p, "_proj")); });
    if (!adapted || projection == name) return stored(name);
    if (last->name == name) return last->tensor;
    // One after the other: whoever stores them may keep one alone.
    const StoredTensor a = stored_copy(stored(projection + kAdapterA)), b = stored_copy(stored(projection + kAdapterB));
    const StoredTensor& base = stored(name);
    *last = {name, model::stored_f32(name, base.shape, merged(base, a, b, 1))};
    return last->tensor;
  };
  return model;
}

std::vector<TensorPlan> plan_tuned(const Contents& base, const Tuned& tuned, GgmlType changed) {
  std::vector<TensorPlan> plan;
  for (model::TensorSpec& spec : model::schema(base.config)) {
    TensorPlan p;
    const bool apart = base.config.adapters.rank > 0, other = apart ? tuned.tensors.contains(spec.name) : tuned.changes(spec.name);
    p.from = other ? GgmlType::F32 : base.stored(spec.name).type;
    p.to = p.from;
    const bool light = spec.name.find(".light.") != std::string::npos || model::is_adapter(spec.name);
    if (other && model::is_reducible(spec)) p.to = light ? light_type(changed, spec.shape.back()) : fitting(changed, spec.shape.back());
    p.carried = p.from == p.to;
    p.spec = std::move(spec);
    plan.push_back(std::move(p));
  }
  return plan;
}

}  // namespace fathom::convert
