// A conversion without its source: routers, light paths and adapters, the configuration and the dial, to be laid over the dense model that they were
// tuned on. Some megabytes, where the model has hundreds.
//   fathom_artifact.json   version, whose weights it belongs to, how it was made
//   config.json, fathom_dial.json   of the result
//   tuned.safetensors      convert/tuned.h
#pragma once
#include <optional>
#include <string>

#include "convert/tuned.h"

namespace fathom::convert {

struct Artifact {
  model::ModelConfig config;
  std::optional<routing::DialTable> dial;  // of a model that decides
  Tuned tuned;
  std::string base;         // fingerprint of the dense model that it belongs to
  std::string base_name;    // for people
  bool apart = false;       // the result keeps adapters beside its projections, which stay the source's bytes; else merged into them
  std::string type;         // of changed matrices in the result: "Q8_0", "F32", …
  Json recipe;              // how it was made, for people
};

// The tuned tensors are F16 in the file, routers F32: what is read back is what a result is to be written from. `path` must not exist; atomic.
void write_artifact(const std::string& path, const Artifact& artifact);
// UserError: another version, tensors that do not fit the configuration.
Artifact read_artifact(const std::string& path);

// Of changed matrices in the result. UserError where the artifact says what no result can have.
formats::GgmlType artifact_type(const Artifact& artifact, const std::string& where);
// The model that the artifact makes of its source, through `base`, which is filled with the source. UserError where `source` is not the model that it
// belongs to. All three must outlive it.
Contents contents_of(const model::ModelFolder& source, const Artifact& artifact, Contents& base);

}  // namespace fathom::convert
