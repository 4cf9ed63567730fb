// Fields of the configuration from the command line: `--set optimizer.lr=3e-3` or `--optimizer.lr 3e-3`. A value is
// JSON where it reads as JSON, else text; the path must be one that the configuration knows.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"

namespace fathom::train {

// "a.b=value" → {"a.b", "value"}; UsageError without "=".
std::pair<std::string, std::string> split_override(const std::string& text);

// Sets the field in `json`, making objects on the way. UsageError when `path` is not in `known` (with the nearest one).
void apply_override(Json& json, const std::string& path, const std::string& value, const std::vector<std::string>& known);

// Every path that a configuration file may hold ("optimizer.lr", "model.fathom.capacity", …).
const std::vector<std::string>& known_paths();

}  // namespace fathom::train
