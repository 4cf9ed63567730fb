#include "convert/export.h"

#include "convert/peft.h"
#include "convert/surgery.h"
#include "core/error.h"
#include "core/file.h"
#include "model/gguf_write.h"

namespace fathom::convert {

using formats::GgmlType;

namespace {

void check_hf_out(const model::ModelFolder& model, const std::string& out, const ExportOptions& options) {
  if (is_gguf(out)) throw UserError({out, "", "the name of a GGUF file", "the name of a folder", ""});
  check_out(model, out, options.overwrite);
}

// `path` is whose contents they are, `own` the type of its matrices. `more` writes more files of the folder.
void write_hf(Contents contents, const std::string& path, GgmlType own, const std::string& out, const ExportOptions& options, const std::function<void(const std::string& folder)>& more = {}) {
  const routing::RoutingConfig& routing = contents.config.routing;
  if (routing.random()) throw UserError({path, "fathom.selection", "random", "a router that decides", "the control draws by a hash that only the engine has"});
  if (!contents.config.has_part(0, routing::Part::attention))
    throw UserError({path, "fathom.units", "a first block whose attention no token runs", "keys and values in the first block", "the cache of transformers counts its tokens there"});
  if (!routing.dense()) {
    contents.config_more = {{"auto_map", {{"AutoConfig", "modeling_fathom.FathomConfig"}, {"AutoModelForCausalLM", "modeling_fathom.FathomForCausalLM"}}}};
    if (contents.dial) contents.config_more["dial"] = contents.dial->to_json();
  }
  contents.files = [&](const std::string& folder) {
    if (!routing.dense()) atomic_write(join_path(folder, "modeling_fathom.py"), kModelingFathom);
    if (more) more(folder);
  };
  const GgmlType type = options.type ? *options.type : formats::is_quantized(own) ? GgmlType::F32 : own;
  std::vector<TensorPlan> plan = plan_tensors(contents, type);
  for (TensorPlan& p : plan) p.to = model::is_reducible(p.spec) ? type : GgmlType::F32, p.carried = p.from == p.to;
  write_folder(contents, out, type, plan, options);
}

}  // namespace

void export_hf(const model::ModelFolder& model, const std::string& out, const ExportOptions& options) {
  check_hf_out(model, out, options);
  write_hf(merged(contents_of(model)), model.path(), surgery_type(model), out, options);
}

void export_hf(const model::ModelFolder& source, const Artifact& artifact, const std::string& out, const ExportOptions& options) {
  check_hf_out(source, out, options);
  Contents base;
  const GgmlType own = surgery_type(source);
  Artifact whole = artifact;
  whole.apart = false;
  if (!options.separate_adapters) return write_hf(contents_of(source, whole, base), source.path(), own, out, options);
  if (artifact.tuned.adapter_scale == 0) throw UserError({out, "", "an artifact without adapters", "one of a run with a stage of adapters", "there is nothing to keep apart: leave --adapters out"});
  const Tuned adapters = take_adapters(whole.tuned);
  write_hf(contents_of(source, whole, base), source.path(), own, out, options, [&](const std::string& folder) { write_peft(join_path(folder, "adapter"), adapters); });
}

void export_gguf(const model::ModelFolder& model, const std::string& out, const ExportOptions& options) {
  if (!is_gguf(out)) throw UserError({out, "", "a name that does not end in .gguf", "the name of a GGUF file", ""});
  check_out(model, out, options.overwrite);
  const GgmlType type = surgery_type(model);
  Contents contents = merged(contents_of(model));
  formats::GgufEntries entries = model::gguf_entries(model, type);  // refuses what GGUF cannot say
  contents.architecture = model::gguf_architecture(model);
  write_gguf(contents, out, std::move(entries), out, plan_tensors(contents, type), options);
}

}  // namespace fathom::convert
