#include "text/jinja_value.h"

#include <algorithm>
#include <cstdio>

#include "core/error.h"
#include "core/json.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "text/unicode.h"

namespace fathom::text::jinja {
namespace {

// A value that is kept costs some 100 bytes, so the bound on steps is one on memory too: a few hundred MB.
constexpr int64_t kValueSteps = 4;

}  // namespace

void Context::charge(int64_t n) {
  steps += n;
  if (steps > limits::kChatTemplateSteps)
    wrong(str("more than ", limits::kChatTemplateSteps, " steps of work"), "a template and a conversation that take fewer");
}

void Context::check_bytes(size_t n) {
  if (static_cast<int64_t>(n) > limits::kChatBytes) wrong(str("a text of ", n, " bytes"), str("at most ", limits::kChatBytes));
  charge(kValueSteps);
  charge_bytes(n);
}

Value Context::make_text(std::string text) {
  check_bytes(text.size());
  return text_value(std::move(text));
}

void Context::wrong(const std::string& found, const std::string& expected, const std::string& hint) const {
  throw UserError({where, str("line ", line), found, expected, hint});
}

bool Value::number(int64_t& n) const {
  if (const auto* i = get_if<int64_t>()) return n = *i, true;
  if (const auto* b = get_if<bool>()) return n = *b ? 1 : 0, true;
  return false;
}

bool Value::truth() const {
  if (undefined() || is<None>()) return false;
  int64_t n = 0;
  if (number(n)) return n != 0;
  if (text()) return !text()->empty();
  if (list()) return of(List::Origin::iterator) || !list()->items.empty();
  if (dict()) return !dict()->entries.empty();
  return true;
}

std::string kind_of(const Value& v) {
  if (v.undefined()) return "an undefined value";
  if (v.is<None>()) return "none";
  if (v.is<bool>()) return "a boolean";
  if (v.is<int64_t>()) return "an integer";
  if (v.text()) return "a string";
  if (v.of(List::Origin::iterator)) return "an iterator (| list makes it a list)";
  if (v.of(List::Origin::view)) return "a view of a dictionary (| list makes it a list)";
  if (v.of(List::Origin::range)) return "a range (| list makes it a list)";
  if (v.list()) return "a list";
  if (v.dict()) return "a dictionary";
  if (v.is<Value::NamespacePtr>()) return "a namespace";
  if (v.is<Value::LoopPtr>()) return "the loop object";
  return "a function";
}

void check_storable(Context& c, const Value& v, const char* in) {
  if (v.is<Value::NamespacePtr>() || v.is<Value::LoopPtr>() || v.is<Function>() || (v.list() && !v.plain_list())) c.wrong(str(kind_of(v), " in ", in), "a plain value");
}

namespace {

int depth_of(const Value& v) { return v.list() ? v.list()->depth : v.dict() ? v.dict()->depth : 0; }

int deeper(Context& c, int depth, const Value& v, const char* in) {
  check_storable(c, v, in);
  const int d = std::max(depth, depth_of(v) + 1);
  if (d > limits::kChatTemplateDepth) c.wrong(str("values nested deeper than ", limits::kChatTemplateDepth), "fewer levels");
  return d;
}

void json_string(std::string_view text, std::string& out) { out += Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

void json_line(std::string& out, int indent, int level) {
  if (indent < 0) return;
  out += '\n';
  out.append(static_cast<size_t>(indent) * static_cast<size_t>(level), ' ');
}

void json(Context& c, const Value& v, int indent, int level, std::string& out) {
  const size_t before = out.size();
  if (v.is<None>()) out += "null";
  else if (const auto* b = v.get_if<bool>()) out += *b ? "true" : "false";
  else if (const auto* i = v.get_if<int64_t>()) out += str(*i);
  else if (v.text()) json_string(*v.text(), out);
  else if (v.plain_list()) {
    out += '[';
    bool first = true;
    for (const Value& item : v.list()->items) {
      if (!first) out += indent < 0 ? ", " : ",";
      first = false;
      json_line(out, indent, level + 1);
      json(c, item, indent, level + 1, out);
    }
    if (!first) json_line(out, indent, level);
    out += ']';
  } else if (v.dict()) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : v.dict()->entries) {
      if (!first) out += indent < 0 ? ", " : ",";
      first = false;
      json_line(out, indent, level + 1);
      json_string(key, out);
      out += ": ";
      json(c, item, indent, level + 1, out);
    }
    if (!first) json_line(out, indent, level);
    out += '}';
  } else {
    c.wrong(kind_of(v) + " in tojson", "a value that JSON has");
  }
  c.charge_bytes(out.size() - before);
}

}  // namespace

Value make_list(Context& c, std::vector<Value> items, List::Origin origin) {
  c.charge(kValueSteps * static_cast<int64_t>(items.size()) + 1);
  auto list = std::make_shared<List>();
  for (const Value& v : items) list->depth = deeper(c, list->depth, v, "a list");
  list->items = std::move(items);
  list->origin = origin;
  return {Value::ListPtr(std::move(list))};
}

