// Recursive descent over the tokens, in Jinja's order of precedence. What Jinja has and this has not is refused by name.
#include <algorithm>
#include <initializer_list>

#include "core/error.h"
#include "core/limits.h"
#include "text/jinja_syntax.h"

namespace fathom::text::jinja {
namespace {

using Kind = Token::Kind;

constexpr const char* kStatements = "if, for, set, break, continue, generation";

bool reserved(const std::string& name) {
  for (const char* word : {"and", "or", "not", "if", "else", "elif", "endif", "in", "is", "for", "endfor"})
    if (name == word) return true;
  return false;
}

class Parser {
 public:
  Parser(const std::vector<Token>& tokens, const std::string& where) : tokens_(tokens), where_(where) {}

  Body run() { return body({}); }

 private:
  // One level of nesting, of statements and expressions alike.
  class Deeper {
   public:
    explicit Deeper(Parser& p) : p_(p) {
      if (++p_.depth_ > limits::kChatTemplateDepth) p_.too_deep();
    }
    ~Deeper() { --p_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    Parser& p_;
  };

  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is_op(const char* op) const { return now().kind == Kind::op && now().text == op; }
  bool is_name(const char* name) const { return now().kind == Kind::name && now().text == name; }
  bool skip_op(const char* op) { return is_op(op) && (next(), true); }
  bool skip_name(const char* name) { return is_name(name) && (next(), true); }

  [[noreturn]] void refuse(const std::string& found, const std::string& expected = "", const std::string& hint = "") const {
    throw UserError({where_, str("line ", now().line), found, expected, hint});
  }
  [[noreturn]] void too_deep() const { refuse(str("nesting deeper than ", limits::kChatTemplateDepth), "fewer levels"); }

  std::string seen() const {
    switch (now().kind) {
      case Kind::data: return "text";
      case Kind::output_begin: return "{{";
      case Kind::output_end: return "}}";
      case Kind::block_begin: return "{%";
      case Kind::block_end: return "%}";
      case Kind::string: return "the string \"" + printable(now().text) + "\"";
      case Kind::end: return "the end of the template";
      default: return "\"" + printable(now().text) + "\"";
    }
  }
  void expect_op(const char* op) {
    if (!skip_op(op)) refuse(seen(), std::string("\"") + op + "\"");
  }
  void expect(Kind kind, const char* what) {
    if (now().kind != kind) refuse(seen(), what);
    next();
  }
  std::string expect_name() {
    if (now().kind != Kind::name || reserved(now().text)) refuse(seen(), "a name");
    return next().text;
  }

  // ---- Statements

  // Up to one of the ends, which is left to be read.
  Body body(std::initializer_list<const char*> ends) {
    const Deeper deeper(*this);
    const int opened = now().line;
    Body out;
    while (true) {
      const Token& t = now();
      if (t.kind == Kind::end) {
        if (ends.size() == 0) return out;
        refuse(str("the end of the template in a block that was opened in line ", opened), std::string("{% ") + *(ends.end() - 1) + " %}");
      }
      if (t.kind == Kind::data) {
        Statement s;
        s.line = t.line, s.text = next().text;
        out.push_back(std::move(s));
      } else if (t.kind == Kind::output_begin) {
        next();
        Statement s;
        s.kind = Statement::Kind::output, s.line = t.line;
        s.expr = expression();
        if (is_op(",")) refuse("a tuple in {{ }}", "one value");
        expect(Kind::output_end, "}}");
        out.push_back(std::move(s));
      } else {
        next();
        for (const char* end : ends)
          if (is_name(end)) return out;
        out.push_back(statement());
        expect(Kind::block_end, "%}");
      }
    }
  }

  void end_block(const char* name) {
    if (!skip_name(name)) refuse(seen(), name);
  }

