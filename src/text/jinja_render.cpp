#include "text/jinja_render.h"

#include "core/error.h"
#include "core/limits.h"
#include "text/jinja_functions.h"

namespace fathom::text::jinja {
namespace {

constexpr int64_t kRange = 100'000;  // Jinja's sandbox allows no longer range

class Renderer {
 public:
  Renderer(Variables globals, Context& c) : c_(c) {
    scopes_.push_back(std::move(globals));
    scopes_.emplace_back();
  }

  std::string render(const Body& body) {
    run(body);
    return std::move(out_);
  }

 private:
  enum class Flow : uint8_t { next, break_loop, continue_loop };

  // Variables that go when a block ends.
  class Scope {
   public:
    explicit Scope(Renderer& r) : r_(r) { r_.scopes_.emplace_back(); }
    ~Scope() { r_.scopes_.pop_back(); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Renderer& r_;
  };

  void print(const std::string& text) {
    if (static_cast<int64_t>(out_.size() + text.size()) > limits::kChatBytes)
      c_.wrong(str("more than ", limits::kChatBytes, " bytes of output"), "a shorter conversation");
    c_.charge_bytes(text.size());
    out_ += text;
  }

  void set(const std::string& name, Value v) {
    auto& scope = scopes_.back();
    for (auto& [known, old] : scope)
      if (known == name) {
        old = std::move(v);
        return;
      }
    scope.emplace_back(name, std::move(v));
  }

  const Value* lookup(const std::string& name) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      for (const auto& [known, v] : *scope)
        if (known == name) return &v;
    return nullptr;
  }

  Flow run(const Body& body) {
    for (const Statement& s : body)
      if (const Flow flow = run(s); flow != Flow::next) return flow;
    return Flow::next;
  }

  Flow run(const Statement& s) {
    c_.line = s.line;
    c_.charge(1);
    switch (s.kind) {
      case Statement::Kind::text: print(s.text); break;
      case Statement::Kind::output: print(to_text(c_, eval(*s.expr))); break;
      case Statement::Kind::branches:
        for (const auto& b : s.branches)
          if (eval(*b.condition).truth()) return run(b.body);
        return run(s.otherwise);
      case Statement::Kind::loop: loop(s); break;
      case Statement::Kind::set: {
        Value v = eval(*s.expr);
        if (v.of(List::Origin::iterator)) c_.wrong(kind_of(v) + " in {% set %}", "a plain value");
        set(s.names[0], std::move(v));
        break;
      }
      case Statement::Kind::set_attribute: set_attribute(s, eval(*s.expr)); break;
      case Statement::Kind::set_block: {
        std::string outer = std::exchange(out_, "");
        {
          const Scope scope(*this);
          run(s.body);
        }
        set(s.names[0], c_.make_text(std::exchange(out_, std::move(outer))));
        break;
      }
      case Statement::Kind::scope: {
        const Scope scope(*this);
        run(s.body);
        break;
      }
      case Statement::Kind::break_loop: return Flow::break_loop;
      case Statement::Kind::continue_loop: return Flow::continue_loop;
    }
    return Flow::next;
  }

  void set_attribute(const Statement& s, Value v) {
    const Value* target = lookup(s.names[0]);
    const auto* space = target ? target->get_if<Value::NamespacePtr>() : nullptr;
    if (!space) c_.wrong(printable(s.names[0]) + "." + printable(s.names[1]) + " in {% set %}", "an attribute of a namespace()");
    assign(**space, s.names[1], std::move(v));
  }

  void assign(Namespace& space, const std::string& name, Value v) {
    check_storable(c_, v, "a namespace");
    if (name.starts_with('_')) c_.wrong("the attribute " + printable(name) + " of a namespace", "a name without an underscore in front");
    c_.charge(static_cast<int64_t>(space.entries.size()));
    for (auto& [known, old] : space.entries)
      if (known == name) {
        old = std::move(v);
        return;
      }
    space.entries.emplace_back(name, std::move(v));
  }

  void bind(const Statement& s, const Value& v) {
    if (s.names.size() == 1) return set(s.names[0], v);
    const auto parts = iterate(c_, v);
    if (parts->items.size() != s.names.size()) c_.wrong(str(parts->items.size(), " values for ", s.names.size(), " loop variables"), "as many");
    for (size_t i = 0; i < s.names.size(); ++i) set(s.names[i], parts->items[i]);
  }

