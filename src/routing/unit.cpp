#include "routing/unit.h"

#include <algorithm>
#include <sstream>
#include <tuple>

namespace fathom::routing {

const std::vector<std::pair<const char*, Path>> kPathNames = {
    {"exit", Path::exit}, {"skip", Path::skip}, {"light", Path::light}, {"full", Path::full}};
const std::vector<std::pair<const char*, Part>> kPartNames = {
    {"block", Part::block}, {"attention", Part::attention}, {"mlp", Part::mlp}};

namespace {

constexpr const char* kPathsExpected =
    "full with one or more of exit, skip and light; or skip or light alone, which every token takes";

// Shares are summed: what lies above 1 by rounding is 1.
constexpr double kAboveOne = 1 + 1e-9;

// Whether a path's own share must be told: it is neither the cheapest, which takes what is left, nor full.
bool told(const Paths& paths, Path path) {
  const std::vector<Path> order = paths.in_order();
  return path != Path::full && paths.has(path) && order.front() != path;
}

double read_share(const Fields& fields, const char* key) {
  if (!fields.has(key)) fields.missing(key, "a share of tokens from 0 to 1");
  return fields.number(key, 0, 1);
}

}  // namespace

bool Paths::has(Path path) const {
  switch (path) {
    case Path::exit: return exit;
    case Path::skip: return skip;
    case Path::light: return light;
    case Path::full: return full;
  }
  return false;
}

std::vector<Path> Paths::in_order() const {
  std::vector<Path> out;
  for (const auto& [name, path] : kPathNames)
    if (has(path)) out.push_back(path);
  return out;
}

bool Paths::valid() const { return full ? exit || skip || light : !exit && skip != light; }

Paths Paths::parse(const std::string& text, const std::string& where, const std::string& field) {
  Paths out{.exit = false, .skip = false, .light = false, .full = false};
  const auto refuse = [&] { throw UserError({where, field, "\"" + printable(text) + "\"", kPathsExpected, "such as skip,full or skip,light,full"}); };
  std::istringstream in(text);
  for (std::string name; std::getline(in, name, ',');) {
    bool* const one = name == "exit" ? &out.exit : name == "skip" ? &out.skip : name == "light" ? &out.light : name == "full" ? &out.full : nullptr;
    if (!one || *one) refuse();
    *one = true;
  }
  if (!out.valid() || text.ends_with(',')) refuse();
  return out;
}

std::string Paths::text() const {
  std::string out;
  for (const Path path : in_order()) out += (out.empty() ? "" : ",") + std::string(name_of(path, kPathNames));
  return out;
}

std::vector<double> RoutedUnit::capacities() const {
  if (is_static()) return {};
  std::vector<double> out;
  for (const Path path : paths.in_order()) {
    double share = capacity;
    if (path != Path::full) share += told(paths, Path::light) ? light_capacity : 0;
    if (path == Path::skip) share += skip_capacity;
    out.push_back(std::min(share, 1.0));
  }
  out.erase(out.begin());  // the cheapest path has no cut
  return out;
}

std::string RoutedUnit::name() const {
  return str(part == Part::block ? "block " : part == Part::attention ? "attention of block " : "MLP of block ", block);
}

std::string RoutedUnit::label() const { return str(block, part == Part::block ? "" : part == Part::attention ? " attention" : " MLP"); }

int64_t RoutedUnit::random_key() const { return block + (part == Part::mlp ? int64_t{1} << 32 : 0); }

void RoutedUnit::read_paths(const Fields& fields) {
  if (fields.has("paths")) {
    const Json& value = fields.raw("paths");
    std::string text;
    if (value.is_array())
      for (const std::string& one : fields.strings("paths")) text += (text.empty() ? "" : ",") + one;
    else
      text = fields.string("paths");
    paths = Paths::parse(text, fields.where(), fields.path("paths"));
  }
  const auto only_with = [&](const char* key, bool needed, const char* why) {
    if (!needed && fields.has(key)) fields.wrong(key, describe(fields.raw(key)), str("no such key with paths ", paths.text()), why);
  };
  only_with("light_rank", paths.light, "it is the rank of the light path");
  if (paths.light) light_rank = fields.integer("light_rank", 1, limits::kWidth);
  only_with("light_capacity", told(paths, Path::light), "the cheapest path takes what the others leave");
  if (told(paths, Path::light)) light_capacity = read_share(fields, "light_capacity");
  only_with("skip_capacity", told(paths, Path::skip), "the cheapest path takes what the others leave");
  if (told(paths, Path::skip)) skip_capacity = read_share(fields, "skip_capacity");
}

RoutedUnit RoutedUnit::from_json(const Fields& fields, int64_t n_blocks) {
  RoutedUnit unit;
  unit.block = static_cast<int>(fields.integer("block", 0, n_blocks - 1));
  unit.part = fields.choice<Part>("part", kPartNames, Part::block);
  unit.read_paths(fields);
  if (unit.is_static()) {
    if (fields.has("capacity"))
      fields.wrong("capacity", describe(fields.raw("capacity")), str("no such key with paths ", unit.paths.text()), "every token takes the one path");
    unit.capacity = 0;
  } else {
    unit.capacity = fields.number("capacity", 0, 1);
    if (unit.capacity == 0) fields.wrong("capacity", "0", "a number above 0 and at most 1");
  }
  fields.done();
  if (const auto [field, expected] = unit.problem(); !field.empty()) fields.wrong(field, describe(fields.raw(field)), expected);
  return unit;
}

Json RoutedUnit::to_json() const {
  Json j = {{"block", block}, {"part", name_of(part, kPartNames)}, {"paths", Json::array()}};
  for (const Path path : paths.in_order()) j["paths"].push_back(name_of(path, kPathNames));
  if (!is_static()) j["capacity"] = capacity;
  if (paths.light) j["light_rank"] = light_rank;
  if (told(paths, Path::light)) j["light_capacity"] = light_capacity;
  if (told(paths, Path::skip)) j["skip_capacity"] = skip_capacity;
  return j;
}

std::pair<std::string, std::string> RoutedUnit::problem() const {
  if (!paths.valid()) return {"paths", kPathsExpected};
  if (is_static() ? capacity != 0 : !(capacity > 0 && capacity <= 1))
    return {"capacity", is_static() ? "0, since no token runs it in full" : "a number above 0 and at most 1"};
  if (paths.light ? light_rank < 1 || light_rank > limits::kWidth : light_rank != 0)
    return {"light_rank", paths.light ? str("a whole number from 1 to ", limits::kWidth) : "0 without a light path"};
  double left = kAboveOne - capacity;
  for (const auto& [path, field, share] : {std::tuple(Path::light, "light_capacity", light_capacity), std::tuple(Path::skip, "skip_capacity", skip_capacity)}) {
    if (!told(paths, path) && share != 0) return {field, "0, since the cheapest path takes what the others leave"};
    if (!(share >= 0) || share > left) return {field, "a share of tokens that the dearer paths leave over"};
    left -= share;
  }
  return {};
}

}  // namespace fathom::routing
