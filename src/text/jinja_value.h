// The values of a chat template: Python's, as far as templates need them. Small to copy; lists and dictionaries cannot be changed.
#pragma once
#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace fathom::text::jinja {

struct Value;

struct Undefined {};
struct None {};
using Text = std::shared_ptr<const std::string>;
struct List {
  // Python's kinds of what can be run over. An iterator (map, select, reverse) can be run over once, so it may not be kept; it
  // and a view (keys, items) have no places; none but a list compares, adds or prints as one.
  enum class Origin : uint8_t { list, iterator, view, range };
  std::vector<Value> items;
  int depth = 1;  // of lists in lists: what compares, prints and frees them recurses
  Origin origin = Origin::list;
};
struct Dict {
  std::vector<std::pair<std::string, Value>> entries;  // in the order of insertion; few, so a search is a scan
  int depth = 1;
};
// namespace(): the one thing that {% set %} changes in place. It holds no namespace, so no cycle can come up.
struct Namespace {
  std::vector<std::pair<std::string, Value>> entries;
};
// `loop` in a {% for %}.
struct Loop {
  std::shared_ptr<const List> items;
  int64_t index0 = 0;
};
enum class Function : uint8_t { make_namespace, raise_exception, range, strftime_now };

struct Value {
  using ListPtr = std::shared_ptr<const List>;
  using DictPtr = std::shared_ptr<const Dict>;
  using NamespacePtr = std::shared_ptr<Namespace>;
  using LoopPtr = std::shared_ptr<const Loop>;
  std::variant<Undefined, None, bool, int64_t, Text, ListPtr, DictPtr, NamespacePtr, LoopPtr, Function> data;

  template <class T>
  bool is() const { return std::holds_alternative<T>(data); }
  template <class T>
  const T* get_if() const { return std::get_if<T>(&data); }
  const std::string* text() const {
    const Text* t = get_if<Text>();
    return t ? t->get() : nullptr;
  }
  const List* list() const {
    const ListPtr* l = get_if<ListPtr>();
    return l ? l->get() : nullptr;
  }
  bool of(List::Origin origin) const { return list() && list()->origin == origin; }
  bool plain_list() const { return of(List::Origin::list); }
  const Dict* dict() const {
    const DictPtr* d = get_if<DictPtr>();
    return d ? d->get() : nullptr;
  }
  // An integer, or a boolean as Python counts with it.
  bool number(int64_t& n) const;
  bool truth() const;
  bool undefined() const { return is<Undefined>(); }
};

inline Value text_value(std::string text) { return {std::make_shared<const std::string>(std::move(text))}; }
inline Value integer(int64_t n) { return {n}; }
inline Value boolean(bool b) { return {b}; }

// One rendering: the place for errors, and what it may still cost.
struct Context {
  const std::string& where;
  const std::tm* now = nullptr;  // for strftime_now
  int line = 1;
  int64_t steps = 0;

  void charge(int64_t n);                                                           // n steps
  void charge_bytes(size_t n) { charge(1 + static_cast<int64_t>(n / 16)); }         // text compared or searched
  Value make_text(std::string text);                                                // text made; held against its bound
  void check_bytes(size_t n);                                                       // the same, before it is made
  [[noreturn]] void wrong(const std::string& found, const std::string& expected = "", const std::string& hint = "") const;
};

std::string kind_of(const Value& v);  // "a string", for messages

// Builds a list or a dictionary; refuses what may not stand in one, and nesting past the bound.
Value make_list(Context& c, std::vector<Value> items, List::Origin origin = List::Origin::list);
Value make_dict(Context& c, std::vector<std::pair<std::string, Value>> entries);
void check_storable(Context& c, const Value& v, const char* in);

const Value* find(const Dict& dict, std::string_view key);
std::string to_text(Context& c, const Value& v);  // as {{ }} prints it
bool equal(Context& c, const Value& a, const Value& b);
std::shared_ptr<const List> iterate(Context& c, const Value& v);  // what a {% for %} runs over
std::string to_json(Context& c, const Value& v, int indent);      // indent < 0: on one line
size_t length(Context& c, const Value& v);

// Python's str.isspace: White_Space and U+001C to U+001F.
bool is_python_space(char32_t c);
std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
std::vector<std::string_view> characters(std::string_view text);

}  // namespace fathom::text::jinja
