#include "text/jinja_functions.h"

#include <algorithm>

#include "core/error.h"
#include "core/limits.h"
#include "core/utf8.h"

namespace fathom::text::jinja {

const Value* Arguments::take(size_t index, const char* name) {
  count_ = std::max(count_, index + 1);
  taken_.emplace_back(name);
  if (index < plain.size()) return &plain[index];
  for (const auto& [n, v] : named)
    if (n == name) return &v;
  return nullptr;
}

const Value& Arguments::need(Context& c, size_t index, const char* name, const std::string& what) {
  const Value* v = take(index, name);
  if (!v) c.wrong(str(what, " without its argument ", name), "a value");
  return *v;
}

void Arguments::finish(Context& c, const std::string& what) const {
  if (plain.size() > count_) c.wrong(str(what, " with ", plain.size(), " arguments"), str("at most ", count_));
  for (const auto& [n, v] : named) {
    const auto at = std::find(taken_.begin(), taken_.end(), n);
    if (at == taken_.end()) c.wrong(what + " with the argument " + printable(n), "one that it has");
    if (static_cast<size_t>(at - taken_.begin()) < plain.size()) c.wrong(what + " with the argument " + printable(n) + " twice", "once");
  }
}

namespace {

int64_t integer_of(Context& c, const Value& v, const std::string& what) {
  int64_t n = 0;
  if (!v.number(n)) c.wrong(str(kind_of(v), " in ", what), "an integer");
  return n;
}

const std::string& text_of(Context& c, const Value& v, const std::string& what) {
  if (!v.text()) c.wrong(str(kind_of(v), " in ", what), "a string");
  c.charge_bytes(v.text()->size());
  return *v.text();
}

// Python's strip family with the characters to take away; null or none: white space.
std::string stripped(Context& c, std::string_view text, const Value* chars, bool left, bool right, const std::string& what) {
  if (!chars || chars->is<None>()) {
    if (left) text = strip_left(text);
    if (right) text = strip_right(text);
    return std::string(text);
  }
  const std::string& set = text_of(c, *chars, what);
  const auto members = characters(set);
  const auto contains = [&](std::string_view ch) {
    c.charge(1 + static_cast<int64_t>(members.size()));
    return std::find(members.begin(), members.end(), ch) != members.end();
  };
  while (left && !text.empty()) {
    const size_t n = utf8_length(text);
    if (!contains(text.substr(0, n))) break;
    text.remove_prefix(n);
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
    if (!contains(text.substr(start))) break;
    text = text.substr(0, start);
  }
  return std::string(text);
}

enum class Case : uint8_t { upper, lower, capitalize };

// Letters beyond ASCII have rules of their own in Python ("ß".upper(), the final sigma): refused instead of half done.
std::string cased(Context& c, std::string text, Case how, const std::string& what) {
  bool first = true;
  for (char& ch : text) {
    if (static_cast<unsigned char>(ch) >= 0x80) c.wrong("letters beyond ASCII in " + what, "ASCII");
    const bool up = how == Case::upper || (how == Case::capitalize && first);
    if (up && ch >= 'a' && ch <= 'z') ch = static_cast<char>(ch - 'a' + 'A');
    if (!up && ch >= 'A' && ch <= 'Z') ch = static_cast<char>(ch - 'A' + 'a');
    first = false;
  }
  return text;
}

std::string replaced(Context& c, const std::string& text, const std::string& from, const std::string& to, int64_t count, const std::string& what) {
  if (from.empty()) c.wrong("an empty text to replace in " + what, "at least one character");
  std::string out;
  size_t at = 0;
  while (count != 0) {
    const size_t hit = text.find(from, at);
    if (hit == std::string::npos) break;
    out.append(text, at, hit - at).append(to);
    at = hit + from.size();
    if (count > 0) --count;
    c.charge_bytes(to.size());
    if (static_cast<int64_t>(out.size()) > limits::kChatBytes) c.check_bytes(out.size());
  }
  return out.append(text, at);
}

Value split(Context& c, const std::string& text, const Value* separator, int64_t count) {
  std::vector<Value> parts;
  const auto push = [&](std::string_view part) { parts.push_back(c.make_text(std::string(part))); };
  if (!separator || separator->is<None>()) {
    std::string_view rest = strip_left(text);
    while (!rest.empty()) {
      if (count >= 0 && static_cast<int64_t>(parts.size()) == count) {
        push(rest);
        break;
      }
      size_t end = 0;
      char32_t ch = 0;
      for (size_t n = 0; end < rest.size(); end += n) {
        n = utf8_decode(rest.substr(end), ch);
        if (is_python_space(ch)) break;
      }
      push(rest.substr(0, end));
      rest = strip_left(rest.substr(end));
    }
    return make_list(c, std::move(parts));
  }
  const std::string& by = text_of(c, *separator, "split");
  if (by.empty()) c.wrong("an empty separator in split", "at least one character");
  size_t at = 0;
  while (count < 0 || static_cast<int64_t>(parts.size()) < count) {
    const size_t hit = text.find(by, at);
    if (hit == std::string::npos) break;
    push(std::string_view(text).substr(at, hit - at));
    at = hit + by.size();
  }
  push(std::string_view(text).substr(at));
  return make_list(c, std::move(parts));
}

Value join(Context& c, const Value& list, const std::string& separator, const Value* attribute_name) {
  std::string out;
  bool first = true;
  for (const auto items = iterate(c, list); const Value& v : items->items) {
    if (!first) out += separator;
    first = false;
    out += to_text(c, attribute_name ? item(c, v, *attribute_name) : v);
    c.check_bytes(separator.size());
    if (static_cast<int64_t>(out.size()) > limits::kChatBytes) c.check_bytes(out.size());
  }
  return c.make_text(std::move(out));
}

using Origin = List::Origin;

Value pairs(Context& c, const Dict& dict, Origin origin) {
  std::vector<Value> out;
  for (const auto& [key, v] : dict.entries) out.push_back(make_list(c, {text_value(key), v}));
  return make_list(c, std::move(out), origin);
}

Value reversed(Context& c, const Value& v) {
  if (v.text()) {
    std::string out;
    const auto chars = characters(*v.text());
    for (auto it = chars.rbegin(); it != chars.rend(); ++it) out += *it;
    c.charge(static_cast<int64_t>(chars.size()));
    return c.make_text(std::move(out));
  }
  auto items = iterate(c, v)->items;
  std::reverse(items.begin(), items.end());
  return make_list(c, std::move(items), v.of(Origin::iterator) ? Origin::list : Origin::iterator);
}

// select, reject, selectattr, rejectattr: the items for which a test holds (or does not).
Value selected(Context& c, const std::string& name, const Value& input, const Arguments& a) {
  const bool by_attribute = name.ends_with("attr"), keep = name.starts_with("select");
  if (!a.named.empty()) c.wrong(name + " with a named argument", "plain ones");
  size_t used = 0;
  if (by_attribute && a.plain.empty()) c.wrong(name + " without an attribute", "its name");
  const Value* attribute_name = by_attribute ? &a.plain[used++] : nullptr;
  const std::string test = used < a.plain.size() ? text_of(c, a.plain[used++], name) : "";
  std::vector<Value> out;
  for (const auto items = iterate(c, input); const Value& v : items->items) {
    c.charge(1);
    const Value subject = attribute_name ? item(c, v, *attribute_name) : v;
    Arguments rest;
    rest.plain.assign(a.plain.begin() + static_cast<ptrdiff_t>(used), a.plain.end());
    if ((test.empty() ? subject.truth() : call_test(c, test, subject, rest)) == keep) out.push_back(v);
  }
  return make_list(c, std::move(out), Origin::iterator);
}

Value mapped(Context& c, const Value& input, Arguments& a) {
  std::vector<Value> out;
  if (const Value* by = a.plain.empty() ? a.take(0, "attribute") : nullptr) {
    const Value* fallback = a.take(1, "default");
    a.finish(c, "map");
    for (const auto items = iterate(c, input); const Value& v : items->items) {
      Value part = item(c, v, *by);
      out.push_back(fallback && part.undefined() ? *fallback : std::move(part));
    }
    return make_list(c, std::move(out), Origin::iterator);
  }
  if (a.plain.empty()) c.wrong("map without arguments", "attribute= or the name of a filter");
  const std::string filter = text_of(c, a.plain[0], "map");
  for (const auto items = iterate(c, input); const Value& v : items->items) {
    Arguments rest;
    rest.plain.assign(a.plain.begin() + 1, a.plain.end());
    rest.named = a.named;
    out.push_back(call_filter(c, filter, v, rest));
  }
  return make_list(c, std::move(out), Origin::iterator);
}

}  // namespace

Value call_filter(Context& c, const std::string& name, const Value& input, Arguments& a) {
  c.charge(1);
  const std::string what = "the filter " + printable(name);
  const auto finish = [&] { a.finish(c, what); };
  if (name == "trim") {
    const Value* chars = a.take(0, "chars");
    finish();
    return c.make_text(stripped(c, to_text(c, input), chars, true, true, what));
  }
  if (name == "length" || name == "count") return finish(), integer(static_cast<int64_t>(length(c, input)));
  if (name == "upper" || name == "lower" || name == "capitalize") {
    finish();
    return c.make_text(cased(c, to_text(c, input), name == "upper" ? Case::upper : name == "lower" ? Case::lower : Case::capitalize, what));
  }
  if (name == "string") return finish(), c.make_text(to_text(c, input));
  if (name == "default" || name == "d") {
    const Value* fallback = a.take(0, "default_value");
    const Value* falsy = a.take(1, "boolean");
    finish();
    const bool use = input.undefined() || (falsy && falsy->truth() && !input.truth());
    return !use ? input : fallback ? *fallback : text_value("");
  }
  if (name == "tojson") {
    int64_t indent = -1;
    if (const Value* v = a.take(1, "indent"); v && !v->is<None>()) indent = integer_of(c, *v, what);
    if (!a.plain.empty()) c.wrong("tojson with a plain argument", "indent=");
    finish();
    if (indent > 16 || (indent < 0 && indent != -1)) c.wrong(str("indent=", indent), "0 to 16");
    return c.make_text(to_json(c, input, static_cast<int>(indent)));
  }
  if (name == "join") {
    const Value* separator = a.take(0, "d");
    const Value* by = a.take(1, "attribute");
    finish();
    return join(c, input, separator ? to_text(c, *separator) : "", by);
  }
  if (name == "replace") {
    const std::string from = to_text(c, a.need(c, 0, "old", what)), to = to_text(c, a.need(c, 1, "new", what));
    const Value* count = a.take(2, "count");
    finish();
    return c.make_text(replaced(c, to_text(c, input), from, to, count && !count->is<None>() ? integer_of(c, *count, what) : -1, what));
  }
  if (name == "first" || name == "last") {
    finish();
    if (name == "last" && input.of(Origin::iterator)) c.wrong("the last of " + kind_of(input), "a list");
    const auto items = iterate(c, input);
    if (items->items.empty()) return {};
    return name == "first" ? items->items.front() : items->items.back();
  }
  if (name == "list") return finish(), make_list(c, iterate(c, input)->items);
  if (name == "reverse") return finish(), reversed(c, input);
  if (name == "items") {
    finish();
    if (input.undefined()) return make_list(c, {}, Origin::iterator);
    if (!input.dict()) c.wrong("items of " + kind_of(input), "a dictionary");
    return pairs(c, *input.dict(), Origin::iterator);
  }
  if (name == "abs") {
    finish();
    const int64_t n = integer_of(c, input, what);
    if (n == INT64_MIN) c.wrong("an integer past 64 bits", "a smaller one");
    return integer(n < 0 ? -n : n);
  }
  if (name == "map") return mapped(c, input, a);
  if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr") return selected(c, name, input, a);
  c.wrong(what, "one of trim, length, upper, lower, capitalize, string, default, tojson, join, replace, first, last, list, reverse, items, abs, map, select, reject, selectattr, rejectattr",
          "this template needs a part of Jinja that Fathom does not have");
}

bool call_test(Context& c, const std::string& name, const Value& v, Arguments& a) {
  c.charge(1);
  const std::string what = "the test " + printable(name);
  const auto is = [&](bool result) { return a.finish(c, what), result; };
  const auto number = [&] { return v.is<int64_t>() || v.is<bool>(); };
  if (name == "defined") return is(!v.undefined());
  if (name == "undefined") return is(v.undefined());
  if (name == "none") return is(v.is<None>());
  if (name == "string") return is(v.text() != nullptr);
  if (name == "mapping") return is(v.dict() != nullptr);
  if (name == "boolean") return is(v.is<bool>());
  if (name == "integer") return is(v.is<int64_t>());
  if (name == "number") return is(number());
  if (name == "true") return is(v.is<bool>() && v.truth());
  if (name == "false") return is(v.is<bool>() && !v.truth());
  if (name == "iterable" || name == "sequence") return is(v.undefined() || v.text() || v.dict() || v.plain_list() || v.of(Origin::range) || (v.list() && name == "iterable"));
  if (name == "odd" || name == "even") return is((integer_of(c, v, what) % 2 != 0) == (name == "odd"));
  if (name == "divisibleby") {
    const int64_t by = integer_of(c, a.need(c, 0, "num", what), what);
    if (by == 0) c.wrong("a division by zero", "another divisor");
    return is(by == -1 || integer_of(c, v, what) % by == 0);
  }
  if (name == "eq" || name == "equalto" || name == "==") return is(equal(c, v, a.need(c, 0, "other", what)));
  if (name == "ne" || name == "!=") return is(!equal(c, v, a.need(c, 0, "other", what)));
  if (name == "in") {
    const Value& in = a.need(c, 0, "seq", what);
    if (in.text()) return is(text_of(c, in, what).find(text_of(c, v, what)) != std::string::npos);
    const auto items = iterate(c, in);
    for (const Value& i : items->items)
      if (equal(c, i, v)) return is(true);
    return is(false);
  }
  c.wrong(what, "one of defined, undefined, none, string, mapping, boolean, integer, number, true, false, iterable, sequence, odd, even, divisibleby, eq, ne, in",
          "this template needs a part of Jinja that Fathom does not have");
}

Value call_method(Context& c, const Value& self, const std::string& name, Arguments& a) {
  c.charge(1);
  const std::string what = "the method " + printable(name) + " of " + kind_of(self);
  const auto finish = [&] { a.finish(c, what); };
  if (self.text()) {
    const std::string& text = text_of(c, self, what);
    if (name == "strip" || name == "lstrip" || name == "rstrip") {
      const Value* chars = a.take(0, "chars");
      finish();
      return c.make_text(stripped(c, text, chars, name != "rstrip", name != "lstrip", what));
    }
    if (name == "split") {
      const Value* separator = a.take(0, "sep");
      const Value* count = a.take(1, "maxsplit");
      finish();
      return split(c, text, separator, count ? integer_of(c, *count, what) : -1);
    }
    if (name == "startswith" || name == "endswith") {
      const std::string& part = text_of(c, a.need(c, 0, "prefix", what), what);
      finish();
      return boolean(name == "startswith" ? text.starts_with(part) : text.ends_with(part));
    }
    if (name == "upper" || name == "lower" || name == "capitalize") {
      finish();
      return c.make_text(cased(c, text, name == "upper" ? Case::upper : name == "lower" ? Case::lower : Case::capitalize, what));
    }
    if (name == "replace") {
      const std::string &from = text_of(c, a.need(c, 0, "old", what), what), &to = text_of(c, a.need(c, 1, "new", what), what);
      const Value* count = a.take(2, "count");
      finish();
      return c.make_text(replaced(c, text, from, to, count ? integer_of(c, *count, what) : -1, what));
    }
    if (name == "join") {
      const Value& list = a.need(c, 0, "iterable", what);
      finish();
      for (const auto items = iterate(c, list); const Value& v : items->items)
        if (!v.text()) c.wrong(kind_of(v) + " in " + what, "a string");
      return join(c, list, text, nullptr);
    }
  } else if (self.dict()) {
    const Dict& dict = *self.dict();
    if (name == "items") return finish(), pairs(c, dict, Origin::view);
    if (name == "keys") return finish(), make_list(c, iterate(c, self)->items, Origin::view);
    if (name == "values") {
      finish();
      std::vector<Value> values;
      for (const auto& [key, v] : dict.entries) values.push_back(v);
      return make_list(c, std::move(values), Origin::view);
    }
    if (name == "get") {
      const Value& key = a.need(c, 0, "key", what);
      const Value* fallback = a.take(1, "default");
      finish();
      if (key.list() || key.dict()) c.wrong(kind_of(key) + " as a key", "a string");
      const Value* v = key.text() ? find(dict, *key.text()) : nullptr;
      return v ? *v : fallback ? *fallback : Value{None{}};
    }
  } else if (self.undefined()) {
    c.wrong(what, "a value");
  }
  c.wrong(what, "one of strip, lstrip, rstrip, split, startswith, endswith, upper, lower, capitalize, replace and join of a string, items, keys, values and get of a dictionary",
          "this template needs a part of Python that Fathom does not have");
}

}  // namespace fathom::text::jinja
