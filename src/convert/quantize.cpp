#include "convert/quantize.h"

#include "model/gguf_write.h"

namespace fathom::convert {
namespace {

using formats::GgmlType;
using model::ModelFolder;

bool four_bits(GgmlType type) { return type == GgmlType::Q4_0 || type == GgmlType::Q4_1 || type == GgmlType::Q4_K; }

}  // namespace

const std::vector<std::pair<const char*, GgmlType>>& quantize_types() {
  static const std::vector<std::pair<const char*, GgmlType>> kTypes = {
      {"q8_0", GgmlType::Q8_0}, {"q4_0", GgmlType::Q4_0}, {"q4_1", GgmlType::Q4_1}, {"q4_k", GgmlType::Q4_K},
      {"q6_k", GgmlType::Q6_K}, {"f16", GgmlType::F16},   {"bf16", GgmlType::BF16}, {"f32", GgmlType::F32}};
  return kTypes;
}

std::vector<TensorPlan> plan_quantize(const ModelFolder& model, GgmlType type) {
  const std::string head = model.config().tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  std::vector<TensorPlan> plan;
  for (model::TensorSpec& spec : model::schema(model.config())) {
    TensorPlan p;
    p.from = model.stored(spec.name).type;
    if (model::is_reducible(spec)) {
      const GgmlType fits = fitting(type, spec.shape.back());
      p.to = fits;
      if (spec.name == head && four_bits(type) && p.from != type) p.to = fitting(GgmlType::Q8_0, spec.shape.back());
      p.fallback = fits != type;
      p.head = !p.fallback && p.to != type;
    }
    p.carried = p.from == p.to;
    p.spec = std::move(spec);
    plan.push_back(std::move(p));
  }
  return plan;
}

void check_quantize(const ModelFolder& model, const std::string& out, const QuantizeOptions& options) {
  check_out(model, out, options.overwrite);
  if (is_gguf(out) && model.config().adapters.rank > 0)
    throw UserError({out, "", "a model with adapters beside its projections", "one without for a GGUF file", "write a folder, or merge them: fathom export MODEL OUT.gguf --to gguf"});
  if (is_gguf(out)) static_cast<void>(model::gguf_entries(model, options.type));
}

void quantize(const ModelFolder& model, const std::string& out, const std::vector<TensorPlan>& plan, const QuantizeOptions& options) {
  check_quantize(model, out, options);
  Contents contents = contents_of(model);
  if (!is_gguf(out)) return write_folder(contents, out, options.type, plan, options);
  contents.architecture = model::gguf_architecture(model);
  write_gguf(contents, out, model::gguf_entries(model, options.type), out, plan, options);
}

}  // namespace fathom::convert