  void loop(const Statement& s) {
    auto items = iterate(c_, eval(*s.expr));
    if (s.condition) {
      auto kept = std::make_shared<List>();
      in_condition_ = true;
      for (const Value& v : items->items) {
        const Scope scope(*this);
        c_.charge(1);
        bind(s, v);
        if (eval(*s.condition).truth()) kept->items.push_back(v);
      }
      in_condition_ = false;
      items = std::move(kept);
    }
    const auto state = std::make_shared<Loop>();
    state->items = items;
    for (const Value& v : items->items) {
      const Scope scope(*this);
      c_.line = s.line;
      c_.charge(1);
      set("loop", {Value::LoopPtr(state)});
      bind(s, v);
      if (run(s.body) == Flow::break_loop) break;
      ++state->index0;
    }
    if (items->items.empty()) {
      const Scope scope(*this);
      run(s.otherwise);
    }
  }

  // ---- Expressions

  Value eval(const Expr& e) {
    using Kind = Expr::Kind;
    c_.line = e.line;
    c_.charge(1);
    switch (e.kind) {
      case Kind::constant: return e.value;
      case Kind::name: return name(e);
      case Kind::list: {
        std::vector<Value> items;
        for (const auto& a : e.args) items.push_back(eval(*a));
        return make_list(c_, std::move(items));
      }
      case Kind::dict: {
        std::vector<std::pair<std::string, Value>> entries;
        for (size_t i = 0; i < e.args.size(); i += 2) {
          const Value key = eval(*e.args[i]);
          if (!key.text()) c_.wrong(kind_of(key) + " as a key", "a string");
          entries.emplace_back(*key.text(), eval(*e.args[i + 1]));
        }
        return make_dict(c_, std::move(entries));
      }
      case Kind::attribute: {
        const Value v = eval(*e.args[0]);
        at(e);
        // Jinja runs the condition of a loop between its rounds, this before them: what the rounds change must not matter.
        if (in_condition_ && v.is<Value::NamespacePtr>()) c_.wrong("a namespace in the condition of a for", "an if in the loop");
        return attribute(c_, v, e.name);
      }
      case Kind::item: {
        const Value v = eval(*e.args[0]), key = eval(*e.args[1]);
        at(e);
        if (in_condition_ && v.is<Value::NamespacePtr>()) c_.wrong("a namespace in the condition of a for", "an if in the loop");
        return item(c_, v, key);
      }
      case Kind::slice: {
        const Value v = eval(*e.args[0]);
        Value part[3];
        for (size_t i = 0; i < 3; ++i) part[i] = e.args[i + 1] ? eval(*e.args[i + 1]) : Value{None{}};
        at(e);
        return slice(c_, v, part[0], part[1], part[2]);
      }
      case Kind::call: return call(e);
      case Kind::filter: {
        const Value v = eval(*e.args[0]);
        Arguments a = arguments(e);
        return call_filter(c_, e.name, v, a);
      }
      case Kind::test: {
        const Value v = eval(*e.args[0]);
        Arguments a = arguments(e);
        return boolean(call_test(c_, e.name, v, a));
      }
      case Kind::negative: {
        int64_t n = 0;
        const Value v = eval(*e.args[0]);
        at(e);
        if (!v.number(n) || n == INT64_MIN) c_.wrong("a minus before " + kind_of(v), "an integer");
        return integer(-n);
      }
      case Kind::logical_not: return boolean(!eval(*e.args[0]).truth());
      case Kind::logical_and: {
        Value v = eval(*e.args[0]);
        return v.truth() ? eval(*e.args[1]) : v;
      }
      case Kind::logical_or: {
        Value v = eval(*e.args[0]);
        return v.truth() ? v : eval(*e.args[1]);
      }
      case Kind::choice:
        if (eval(*e.args[1]).truth()) return eval(*e.args[0]);
        return e.args[2] ? eval(*e.args[2]) : Value{};
      case Kind::compare: return compare(e);
      case Kind::concat: {
        std::string out;
        for (const auto& a : e.args) {
          out += to_text(c_, eval(*a));
          c_.check_bytes(out.size());
        }
        return text_value(std::move(out));
      }
      case Kind::arithmetic: {
        const Value a = eval(*e.args[0]), b = eval(*e.args[1]);
        at(e);
        return arithmetic(e.name, a, b);
      }
    }
    FATHOM_ASSERT(false, "kind of expression");
  }