  Statement statement() {
    Statement s;
    s.line = now().line;
    if (now().kind != Kind::name) refuse(seen() + " where a statement begins", kStatements);
    const std::string name = now().text;
    if (name == "if") {
      s.kind = Statement::Kind::branches;
      do {
        next();
        Statement::Branch b;
        b.condition = expression();
        expect(Kind::block_end, "%}");
        b.body = body({"elif", "else", "endif"});
        s.branches.push_back(std::move(b));
      } while (is_name("elif"));
      if (skip_name("else")) {
        expect(Kind::block_end, "%}");
        s.otherwise = body({"endif"});
      }
      end_block("endif");
    } else if (name == "for") {
      next();
      for_loop(s);
    } else if (name == "set") {
      next();
      set(s);
    } else if (name == "break" || name == "continue") {
      if (loops_ == 0) refuse(name + " outside of a loop", "");
      next();
      s.kind = name == "break" ? Statement::Kind::break_loop : Statement::Kind::continue_loop;
    } else if (name == "generation") {  // marks the model's own text for training; the text itself is unchanged
      next();
      expect(Kind::block_end, "%}");
      s.kind = Statement::Kind::scope;
      const int loops = std::exchange(loops_, 0);
      s.body = body({"endgeneration"});
      loops_ = loops;
      end_block("endgeneration");
    } else {
      refuse("the statement {% " + printable(name) + " %}", std::string("one of ") + kStatements, "this template needs a part of Jinja that Fathom does not have");
    }
    return s;
  }

  void for_loop(Statement& s) {
    s.kind = Statement::Kind::loop;
    const bool bracket = skip_op("(");
    do s.names.push_back(expect_name());
    while (skip_op(","));
    if (bracket) expect_op(")");
    for (const auto& n : s.names)
      if (n == "loop") refuse("a loop variable \"loop\"", "another name");
    if (!skip_name("in")) refuse(seen(), "in");
    s.expr = logical_or();
    if (is_op(",")) refuse("a tuple in {% for %}", "a list");
    if (skip_name("if")) s.condition = expression();
    if (is_name("recursive")) refuse("a recursive loop", "a plain one");
    expect(Kind::block_end, "%}");
    ++loops_;
    s.body = body({"else", "endfor"});
    --loops_;
    if (skip_name("else")) {
      expect(Kind::block_end, "%}");
      s.otherwise = body({"endfor"});
    }
    end_block("endfor");
  }

  void set(Statement& s) {
    s.kind = Statement::Kind::set;
    s.names.push_back(expect_name());
    if (skip_op(".")) {
      s.kind = Statement::Kind::set_attribute;
      s.names.push_back(expect_name());
    }
    if (is_op(",")) refuse("several variables in {% set %}", "one");
    if (skip_op("=")) {
      s.expr = expression();
      if (is_op(",")) refuse("a tuple in {% set %}", "a list");
      return;
    }
    if (s.kind == Statement::Kind::set_attribute || now().kind != Kind::block_end) refuse(seen(), "=");
    next();
    s.kind = Statement::Kind::set_block;
    const int loops = std::exchange(loops_, 0);
    s.body = body({"endset"});
    loops_ = loops;
    end_block("endset");
  }

  // ---- Expressions

  ExprPtr make(Expr::Kind kind, int line) const {
    auto e = std::make_unique<Expr>();
    e->kind = kind, e->line = line;
    return e;
  }
  // Depth bounds what evaluating and freeing the tree recurse: a + b + c … is a deep tree without any bracket.
  ExprPtr done(ExprPtr e) const {
    for (const auto& a : e->args)
      if (a) e->depth = std::max(e->depth, a->depth + 1);
    for (const auto& [name, a] : e->keywords) e->depth = std::max(e->depth, a->depth + 1);
    if (e->depth > limits::kChatTemplateDepth) too_deep();
    return e;
  }
  template <class... Args>
  ExprPtr node(Expr::Kind kind, int line, std::string name, Args... args) const {
    auto e = make(kind, line);
    e->name = std::move(name);
    (e->args.push_back(std::move(args)), ...);
    return done(std::move(e));
  }

  ExprPtr expression() {
    const Deeper deeper(*this);
    ExprPtr e = logical_or();
    while (is_name("if")) {
      const int line = next().line;
      ExprPtr condition = logical_or(), otherwise;
      if (skip_name("else")) otherwise = expression();
      e = node(Expr::Kind::choice, line, "", std::move(e), std::move(condition), std::move(otherwise));
    }
    return e;
  }

