// The one table that a command line is parsed by, documented by and completed by. A program is a list of commands, a
// command a list of positionals and long flags (`--flag=value`, `--flag value`, `--switch`, `--no-switch`; `--` ends
// the flags). Every wrong word is a UsageError that names command, flag, what was found and what was expected.
//   flags.cpp parses, help.cpp prints --help and Markdown, completion.cpp writes bash and zsh.
// Both programs, fathom and fathom-train, are built on it; it links no LibTorch.
#pragma once
#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"

namespace fathom::cli {

enum class Kind {
  boolean,  // a switch: --name, --no-name
  integer,  // 42
  count,    // an integer that may be written 1e6, 10k, 3M, 2G (powers of 1000)
  number,   // finite; may be written 1e15, 2.5M
  text,
  path,     // text that completion completes as a file name
};

// A lower bound below this stands for "above 0" and is written so.
inline constexpr double kAboveZero = 1e-5;

struct Flag {
  std::string name;      // without the dashes: "max-tokens"
  Kind kind = Kind::text;
  std::string metavar;   // what the value is called: "N"
  std::string help;      // one sentence, no full stop
  std::string fallback;  // default, parsed as a value; "" = none
  std::string note;      // default in words, for the documentation only: "the model's"
  std::vector<std::string> choices;  // text: one of these
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();  // of a number, both in
  std::optional<int64_t> least, most;  // of an integer or count, both in: a double does not hold every integer
  bool repeated = false, required = false;
  std::string group;     // heading in --help; "" = "Options"

  template <class A, class B>
  Flag& range(A from, B to) {
    if (kind == Kind::integer || kind == Kind::count) least = whole(from), most = whole(to);
    else low = static_cast<double>(from), high = static_cast<double>(to);
    return *this;
  }
  Flag& otherwise(std::string value) { fallback = std::move(value); return *this; }
  Flag& noted(std::string words) { note = std::move(words); return *this; }
  Flag& one_of(std::vector<std::string> values) { choices = std::move(values); return *this; }
  Flag& many() { repeated = true; return *this; }
  Flag& needed() { required = true; return *this; }

 private:
  static int64_t whole(std::integral auto x) { return x; }
  static int64_t whole(double x) {  // 1e15
    FATHOM_ASSERT(x > -9.2e18 && x < 9.2e18 && static_cast<double>(static_cast<int64_t>(x)) == x, "the bound of an integer: ", x);
    return static_cast<int64_t>(x);
  }
};

// The bounds of a number, integer or count as they are written; "" where there is none.
std::string low_text(const Flag& f);
std::string high_text(const Flag& f);

Flag boolean_flag(std::string name, std::string help);
Flag integer_flag(std::string name, std::string metavar, std::string help);
Flag count_flag(std::string name, std::string metavar, std::string help);
Flag number_flag(std::string name, std::string metavar, std::string help);
Flag text_flag(std::string name, std::string metavar, std::string help);
Flag path_flag(std::string name, std::string metavar, std::string help);

struct Positional {
  std::string name;  // "MODEL"
  std::string help;
  bool required = true, repeated = false;  // repeated: only the last
};

class Arguments;

struct Command {
  std::string name;      // "generate", "tokenizer train"
  std::string summary = {};   // one line in the list of commands
  std::string details = {};   // paragraphs under the usage line; may be empty
  std::vector<Positional> positionals = {};
  std::vector<Flag> flags = {};
  std::vector<std::string> examples = {};  // "fathom generate model --prompt 'Once'"
  std::function<int(const Arguments&)> run = {};
  bool hidden = false;                // not in lists; works and has --help
  // Flags that are not in the table are collected as Arguments::overrides() in their order, instead of refused:
  // `--model.hidden_size 384` sets a field of the configuration file.
  bool overrides = false;
  bool raw = false;                   // everything after the command is handed on unread, as Arguments::raw()
  std::string heading = {};           // of the flags that are added next

  Command& positional(std::string word, std::string help) { positionals.push_back({std::move(word), std::move(help)}); return *this; }
  // Adds a flag under the last heading that group() began.
  Command& flag(Flag f) { if (f.group.empty()) f.group = heading; flags.push_back(std::move(f)); return *this; }
  Command& group(std::string name) { heading = std::move(name); return *this; }
};

// What one command line gave. Asking for a flag that the command's table does not have is a programmer's error.
class Arguments {
 public:
  bool given(const std::string& flag) const;  // written on the command line (a default is not "given")
  bool has(const std::string& flag) const;    // given, or has a default
  bool boolean(const std::string& flag) const;            // false when neither given nor defaulted
  int64_t integer(const std::string& flag) const;         // integer and count
  double number(const std::string& flag) const;           // number, integer, count
  const std::string& text(const std::string& flag) const;  // text and path; "" when absent
  std::vector<std::string> texts(const std::string& flag) const;  // a repeated flag, in order
  std::optional<int64_t> maybe_integer(const std::string& flag) const;
  std::optional<double> maybe_number(const std::string& flag) const;
  std::optional<std::string> maybe_text(const std::string& flag) const;

  const std::string& positional(const std::string& name) const;  // "" when an optional one is absent
  bool given_positional(const std::string& name) const;          // an empty word is one too
  const std::vector<std::string>& rest() const { return rest_; }  // of the repeated positional
  const std::vector<std::pair<std::string, std::string>>& overrides() const { return overrides_; }
  const std::vector<std::string>& raw() const { return raw_; }

  // A UsageError about one flag, for what the table cannot check: files that must agree, flags that exclude each other.
  [[noreturn]] void wrong(const std::string& flag, const std::string& found, const std::string& expected,
                          const std::string& hint = "") const;

 private:
  friend class Parser;
  const Flag& find(const std::string& flag) const;
  const std::string* value(const std::string& flag) const;

  std::string where_;  // "fathom generate"
  std::vector<Flag> flags_;
  std::vector<Positional> table_;
  std::map<std::string, std::vector<std::string>> values_;  // as written, checked
  std::map<std::string, std::string> positionals_;
  std::vector<std::string> rest_, raw_;
  std::vector<std::pair<std::string, std::string>> overrides_;
};

// `where` is "PROGRAM COMMAND". Throws UsageError.
Arguments parse_arguments(const Command& command, const std::string& where, const std::vector<std::string>& words);

// "10k" → 10000, "1e6" → 1000000, "2.5M"; nullopt when the text is no finite number.
std::vector<std::string> comma_list(const std::string& text);  // "a,b" → a, b; an empty text is one empty word
std::optional<double> parse_number(const std::string& text);
std::optional<int64_t> parse_integer(const std::string& text, bool suffixes);

}  // namespace fathom::cli
