// Filters, tests and methods of chat templates. An unknown one is refused where it is used: a branch that is never taken may
// hold it.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace fathom::text::jinja {

// What a call was given. Each function takes what it knows; finish() refuses the rest.
class Arguments {
 public:
  std::vector<Value> plain;
  std::vector<std::pair<std::string, Value>> named;

  const Value* take(size_t index, const char* name);       // null when it was not given
  const Value& need(Context& c, size_t index, const char* name, const std::string& what);
  void finish(Context& c, const std::string& what) const;  // `what` was called

 private:
  std::vector<std::string> taken_;
  size_t count_ = 0;
};

Value call_filter(Context& c, const std::string& name, const Value& input, Arguments& a);
bool call_test(Context& c, const std::string& name, const Value& v, Arguments& a);
Value call_method(Context& c, const Value& self, const std::string& name, Arguments& a);

// v.name and v[key]. Names that mean a method in Python are refused: only a call of it has a meaning here.
Value attribute(Context& c, const Value& v, const std::string& name);
Value item(Context& c, const Value& v, const Value& key);
Value slice(Context& c, const Value& v, const Value& start, const Value& stop, const Value& step);

}  // namespace fathom::text::jinja