  void at(const Expr& e) { c_.line = e.line; }

  Value name(const Expr& e) {
    if (const Value* v = lookup(e.name)) return *v;
    if (e.name == "namespace") return {Function::make_namespace};
    if (e.name == "raise_exception") return {Function::raise_exception};
    if (e.name == "range") return {Function::range};
    if (e.name == "strftime_now") return {Function::strftime_now};
    for (const char* known : {"dict", "lipsum", "cycler", "joiner", "self", "super", "caller", "varargs", "kwargs"})
      if (e.name == known) c_.wrong(std::string("Jinja's ") + known, "namespace, raise_exception, range or strftime_now");
    return {};
  }

  Arguments arguments(const Expr& e) {
    Arguments a;
    for (size_t i = 1; i < e.args.size(); ++i) a.plain.push_back(eval(*e.args[i]));
    for (const auto& [name, v] : e.keywords) a.named.emplace_back(name, eval(*v));
    at(e);
    return a;
  }

  Value call(const Expr& e) {
    const Expr& callee = *e.args[0];
    if (callee.kind == Expr::Kind::attribute) {
      const Value self = eval(*callee.args[0]);
      Arguments a = arguments(e);
      return call_method(c_, self, callee.name, a);
    }
    const Value f = eval(callee);
    Arguments a = arguments(e);
    const auto* function = f.get_if<Function>();
    if (!function) c_.wrong("a call of " + kind_of(f) + (callee.kind == Expr::Kind::name ? " " + printable(callee.name) : ""), "namespace, raise_exception, range or strftime_now");
    switch (*function) {
      case Function::make_namespace: {
        if (!a.plain.empty()) c_.wrong("namespace with a plain argument", "named ones");
        auto space = std::make_shared<Namespace>();
        for (auto& [name, v] : a.named) assign(*space, name, std::move(v));
        return {Value::NamespacePtr(std::move(space))};
      }
      case Function::raise_exception: {
        const std::string message = to_text(c_, a.need(c_, 0, "message", "raise_exception"));
        c_.wrong("a conversation that the template refuses: " + printable(message, 500));
      }
      case Function::range: return range(a);
      case Function::strftime_now: return time(a);
    }
    FATHOM_ASSERT(false, "function");
  }

  Value range(Arguments& a) {
    int64_t n[3] = {0, 0, 1};
    if (a.plain.empty() || a.plain.size() > 3 || !a.named.empty()) c_.wrong("range with other than 1 to 3 plain arguments");
    for (size_t i = 0; i < a.plain.size(); ++i)
      if (!a.plain[i].number(n[i]) || n[i] > INT32_MAX || n[i] < INT32_MIN) c_.wrong("an argument of range", "an integer of 32 bits");
    if (a.plain.size() == 1) std::swap(n[0], n[1]);
    if (n[2] == 0) c_.wrong("a range with the step 0", "another step");
    const int64_t count = n[2] > 0 ? (n[1] - n[0] + n[2] - 1) / n[2] : (n[0] - n[1] - n[2] - 1) / -n[2];
    if (count > kRange) c_.wrong(str("a range of ", count), str("at most ", kRange));
    std::vector<Value> items;
    for (int64_t i = 0; i < count; ++i) items.push_back(integer(n[0] + i * n[2]));
    return make_list(c_, std::move(items), List::Origin::range);
  }

  Value time(Arguments& a) {
    const std::string format = to_text(c_, a.need(c_, 0, "format", "strftime_now"));
    a.finish(c_, "strftime_now");
    if (!c_.now) c_.wrong("strftime_now", "a template that needs no date, or a date to be given");
    if (format.size() > 256) c_.wrong("a long format in strftime_now", "at most 256 bytes");
    for (size_t i = 0; i < format.size(); ++i)
      if (format[i] == '%' && (++i == format.size() || std::string_view("aAbBdHIjmMpSyY%").find(format[i]) == std::string_view::npos))
        c_.wrong("the format " + printable(format) + " in strftime_now", "%a %A %b %B %d %H %I %j %m %M %p %S %y %Y");
    char buffer[8192];
    return c_.make_text(std::string(buffer, std::strftime(buffer, sizeof buffer, format.c_str(), c_.now)));
  }

