// JSON from files and requests: nlohmann's DOM behind a pass that bounds size and depth and refuses duplicate keys,
// and `Fields`, a typed view of one object whose errors name file and path and which refuses keys that nobody read.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/limits.h"

namespace fathom {

using Json = nlohmann::json;  // objects are std::map: a vocabulary of 150k keys must not cost a linear search per key

struct JsonOptions {
  bool comments = false;  // allow // and /* */
  int64_t max_bytes = limits::kConfigBytes;
  int max_depth = limits::kJsonDepth;
  int64_t max_values = limits::kJsonValues;  // a tree costs up to 100 bytes of memory for 2 bytes of text
};

// `where` names the source in errors. Throws UserError with line and column.
Json parse_json(std::string_view text, const std::string& where, const JsonOptions& options = {});
Json read_json(const std::string& path, const JsonOptions& options = {});

// Reads named fields of one JSON object. Every getter marks its key as known; done() refuses the rest with the
// nearest known name. A getter without a fallback requires the key.
class Fields {
 public:
  Fields(const Json& object, std::string where, std::string path = "");

  bool has(const std::string& key) const;  // present and not null; marks the key as known
  int64_t integer(const std::string& key, int64_t low, int64_t high, std::optional<int64_t> fallback = {}) const;
  double number(const std::string& key, double low, double high, std::optional<double> fallback = {}) const;  // finite
  bool boolean(const std::string& key, std::optional<bool> fallback = {}) const;
  std::string string(const std::string& key, std::optional<std::string> fallback = {}) const;
  std::vector<int64_t> integers(const std::string& key, int64_t low, int64_t high) const;
  std::vector<double> numbers(const std::string& key, double low, double high) const;
  std::vector<std::string> strings(const std::string& key) const;
  Fields object(const std::string& key) const;
  const Json& raw(const std::string& key) const;  // any type; required
  // One of the named values, e.g. choice<Gate>("gate", {{"raw", Gate::raw}, …}).
  template <class E>
  E choice(const std::string& key, const std::vector<std::pair<const char*, E>>& table, std::optional<E> fallback = {}) const {
    if (!has(key)) {
      if (fallback) return *fallback;
      missing(key, "one of " + names(table));
    }
    const std::string value = string(key);
    for (const auto& [name, e] : table)
      if (value == name) return e;
    wrong(key, "\"" + printable(value) + "\"", "one of " + names(table));
  }

  void ignore(const std::string& key) const { known_.insert(key); }
  void done(const std::string& hint = "") const;

  const std::string& where() const { return where_; }
  const Json& value() const { return object_; }
  std::string path(const std::string& key) const;
  [[noreturn]] void wrong(const std::string& key, const std::string& found, const std::string& expected, const std::string& hint = "") const;
  [[noreturn]] void missing(const std::string& key, const std::string& expected) const;

 private:
  template <class E>
  static std::string names(const std::vector<std::pair<const char*, E>>& table) {
    std::string all;
    for (const auto& [name, e] : table) all += (all.empty() ? "" : ", ") + std::string(name);
    return all;
  }
  const Json& at(const std::string& key, const std::string& expected) const;

  const Json& object_;
  std::string where_, path_;
  mutable std::set<std::string> known_;
};

// What a value is, for error messages: `a string "abc"`, `the number 3`, `null`, `an array of 4`.
std::string describe(const Json& value);

// The entry of `candidates` nearest to `word` by edit distance, if near enough to be meant; else "".
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

// `const char*` name of an enum value in a table as `choice` takes it.
template <class E>
const char* name_of(E value, const std::vector<std::pair<const char*, E>>& table) {
  for (const auto& [name, e] : table)
    if (e == value) return name;
  FATHOM_ASSERT(false, "value without a name");
}

}  // namespace fathom
