#include "train/overrides.h"

#include <algorithm>

#include "train/config.h"

namespace fathom::train {
namespace {

// Of each group a file holds one; setting one on the command line replaces the others.
const std::vector<std::vector<std::string>> kExclusive = {
    {"budget.steps", "budget.tokens", "budget.flops"},
    {"schedule.warmup_steps", "schedule.warmup_share"},
    {"schedule.decay_steps", "schedule.decay_share"},
    {"router.capacity_warmup_steps", "router.capacity_warmup_share"},
    {"data.dataset", "data.text"},
};

std::vector<std::string> pieces(const std::string& path) {
  std::vector<std::string> out(1);
  for (const char c : path) {
    if (c == '.') out.emplace_back();
    else out.back() += c;
  }
  return out;
}

void erase(Json& json, const std::string& path) {
  Json* at = &json;
  const std::vector<std::string> keys = pieces(path);
  for (size_t i = 0; i + 1 < keys.size(); ++i) {
    if (!at->is_object() || !at->contains(keys[i])) return;
    at = &(*at)[keys[i]];
  }
  if (at->is_object()) at->erase(keys.back());
}

// Fields of names: a folder may be called 2024, or true.
constexpr std::string_view kNames[] = {"data.dataset", "data.text", "data.tokenizer", "data.field"};

// JSON where it is that, else text as it stands; what has parts is held as in a file (no key twice, bounds).
Json parse_value(const std::string& path, const std::string& value) {
  if (std::find(std::begin(kNames), std::end(kNames), path) != std::end(kNames) && value != "null" &&
      value.find_first_of("[{\"") != 0)
    return Json(value);
  Json json = Json::parse(value, nullptr, false);
  if (json.is_discarded()) return Json(value);
  return json.is_structured() ? parse_json(value, "--" + path) : json;
}

void collect(const Json& json, const std::string& path, std::vector<std::string>& out) {
  if (!path.empty()) out.push_back(path);
  if (!json.is_object()) return;
  for (const auto& [key, value] : json.items()) collect(value, path.empty() ? key : path + "." + key, out);
}

}  // namespace

std::pair<std::string, std::string> split_override(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    throw UsageError({"--set", "", "\"" + printable(text) + "\"", "FIELD=VALUE, as in optimizer.lr=3e-3", ""});
  return {text.substr(0, equals), text.substr(equals + 1)};
}

const std::vector<std::string>& known_paths() {
  static const std::vector<std::string> paths = [] {
    TrainConfig c;
    c.model.routing.units = {{0, 1.0}};
    std::vector<std::string> out;
    Json json = c.to_json();
    for (const char* key : {"architectures", "model_type", "rope_parameters"}) json["model"].erase(key);
    collect(json, "", out);
    for (const char* path : {"model.vocab_size", "losses"}) out.push_back(path);
    for (const std::string& name : loss_names()) out.push_back("losses." + name);
    for (const auto& group : kExclusive) out.insert(out.end(), group.begin(), group.end());
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
  }();
  return paths;
}

void apply_override(Json& json, const std::string& path, const std::string& value, const std::vector<std::string>& known) {
  if (!std::binary_search(known.begin(), known.end(), path)) {
    // The last name alone is what people type first: --lr for --optimizer.lr.
    const auto named = std::find_if(known.begin(), known.end(), [&](const std::string& k) { return k.ends_with("." + path); });
    const std::string near = named != known.end() ? *named : nearest(path, known);
    throw UsageError({"command line", printable(path), "an unknown field of the configuration",
                      near.empty() ? "" : "\"" + near + "\" perhaps", "docs/training.md lists the fields"});
  }
  for (const auto& group : kExclusive)
    if (std::find(group.begin(), group.end(), path) != group.end())
      for (const std::string& other : group)
        if (other != path) erase(json, other);
  Json* at = &json;
  for (const std::string& key : pieces(path)) {
    if (at->is_null()) *at = Json::object();
    if (!at->is_object())
      throw UsageError({"command line", printable(path), "a field inside " + describe(*at), "a field of an object", ""});
    at = &(*at)[key];
  }
  *at = parse_value(path, value);
}

}  // namespace fathom::train