  ExprPtr logical_or() {
    ExprPtr e = logical_and();
    while (is_name("or")) {
      const int line = next().line;
      e = node(Expr::Kind::logical_or, line, "", std::move(e), logical_and());
    }
    return e;
  }

  ExprPtr logical_and() {
    ExprPtr e = logical_not();
    while (is_name("and")) {
      const int line = next().line;
      e = node(Expr::Kind::logical_and, line, "", std::move(e), logical_not());
    }
    return e;
  }

  ExprPtr logical_not() {
    if (!is_name("not")) return compare();
    const Deeper deeper(*this);
    const int line = next().line;
    return node(Expr::Kind::logical_not, line, "", logical_not());
  }

  ExprPtr compare() {
    ExprPtr first = sum();
    ExprPtr e;
    while (true) {
      std::string op;
      for (const char* o : {"==", "!=", "<", ">", "<=", ">="})
        if (is_op(o)) op = o;
      if (is_name("in")) op = "in";
      if (is_name("not") && ahead().kind == Kind::name && ahead().text == "in") next(), op = "not in";
      if (op.empty()) break;
      const int line = next().line;
      if (!e) {
        e = make(Expr::Kind::compare, line);
        e->args.push_back(std::move(first));
      }
      e->operators.push_back(op);
      e->args.push_back(sum());
    }
    return e ? done(std::move(e)) : std::move(first);
  }

  ExprPtr sum() {
    ExprPtr e = concat();
    while (is_op("+") || is_op("-")) {
      const Token& op = next();
      e = node(Expr::Kind::arithmetic, op.line, op.text, std::move(e), concat());
    }
    return e;
  }

  ExprPtr concat() {
    ExprPtr first = product();
    if (!is_op("~")) return first;
    auto e = make(Expr::Kind::concat, now().line);
    e->args.push_back(std::move(first));
    while (skip_op("~")) e->args.push_back(product());
    return done(std::move(e));
  }

  ExprPtr product() {
    ExprPtr e = unary(true);
    while (is_op("*") || is_op("%") || is_op("//") || is_op("/") || is_op("**")) {
      const Token& op = next();
      if (op.text == "/" || op.text == "**") refuse("the operator " + op.text, "+ - * // %");
      e = node(Expr::Kind::arithmetic, op.line, op.text, std::move(e), unary(true));
    }
    return e;
  }

  ExprPtr unary(bool with_filters) {
    ExprPtr e;
    if (is_op("-")) {
      const Deeper deeper(*this);
      const int line = next().line;
      e = node(Expr::Kind::negative, line, "", unary(false));
    } else if (is_op("+")) {
      refuse("a + before a value", "the value");
    } else {
      e = primary();
    }
    while (is_op(".") || is_op("[") || is_op("(")) e = postfix(std::move(e));
    while (with_filters) {
      if (skip_op("|")) e = filter(std::move(e));
      else if (is_name("is")) e = test(std::move(e));
      else if (is_op("(")) refuse("a call of a filter's or a test's result", "");
      else break;
    }
    return e;
  }

  ExprPtr primary() {
    const Token& t = now();
    auto e = make(Expr::Kind::constant, t.line);
    if (t.kind == Kind::name) {
      if (t.text == "true" || t.text == "True") e->value = boolean(true);
      else if (t.text == "false" || t.text == "False") e->value = boolean(false);
      else if (t.text == "none" || t.text == "None") e->value = {None{}};
      else e->kind = Expr::Kind::name, e->name = t.text;
      if (reserved(t.text)) refuse(seen(), "a value");
      next();
    } else if (t.kind == Kind::string) {
      std::string text;
      while (now().kind == Kind::string) text += next().text;
      e->value = text_value(std::move(text));
    } else if (t.kind == Kind::integer) {
      e->value = integer(next().number);
    } else if (skip_op("(")) {
      if (is_op(")")) refuse("an empty tuple", "a list");
      e = expression();
      if (is_op(",")) refuse("a tuple", "a list");
      expect_op(")");
    } else if (skip_op("[")) {
      e->kind = Expr::Kind::list;
      while (!skip_op("]")) {
        if (!e->args.empty()) {
          expect_op(",");
          if (skip_op("]")) break;
        }
        e->args.push_back(expression());
      }
      return done(std::move(e));
    } else if (skip_op("{")) {
      e->kind = Expr::Kind::dict;
      while (!skip_op("}")) {
        if (!e->args.empty()) {
          expect_op(",");
          if (skip_op("}")) break;
        }
        e->args.push_back(expression());
        expect_op(":");
        e->args.push_back(expression());
      }
      return done(std::move(e));
    } else {
      refuse(seen(), "a value");
    }
    return e;
  }

