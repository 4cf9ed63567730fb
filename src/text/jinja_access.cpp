// What a dot and brackets mean: keys, places, attributes.
#include <algorithm>

#include "core/error.h"
#include "text/jinja_functions.h"

namespace fathom::text::jinja {
namespace {

bool one_of(const std::string& name, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* n) { return name == n; });
}

// Whether Python has an attribute of this name there. Where it has none, Jinja's answer is an undefined value.
bool is_python_attribute(const Value& v, const std::string& name) {
  if (name.starts_with("__")) return true;
  if (v.text())
    return one_of(name, {"capitalize", "casefold", "center", "count", "encode", "endswith", "expandtabs", "find", "format", "format_map", "index", "isalnum",
                         "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper", "join",
                         "ljust", "lower", "lstrip", "maketrans", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition",
                         "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "translate", "upper", "zfill"});
  if (v.list() && !v.plain_list()) return true;
  if (v.list()) return one_of(name, {"append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"});
  if (v.dict()) return one_of(name, {"clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"});
  if (v.is<int64_t>() || v.is<bool>())
    return one_of(name, {"as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator", "from_bytes", "imag", "is_integer", "numerator", "real", "to_bytes"});
  return false;
}

Value python_attribute(Context& c, const Value& v, const std::string& name) {
  if (is_python_attribute(v, name)) c.wrong(str("the attribute ", printable(name), " of ", kind_of(v)), "a call of a known method, or a key");
  return {};
}

Value loop_attribute(Context& c, const Loop& loop, const std::string& name) {
  const auto& items = loop.items->items;
  const int64_t i = loop.index0, n = static_cast<int64_t>(items.size());
  if (name == "index") return integer(i + 1);
  if (name == "index0") return integer(i);
  if (name == "revindex") return integer(n - i);
  if (name == "revindex0") return integer(n - i - 1);
  if (name == "first") return boolean(i == 0);
  if (name == "last") return boolean(i == n - 1);
  if (name == "length") return integer(n);
  if (name == "previtem") return i > 0 ? items[static_cast<size_t>(i - 1)] : Value{};
  if (name == "nextitem") return i + 1 < n ? items[static_cast<size_t>(i + 1)] : Value{};
  c.wrong("loop." + printable(name), "index, index0, revindex, revindex0, first, last, length, previtem or nextitem");
}

}  // namespace

Value attribute(Context& c, const Value& v, const std::string& name) {
  c.charge(1);
  if (v.undefined()) c.wrong("the attribute " + printable(name) + " of an undefined value", "a value");
  if (const auto* loop = v.get_if<Value::LoopPtr>()) return loop_attribute(c, **loop, name);
  if (const auto* space = v.get_if<Value::NamespacePtr>()) {
    for (const auto& [key, value] : (*space)->entries)
      if (key == name) return value;
    return python_attribute(c, v, name);
  }
  if (v.dict() && !is_python_attribute(v, name)) {
    c.charge(static_cast<int64_t>(v.dict()->entries.size()));
    const Value* value = find(*v.dict(), name);
    return value ? *value : Value{};
  }
  return python_attribute(c, v, name);
}

Value item(Context& c, const Value& v, const Value& key) {
  c.charge(1);
  if (v.undefined()) c.wrong("an item of an undefined value", "a value");
  int64_t i = 0;
  if (key.number(i)) {
    if (v.of(List::Origin::iterator) || v.of(List::Origin::view)) return {};
    if (v.list()) {
      const auto& items = v.list()->items;
      if (i < 0) i += static_cast<int64_t>(items.size());
      return i >= 0 && i < static_cast<int64_t>(items.size()) ? items[static_cast<size_t>(i)] : Value{};
    }
    if (v.text()) {
      c.charge(static_cast<int64_t>(v.text()->size()));
      const auto chars = characters(*v.text());
      if (i < 0) i += static_cast<int64_t>(chars.size());
      return i >= 0 && i < static_cast<int64_t>(chars.size()) ? text_value(std::string(chars[static_cast<size_t>(i)])) : Value{};
    }
    return {};
  }
  if (!key.text()) return {};
  if (v.dict()) {
    c.charge(static_cast<int64_t>(v.dict()->entries.size()));
    if (const Value* value = find(*v.dict(), *key.text())) return *value;
    return python_attribute(c, v, *key.text());
  }
  return attribute(c, v, *key.text());
}

Value slice(Context& c, const Value& v, const Value& start, const Value& stop, const Value& step) {
  c.charge(1);
  if (!v.plain_list() && !v.text()) c.wrong("a slice of " + kind_of(v), "a list or a string");
  const auto bound = [&](const Value& b, int64_t fallback) {
    int64_t n = fallback;
    if (!b.is<None>() && !b.number(n)) c.wrong(kind_of(b) + " in a slice", "an integer");
    return n;
  };
  const int64_t by = bound(step, 1);
  if (by == 0 || by == INT64_MIN) c.wrong("a slice with the step 0", "another step");
  std::vector<std::string_view> chars;
  if (v.text()) {
    c.charge(static_cast<int64_t>(v.text()->size()));
    chars = characters(*v.text());
  }
  const auto n = static_cast<int64_t>(v.text() ? chars.size() : v.list()->items.size());
  // Python's slice.indices.
  const auto place = [&](const Value& b, int64_t fallback) {
    if (b.is<None>()) return fallback;
    int64_t i = bound(b, 0);
    if (i < 0) i = std::max<int64_t>(i + n, by < 0 ? -1 : 0);
    return std::min(i, by < 0 ? n - 1 : n);
  };
  const int64_t from = place(start, by < 0 ? n - 1 : 0), to = place(stop, by < 0 ? -1 : n);
  std::string text;
  std::vector<Value> items;
  for (int64_t i = from; by > 0 ? i < to : i > to;) {
    if (v.text()) text += chars[static_cast<size_t>(i)];
    else items.push_back(v.list()->items[static_cast<size_t>(i)]);
    if (by > 0 ? to - i <= by : to - i >= by) break;  // the next place would be past the end, or past 64 bits
    i += by;
  }
  return v.text() ? c.make_text(std::move(text)) : make_list(c, std::move(items));
}

}  // namespace fathom::text::jinja
