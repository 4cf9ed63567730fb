#include "core/json.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "core/file.h"

namespace fathom {
namespace {

constexpr size_t kNearestBytes = 64;  // no name is longer; a key of a file may have megabytes

std::string line_and_column(std::string_view text, size_t byte) {
  byte = std::min(byte, text.size());
  size_t line = 1, start = 0;
  for (size_t i = 0; i < byte; ++i)
    if (text[i] == '\n') ++line, start = i + 1;
  return str("line ", line, ", column ", byte - start + 1);
}

// Counts depth and values, refuses duplicate keys and numbers that overflow, and builds nothing: it runs before the DOM so that a
// hostile file costs no memory.
class Guard final : public nlohmann::json_sax<Json> {
 public:
  Guard(std::string_view text, const std::string& where, const JsonOptions& options)
      : text_(text), where_(where), max_depth_(options.max_depth), max_values_(options.max_values) {}
  bool null() override { return count(); }
  bool boolean(bool) override { return count(); }
  bool number_integer(number_integer_t) override { return count(); }
  bool number_unsigned(number_unsigned_t) override { return count(); }
  bool number_float(number_float_t v, const string_t& s) override {
    if (!std::isfinite(v)) fail("the number " + printable(s), "a finite number");
    return count();
  }
  bool string(string_t&) override { return count(); }
  bool binary(binary_t&) override { return count(); }
  bool start_object(std::size_t) override {
    enter();
    keys_.emplace_back();
    return true;
  }
  bool key(string_t& k) override {
    if (!keys_.back().insert(k).second) fail("the key \"" + printable(k) + "\" twice in one object", "each key once");
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    enter();
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(std::size_t byte, const std::string&, const nlohmann::detail::exception& e) override {
    const std::string what = e.what();
    const size_t colon = what.find("syntax error");
    const std::string reason = colon == std::string::npos ? what : what.substr(colon);
    throw UserError({where_, line_and_column(text_, byte ? byte - 1 : 0), printable(reason, 200), "valid JSON", ""});
  }

 private:
  bool count() {
    if (++values_ > max_values_) fail(str("more than ", max_values_, " values"), "fewer");
    return true;
  }
  void enter() {
    count();
    if (++depth_ > max_depth_) fail(str("nesting deeper than ", max_depth_), str("at most ", max_depth_, " levels"));
  }
  [[noreturn]] void fail(const std::string& found, const std::string& expected) {
    throw UserError({where_, "", found, expected, ""});
  }
  std::string_view text_;
  const std::string& where_;
  int max_depth_, depth_ = 0;
  int64_t max_values_, values_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonOptions& options) {
  if (static_cast<int64_t>(text.size()) > options.max_bytes)
    throw UserError({where, "", str(text.size(), " bytes of JSON"), str("at most ", options.max_bytes), ""});
  Guard guard(text, where, options);
  Json::sax_parse(text.begin(), text.end(), &guard, nlohmann::detail::input_format_t::json, true, options.comments);
  return Json::parse(text.begin(), text.end(), nullptr, true, options.comments);
}

Json read_json(const std::string& path, const JsonOptions& options) {
  return parse_json(read_file(path, options.max_bytes), path, options);
}

std::string describe(const Json& v) {
  switch (v.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::boolean: return v.get<bool>() ? "true" : "false";
    case Json::value_t::string: return "the string \"" + printable(v.get_ref<const std::string&>()) + "\"";
    case Json::value_t::array: return str("an array of ", v.size());
    case Json::value_t::object: return str("an object of ", v.size(), v.size() == 1 ? " key" : " keys");
    default: return "the number " + v.dump();
  }
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  if (word.size() > kNearestBytes) return "";
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& c : candidates) {
    std::vector<size_t> row(c.size() + 1);
    for (size_t j = 0; j <= c.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= c.size(); ++j) {
        const size_t substituted = diagonal + (word[i - 1] != c[j - 1]);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
      }
    }
    if (row.back() < best_distance) best_distance = row.back(), best = c;
  }
  return best;
}

Fields::Fields(const Json& object, std::string where, std::string path) : object_(object), where_(std::move(where)), path_(std::move(path)) {
  if (!object_.is_object()) throw UserError({where_, path_, describe(object_), "an object { … }", ""});
}

// Keys come from files: in "special_tokens" they are whatever a file says.
std::string Fields::path(const std::string& key) const { return (path_.empty() ? "" : path_ + ".") + printable(key); }

void Fields::wrong(const std::string& key, const std::string& found, const std::string& expected, const std::string& hint) const {
  throw UserError({where_, path(key), found, expected, hint});
}

void Fields::missing(const std::string& key, const std::string& expected) const { wrong(key, "no such key", expected); }

bool Fields::has(const std::string& key) const {
  known_.insert(key);
  const auto it = object_.find(key);
  return it != object_.end() && !it->is_null();
}

const Json& Fields::at(const std::string& key, const std::string& expected) const {
  if (!has(key)) missing(key, expected);
  return *object_.find(key);
}

const Json& Fields::raw(const std::string& key) const { return at(key, "a value"); }

namespace {

std::string range(int64_t low, int64_t high) { return str("a whole number from ", low, " to ", high); }

// JSON writers print whole numbers as 1e9 or 4096.0 too.
std::optional<int64_t> whole(const Json& v) {
  if (v.is_number_unsigned()) {
    const uint64_t u = v.get<uint64_t>();
    if (u <= static_cast<uint64_t>(INT64_MAX)) return static_cast<int64_t>(u);
    return {};
  }
  if (v.is_number_integer()) return v.get<int64_t>();
  if (v.is_number_float()) {
    const double d = v.get<double>();
    if (std::abs(d) < 9e15 && d == std::floor(d)) return static_cast<int64_t>(d);
  }
  return {};
}

}  // namespace

int64_t Fields::integer(const std::string& key, int64_t low, int64_t high, std::optional<int64_t> fallback) const {
  if (!has(key) && fallback) return *fallback;
  const Json& v = at(key, range(low, high));
  const auto n = whole(v);
  if (!n || *n < low || *n > high) wrong(key, describe(v), range(low, high));
  return *n;
}

double Fields::number(const std::string& key, double low, double high, std::optional<double> fallback) const {
  const std::string expected = str("a number from ", low, " to ", high);
  if (!has(key) && fallback) return *fallback;
  const Json& v = at(key, expected);
  if (!v.is_number() || !(v.get<double>() >= low && v.get<double>() <= high)) wrong(key, describe(v), expected);
  return v.get<double>();
}

bool Fields::boolean(const std::string& key, std::optional<bool> fallback) const {
  if (!has(key) && fallback) return *fallback;
  const Json& v = at(key, "true or false");
  if (!v.is_boolean()) wrong(key, describe(v), "true or false");
  return v.get<bool>();
}

std::string Fields::string(const std::string& key, std::optional<std::string> fallback) const {
  if (!has(key) && fallback) return *fallback;
  const Json& v = at(key, "a string");
  if (!v.is_string()) wrong(key, describe(v), "a string");
  return v.get<std::string>();
}

std::vector<int64_t> Fields::integers(const std::string& key, int64_t low, int64_t high) const {
  const Json& v = at(key, "an array");
  if (!v.is_array()) wrong(key, describe(v), "an array");
  std::vector<int64_t> out;
  for (size_t i = 0; i < v.size(); ++i) {
    const auto n = whole(v[i]);
    if (!n || *n < low || *n > high) wrong(str(key, "[", i, "]"), describe(v[i]), range(low, high));
    out.push_back(*n);
  }
  return out;
}

std::vector<double> Fields::numbers(const std::string& key, double low, double high) const {
  const Json& v = at(key, "an array");
  if (!v.is_array()) wrong(key, describe(v), "an array");
  std::vector<double> out;
  for (size_t i = 0; i < v.size(); ++i) {
    if (!v[i].is_number() || !(v[i].get<double>() >= low && v[i].get<double>() <= high))
      wrong(str(key, "[", i, "]"), describe(v[i]), str("a number from ", low, " to ", high));
    out.push_back(v[i].get<double>());
  }
  return out;
}

std::vector<std::string> Fields::strings(const std::string& key) const {
  const Json& v = at(key, "an array of strings");
  if (!v.is_array()) wrong(key, describe(v), "an array of strings");
  std::vector<std::string> out;
  for (size_t i = 0; i < v.size(); ++i) {
    if (!v[i].is_string()) wrong(str(key, "[", i, "]"), describe(v[i]), "a string");
    out.push_back(v[i].get<std::string>());
  }
  return out;
}

Fields Fields::object(const std::string& key) const { return Fields(at(key, "an object { … }"), where_, path(key)); }

void Fields::done(const std::string& hint) const {
  for (const auto& [key, value] : object_.items()) {
    if (known_.count(key)) continue;
    const std::string near = nearest(key, {known_.begin(), known_.end()});
    throw UserError({where_, path(key), "an unknown key", near.empty() ? "" : "\"" + near + "\" perhaps",
                     hint.empty() ? "remove it or correct its name" : hint});
  }
}

}  // namespace fathom
