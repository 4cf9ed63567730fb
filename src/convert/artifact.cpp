#include "convert/artifact.h"

#include "convert/quantize.h"
#include "core/error.h"
#include "core/file.h"

namespace fathom::convert {
namespace {

constexpr int kArtifactVersion = 1;
std::string tuned_path(const std::string& path) { return join_path(path, "tuned.safetensors"); }
std::string about_path(const std::string& path) { return join_path(path, "fathom_artifact.json"); }

}  // namespace

void write_artifact(const std::string& path, const Artifact& artifact) {
  atomic_folder(path, [&](const std::string& folder) {
    const Json about = {{"version", kArtifactVersion}, {"base", {{"fingerprint", artifact.base}, {"name", artifact.base_name}}}, {"type", artifact.type}, {"adapters", artifact.apart ? "separate" : "merged"}, {"recipe", artifact.recipe}};
    atomic_write(about_path(folder), about.dump(2) + "\n");
    atomic_write(join_path(folder, "config.json"), artifact.config.to_json().dump(2) + "\n");
    if (artifact.dial) model::write_dial(folder, *artifact.dial);
    write_tuned(tuned_path(folder), artifact.tuned, formats::Dtype::F16);
  });
}

Artifact read_artifact(const std::string& path) {
  if (!exists(about_path(path))) throw UserError({path, "", exists(path) ? "a folder without fathom_artifact.json" : "no such folder", "what fathom tune wrote as RUN/artifact", ""});
  Artifact out;
  const Json about = read_json(about_path(path));
  const Fields f(about, about_path(path));
  const int64_t version = f.integer("version", 0, INT32_MAX);
  if (version != kArtifactVersion) f.wrong("version", str(version), str(kArtifactVersion), "it was written by another version of the program");
  const Fields base = f.object("base");
  out.base = base.string("fingerprint");
  out.base_name = base.string("name", "");
  base.done();
  out.type = f.string("type");
  out.apart = f.choice<bool>("adapters", {{"merged", false}, {"separate", true}}, false);
  out.recipe = f.has("recipe") ? f.raw("recipe") : Json::object();
  f.done();
  const std::string config = join_path(path, "config.json");
  out.config = model::ModelConfig::from_json(read_json(config), config);
  out.config.validate(config);
  const std::string dial = join_path(path, "fathom_dial.json");
  if (out.config.routing.decides()) {
    out.dial = routing::DialTable::from_json(read_json(dial), dial, out.config.routing.cuts());
    out.dial->require_order(out.config.routing, dial);
  }
  out.tuned = read_tuned(tuned_path(path));
  out.tuned.require_fit(out.config, tuned_path(path));
  for (const model::TensorSpec& spec : model::schema(out.config)) {
    const bool made = spec.name.find("router.") != std::string::npos || spec.name.find("light.") != std::string::npos || spec.name.find("predictor.") != std::string::npos;
    if (made && !out.tuned.tensors.contains(spec.name)) throw UserError({tuned_path(path), spec.name, "nothing", "a tensor that no dense model has", "the file is damaged"});
  }
  return out;
}

formats::GgmlType artifact_type(const Artifact& artifact, const std::string& where) {
  for (const auto& [name, type] : quantize_types())
    if (artifact.type == formats::ggml_type_name(type)) return type;
  throw UserError({about_path(where), "type", "\"" + printable(artifact.type) + "\"", "a type of fathom quantize", ""});
}

Contents contents_of(const model::ModelFolder& source, const Artifact& artifact, Contents& base) {
  if (source.fingerprint() != artifact.base)
    throw UserError({source.path(), "fingerprint", source.fingerprint(), str(artifact.base, ", of ", artifact.base_name), "routers and light paths were tuned for those weights and no others"});
  base = contents_of(source);
  base.config = artifact.config;
  if (artifact.apart && artifact.tuned.adapter_scale != 0) base.config.adapters = adapters_of(artifact.tuned, artifact.config, source.path());
  base.dial = artifact.dial;
  return contents_of(base, artifact.tuned);
}

}  // namespace fathom::convert