  Value compare(const Expr& e) {
    Value left = eval(*e.args[0]);
    for (size_t i = 0; i < e.operators.size(); ++i) {
      Value right = eval(*e.args[i + 1]);
      at(e);
      if (!holds(e.operators[i], left, right)) return boolean(false);
      left = std::move(right);
    }
    return boolean(true);
  }

  bool holds(const std::string& op, const Value& a, const Value& b) {
    if (op == "==") return equal(c_, a, b);
    if (op == "!=") return !equal(c_, a, b);
    if (op == "in" || op == "not in") return contains(b, a) == (op == "in");
    int order = 0;
    int64_t x = 0, y = 0;
    if (a.number(x) && b.number(y)) {
      order = x < y ? -1 : x > y;
    } else if (a.text() && b.text()) {  // UTF-8 sorts as code points do
      c_.charge_bytes(std::min(a.text()->size(), b.text()->size()));
      order = a.text()->compare(*b.text());
    } else {
      c_.wrong(kind_of(a) + " " + op + " " + kind_of(b), "two integers or two strings");
    }
    return op == "<" ? order < 0 : op == ">" ? order > 0 : op == "<=" ? order <= 0 : order >= 0;
  }

  bool contains(const Value& in, const Value& v) {
    if (in.text()) {
      if (!v.text()) c_.wrong(kind_of(v) + " in a string", "a string");
      c_.charge_bytes(in.text()->size());
      return in.text()->find(*v.text()) != std::string::npos;
    }
    if (in.dict()) {
      if (v.list() || v.dict()) c_.wrong(kind_of(v) + " as a key", "a string");
      c_.charge(static_cast<int64_t>(in.dict()->entries.size()));
      return v.text() && find(*in.dict(), *v.text());
    }
    for (const auto items = iterate(c_, in); const Value& i : items->items)
      if (equal(c_, i, v)) return true;
    return false;
  }

  Value arithmetic(const std::string& op, const Value& a, const Value& b) {
    int64_t x = 0, y = 0, n = 0;
    const bool numbers = a.number(x) && b.number(y);
    if (op == "+" && a.text() && b.text()) {
      c_.check_bytes(a.text()->size() + b.text()->size());
      return text_value(*a.text() + *b.text());
    }
    if (op == "+" && a.plain_list() && b.plain_list()) {
      auto items = a.list()->items;
      items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
      return make_list(c_, std::move(items));
    }
    if (op == "*" && ((a.text() && b.number(y)) || (b.text() && a.number(y)))) {
      const std::string& text = a.text() ? *a.text() : *b.text();
      std::string out;
      if (y > 0 && !text.empty()) {
        if (y > limits::kChatBytes) c_.wrong(str("a text ", y, " times"), str("at most ", limits::kChatBytes, " bytes"));
        c_.check_bytes(text.size() * static_cast<size_t>(y));
        for (int64_t i = 0; i < y; ++i) out += text;
      }
      return text_value(std::move(out));
    }
    if (!numbers) c_.wrong(kind_of(a) + " " + op + " " + kind_of(b), op == "+" ? "two integers, two strings or two lists" : "two integers");
    bool past = false;
    if (op == "+") past = __builtin_add_overflow(x, y, &n);
    else if (op == "-") past = __builtin_sub_overflow(x, y, &n);
    else if (op == "*") past = __builtin_mul_overflow(x, y, &n);
    else {
      if (y == 0) c_.wrong("a division by zero", "another divisor");
      past = x == INT64_MIN && y == -1;
      if (!past) {  // Python rounds down, and the rest has the divisor's sign
        n = op == "//" ? x / y : x % y;
        if (x % y != 0 && (x < 0) != (y < 0)) n += op == "//" ? -1 : y;
      }
    }
    if (past) c_.wrong("an integer past 64 bits", "a smaller one");
    return integer(n);
  }

  Context& c_;
  std::vector<Variables> scopes_;
  std::string out_;
  bool in_condition_ = false;
};

}  // namespace

std::string render(const Body& body, Variables globals, Context& context) { return Renderer(std::move(globals), context).render(body); }

}  // namespace fathom::text::jinja
