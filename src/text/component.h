// What the readers of a tokenizer.json's parts share: the place in the file for errors, and the refusal of a component
// that we do not know.
#pragma once
#include <string>
#include <vector>

#include "core/json.h"
#include "core/limits.h"

namespace fathom::text {

// A component: an object with "type". `kind` says what it is ("normalizer").
class Component : public Fields {
 public:
  Component(const Json& json, const std::string& where, const std::string& path, const char* kind)
      : Fields(json, where, path), json_(json), place_(path), kind_(kind), type_(string("type")) {}

  const std::string& type() const { return type_; }
  const Json& json() const { return json_; }
  const std::string& place() const { return place_; }

  [[noreturn]] void unknown(const std::string& known) const {
    throw UserError({where(), path("type"), "the " + std::string(kind_) + " \"" + printable(type_) + "\"", "one of " + known,
                     "this tokenizer needs a part that Fathom does not have"});
  }

  // The members of a Sequence under `key`.
  std::vector<Component> members(const std::string& key) const {
    const Json& list = raw(key);
    if (!list.is_array() || static_cast<int64_t>(list.size()) > limits::kTokenizerStages)
      wrong(key, describe(list), str("an array of at most ", limits::kTokenizerStages, " objects"));
    std::vector<Component> out;
    for (size_t i = 0; i < list.size(); ++i) out.emplace_back(list[i], where(), path(str(key, "[", i, "]")), kind_);
    return out;
  }

  // {"String": "…"} or {"Regex": "…"} under `key`.
  struct PatternText {
    bool regex = false;
    std::string text, field;
  };
  PatternText pattern(const std::string& key) const {
    const Fields p = object(key);
    const bool regex = p.has("Regex"), literal = p.has("String");
    if (regex == literal) wrong(key, describe(raw(key)), "an object with \"String\" or \"Regex\"");
    p.done();
    const char* name = regex ? "Regex" : "String";
    return {regex, p.string(name), p.path(name)};
  }

 private:
  const Json& json_;
  std::string place_;
  const char* kind_;
  std::string type_;
};

}  // namespace fathom::text
