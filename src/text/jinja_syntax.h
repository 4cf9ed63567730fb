// A chat template as a tree, and how it comes from text: lexer, then parser. Both throw UserError with the line.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace fathom::text::jinja {

struct Token {
  enum class Kind : uint8_t { data, output_begin, output_end, block_begin, block_end, name, string, integer, op, end };
  Kind kind = Kind::end;
  std::string text;  // data, name, string: its content; op: as written
  int64_t number = 0;
  int line = 1;
};

// With trim_blocks and lstrip_blocks, as chat templates are written for. The last token is `end`.
std::vector<Token> tokenize(std::string_view source, const std::string& where);

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind : uint8_t {
    constant, name, list, dict,
    attribute,   // args[0].name
    item,        // args[0][args[1]]
    slice,       // args[0][args[1]:args[2]:args[3]], each of the last three may be null
    call,        // args[0](args[1]…, keywords)
    filter,      // args[0] | name(args[1]…, keywords)
    test,        // args[0] is name(args[1]…)
    negative, logical_not, logical_and, logical_or,
    choice,      // args[0] if args[1] else args[2], which may be null
    compare,     // args[0] operators[0] args[1] operators[1] args[2] …
    concat,      // args[0] ~ args[1] ~ …
    arithmetic,  // args[0] name args[1]
  };
  Kind kind = Kind::constant;
  int line = 1;
  int depth = 1;
  Value value;
  std::string name;
  std::vector<ExprPtr> args;  // dict: key, value, key, value, …
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  std::vector<std::string> operators;
};

struct Statement;
using Body = std::vector<Statement>;

struct Statement {
  enum class Kind : uint8_t { text, output, branches, loop, set, set_attribute, set_block, scope, break_loop, continue_loop };
  struct Branch;
  Kind kind = Kind::text;
  int line = 1;
  std::string text;                // text: as it stands
  std::vector<std::string> names;  // loop: its variables; set: the variable; set_attribute: namespace and attribute
  ExprPtr expr;                    // output, set; loop: what it runs over
  ExprPtr condition;               // loop: {% for … if condition %}
  std::vector<Branch> branches;    // if, elif …
  Body body, otherwise;            // loop, set_block, scope; {% else %} of a loop or of branches
};

struct Statement::Branch {
  ExprPtr condition;
  Body body;
};

Body parse(const std::vector<Token>& tokens, const std::string& where);

}  // namespace fathom::text::jinja
