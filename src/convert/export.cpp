#include "convert/export.h"

#include "convert/surgery.h"
#include "core/error.h"
#include "model/gguf_write.h"

namespace fathom::convert {

using formats::GgmlType;

void export_hf(const model::ModelFolder& model, const std::string& out, const ExportOptions& options) {
  if (is_gguf(out)) throw UserError({out, "", "the name of a GGUF file", "the name of a folder", ""});
  check_out(model, out, options.overwrite);
  const routing::RoutingConfig& routing = model.config().routing;
  if (routing.random()) throw UserError({model.path(), "fathom.selection", "random", "a router that decides", "the control draws by a hash that only the engine has"});
  if (!model.config().has_part(0, routing::Part::attention))
    throw UserError({model.path(), "fathom.units", "a first block whose attention no token runs", "keys and values in the first block", "the cache of transformers counts its tokens there"});
  Contents contents = contents_of(model);
  if (!routing.dense()) {
    contents.config_more = {{"auto_map", {{"AutoConfig", "modeling_fathom.FathomConfig"}, {"AutoModelForCausalLM", "modeling_fathom.FathomForCausalLM"}}}};
    if (contents.dial) contents.config_more["dial"] = contents.dial->to_json();
    contents.files["modeling_fathom.py"] = kModelingFathom;
  }
  const GgmlType own = surgery_type(model), type = options.type ? *options.type : formats::is_quantized(own) ? GgmlType::F32 : own;
  std::vector<TensorPlan> plan = plan_tensors(contents, type);
  for (TensorPlan& p : plan) p.to = model::is_reducible(p.spec) ? type : GgmlType::F32, p.carried = p.from == p.to;
  write_folder(contents, out, type, plan, options);
}

void export_gguf(const model::ModelFolder& model, const std::string& out, const ExportOptions& options) {
  if (!is_gguf(out)) throw UserError({out, "", "a name that does not end in .gguf", "the name of a GGUF file", ""});
  check_out(model, out, options.overwrite);
  const GgmlType type = surgery_type(model);
  Contents contents = contents_of(model);
  formats::GgufEntries entries = model::gguf_entries(model, type);  // refuses what GGUF cannot say
  contents.architecture = model::gguf_architecture(model);
  write_gguf(contents, out, std::move(entries), out, plan_tensors(contents, type), options);
}

}  // namespace fathom::convert