  ExprPtr postfix(ExprPtr e) {
    const int line = now().line;
    if (skip_op(".")) {
      if (now().kind == Kind::integer) {
        auto index = make(Expr::Kind::constant, line);
        index->value = integer(next().number);
        return node(Expr::Kind::item, line, "", std::move(e), std::move(index));
      }
      if (now().kind != Kind::name) refuse(seen(), "a name after the dot");
      return node(Expr::Kind::attribute, line, next().text, std::move(e));
    }
    if (skip_op("[")) {
      ExprPtr part[3];
      bool slice = false;
      if (!is_op(":")) part[0] = expression();
      for (int k = 1; k < 3 && skip_op(":"); ++k) {
        slice = true;
        if (!is_op(":") && !is_op("]")) part[k] = expression();
      }
      if (!slice && is_op(",")) refuse("a tuple in [ ]", "one index");
      expect_op("]");
      if (!slice) return node(Expr::Kind::item, line, "", std::move(e), std::move(part[0]));
      return node(Expr::Kind::slice, line, "", std::move(e), std::move(part[0]), std::move(part[1]), std::move(part[2]));
    }
    auto call = make(Expr::Kind::call, line);
    call->args.push_back(std::move(e));
    arguments(*call);
    return done(std::move(call));
  }

  void arguments(Expr& call) {
    expect_op("(");
    bool any = false;
    while (!skip_op(")")) {
      if (any) {
        expect_op(",");
        if (skip_op(")")) break;
      }
      any = true;
      if (is_op("*") || is_op("**")) refuse("an argument list in an argument (" + now().text + ")", "single arguments");
      if (now().kind == Kind::name && ahead().kind == Kind::op && ahead().text == "=") {
        std::string name = expect_name();
        next();
        for (const auto& [known, value] : call.keywords)
          if (known == name) refuse("the argument " + name + " twice", "once");
        call.keywords.emplace_back(std::move(name), expression());
      } else {
        if (!call.keywords.empty()) refuse("a plain argument after a named one", "the other order");
        call.args.push_back(expression());
      }
    }
  }

  ExprPtr filter(ExprPtr e) {
    auto f = make(Expr::Kind::filter, now().line);
    f->name = expect_name();
    f->args.push_back(std::move(e));
    if (is_op("(")) arguments(*f);
    return done(std::move(f));
  }

  ExprPtr test(ExprPtr e) {
    next();
    const bool negated = skip_name("not");
    auto t = make(Expr::Kind::test, now().line);
    if (now().kind != Kind::name) refuse(seen(), "the name of a test");
    t->name = next().text;  // "in" is one too
    t->args.push_back(std::move(e));
    if (is_op("(")) {
      arguments(*t);
    } else if (is_name("is")) {
      refuse("a second test with is", "and");
    } else if (now().kind == Kind::string || now().kind == Kind::integer || is_op("[") || is_op("{") ||
               (now().kind == Kind::name && !is_name("else") && !is_name("or") && !is_name("and"))) {
      ExprPtr argument = primary();
      while (is_op(".") || is_op("[") || is_op("(")) argument = postfix(std::move(argument));
      t->args.push_back(std::move(argument));
    }
    const int line = t->line;
    ExprPtr out = done(std::move(t));
    return negated ? node(Expr::Kind::logical_not, line, "", std::move(out)) : std::move(out);
  }

  const std::vector<Token>& tokens_;
  const std::string& where_;
  size_t at_ = 0;
  int depth_ = 0, loops_ = 0;
};

}  // namespace

Body parse(const std::vector<Token>& tokens, const std::string& where) { return Parser(tokens, where).run(); }

}  // namespace fathom::text::jinja