Value make_dict(Context& c, std::vector<std::pair<std::string, Value>> entries) {
  auto dict = std::make_shared<Dict>();
  for (auto& [key, v] : entries) {
    c.charge(static_cast<int64_t>(dict->entries.size()) + 1);
    dict->depth = deeper(c, dict->depth, v, "a dictionary");
    bool known = false;
    for (auto& [k, old] : dict->entries)
      if (k == key) old = v, known = true;  // the last one counts, in the place of the first
    if (!known) dict->entries.emplace_back(std::move(key), std::move(v));
  }
  return {Value::DictPtr(std::move(dict))};
}

const Value* find(const Dict& dict, std::string_view key) {
  for (const auto& [k, v] : dict.entries)
    if (k == key) return &v;
  return nullptr;
}

std::string to_text(Context& c, const Value& v) {
  if (v.undefined()) return "";
  if (v.is<None>()) return "None";
  if (const auto* b = v.get_if<bool>()) return *b ? "True" : "False";
  if (const auto* i = v.get_if<int64_t>()) return str(*i);
  if (!v.text()) c.wrong(kind_of(v) + " where text is needed", "a string or a number", v.list() || v.dict() ? "tojson prints lists and dictionaries" : "");
  c.charge_bytes(v.text()->size());
  return *v.text();
}

bool equal(Context& c, const Value& a, const Value& b) {
  c.charge(1);
  for (const Value* v : {&a, &b}) check_storable(c, *v, "a comparison");
  int64_t x = 0, y = 0;
  if (a.number(x) && b.number(y)) return x == y;
  if (a.data.index() != b.data.index()) return false;
  if (a.text()) {
    c.charge_bytes(std::min(a.text()->size(), b.text()->size()));
    return *a.text() == *b.text();
  }
  if (a.list()) {
    const auto &p = a.list()->items, &q = b.list()->items;
    if (p.size() != q.size()) return false;
    for (size_t i = 0; i < p.size(); ++i)
      if (!equal(c, p[i], q[i])) return false;
    return true;
  }
  if (a.dict()) {
    if (a.dict()->entries.size() != b.dict()->entries.size()) return false;
    for (const auto& [key, v] : a.dict()->entries) {
      c.charge(static_cast<int64_t>(b.dict()->entries.size()));
      const Value* other = find(*b.dict(), key);
      if (!other || !equal(c, v, *other)) return false;
    }
    return true;
  }
  return true;  // two of none, two undefined
}

std::shared_ptr<const List> iterate(Context& c, const Value& v) {
  if (const auto* l = v.get_if<Value::ListPtr>()) return *l;
  auto out = std::make_shared<List>();
  if (v.text()) {
    c.charge(2 * kValueSteps * static_cast<int64_t>(v.text()->size()));
    for (const auto ch : characters(*v.text())) out->items.push_back(text_value(std::string(ch)));
  } else if (v.dict()) {
    c.charge(static_cast<int64_t>(v.dict()->entries.size()));
    for (const auto& [key, value] : v.dict()->entries) out->items.push_back(text_value(key));
  } else if (!v.undefined()) {
    c.wrong(kind_of(v) + " where a list is needed", "a list, a string or a dictionary");
  }
  return out;
}

std::string to_json(Context& c, const Value& v, int indent) {
  std::string out;
  json(c, v, indent, 0, out);
  return out;
}

size_t length(Context& c, const Value& v) {
  if (v.undefined()) return 0;
  if (v.list() && !v.of(List::Origin::iterator)) return v.list()->items.size();
  if (v.dict()) return v.dict()->entries.size();
  if (!v.text()) c.wrong("the length of " + kind_of(v), "a string, a list or a dictionary");
  c.charge_bytes(v.text()->size());
  size_t n = 0;
  for (const char ch : *v.text()) n += (static_cast<unsigned char>(ch) & 0xc0) != 0x80;
  return n;
}

bool is_python_space(char32_t c) { return (c >= 0x1c && c <= 0x1f) || is_space(c); }

std::string_view strip_left(std::string_view text) {
  char32_t c = 0;
  while (!text.empty()) {
    const size_t n = utf8_decode(text, c);
    if (n == 0 || !is_python_space(c)) break;
    text.remove_prefix(n);
  }
  return text;
}

std::string_view strip_right(std::string_view text) {
  char32_t c = 0;
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
    if (utf8_decode(text.substr(start), c) == 0 || !is_python_space(c)) break;
    text = text.substr(0, start);
  }
  return text;
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t n = utf8_length(text);
    FATHOM_ASSERT(n > 0, "template text is UTF-8");
    out.push_back(text.substr(0, n));
    text.remove_prefix(n);
  }
  return out;
}

}  // namespace fathom::text::jinja
