#include "cli/flags.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/json.h"

namespace fathom::cli {
namespace {

Flag make(Kind kind, std::string name, std::string metavar, std::string help) {
  Flag f;
  f.kind = kind, f.name = std::move(name), f.metavar = std::move(metavar), f.help = std::move(help);
  return f;
}

std::string quote(const std::string& word) { return "\"" + printable(word) + "\""; }

std::string number_text(double x) {
  if (x == std::floor(x) && std::abs(x) < 1e15) return str(static_cast<int64_t>(x));
  return str(x);
}

}  // namespace

std::string low_text(const Flag& f) { return f.least ? str(*f.least) : std::isfinite(f.low) ? number_text(f.low) : ""; }
std::string high_text(const Flag& f) { return f.most ? str(*f.most) : std::isfinite(f.high) ? number_text(f.high) : ""; }

Flag boolean_flag(std::string name, std::string help) { return make(Kind::boolean, std::move(name), "", std::move(help)); }
Flag integer_flag(std::string name, std::string m, std::string help) { return make(Kind::integer, std::move(name), std::move(m), std::move(help)); }
Flag count_flag(std::string name, std::string m, std::string help) { return make(Kind::count, std::move(name), std::move(m), std::move(help)); }
Flag number_flag(std::string name, std::string m, std::string help) { return make(Kind::number, std::move(name), std::move(m), std::move(help)); }
Flag text_flag(std::string name, std::string m, std::string help) { return make(Kind::text, std::move(name), std::move(m), std::move(help)); }
Flag path_flag(std::string name, std::string m, std::string help) { return make(Kind::path, std::move(name), std::move(m), std::move(help)); }

std::vector<std::string> comma_list(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    out.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return out;
}

std::optional<double> parse_number(const std::string& text) {
  std::string digits = text;
  double factor = 1;
  if (!digits.empty()) {
    switch (digits.back()) {
      case 'k':
      case 'K': factor = 1e3; break;
      case 'M': factor = 1e6; break;
      case 'G': factor = 1e9; break;
      case 'T': factor = 1e12; break;
      case 'P': factor = 1e15; break;
      default: break;
    }
    if (factor != 1) digits.pop_back();
  }
  double value = 0;
  const char* begin = digits.data() + (digits.starts_with('+') ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || begin == end) return std::nullopt;
  value *= factor;
  if (!std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_integer(const std::string& text, bool suffixes) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && !text.empty()) return value;
  if (!suffixes) return std::nullopt;
  const std::optional<double> x = parse_number(text);
  // 2^53: beyond it a double no longer holds every integer, and "1e17" would not mean what it says.
  if (!x || *x != std::floor(*x) || std::abs(*x) > 9007199254740992.0) return std::nullopt;
  return static_cast<int64_t>(*x);
}

class Parser {
 public:
  Parser(const Command& command, const std::string& where) : command_(command) {
    args_.where_ = where;
    args_.flags_ = command.flags;
    args_.table_ = command.positionals;
  }

  Arguments parse(const std::vector<std::string>& words) {
    if (command_.raw) {
      args_.raw_ = words;
      return std::move(args_);
    }
    bool flags_end = false;
    for (size_t i = 0; i < words.size(); ++i) {
      const std::string& word = words[i];
      if (flags_end || word == "-" || word.empty() || word[0] != '-') {
        positional(word);
      } else if (word == "--") {
        flags_end = true;
      } else if (word.size() < 2 || word[1] != '-') {
        if (parse_number(word)) positional(word);
        else short_flag(word);
      } else {
        i += flag(word.substr(2), i + 1 < words.size() ? &words[i + 1] : nullptr);
      }
    }
    check_complete();
    return std::move(args_);
  }

 private:
  std::string hint() const { return "see " + args_.where_ + " --help"; }

  void positional(const std::string& word) {
    const auto& table = command_.positionals;
    if (next_ < table.size() && !table[next_].repeated) {
      args_.positionals_[table[next_++].name] = word;
    } else if (next_ < table.size()) {
      args_.positionals_.try_emplace(table[next_].name, word);
      args_.rest_.push_back(word);
    } else {
      throw UsageError({args_.where_, "", "a further word " + quote(word),
                        table.empty() ? "flags only" : str("at most ", table.size(), table.size() == 1 ? " word besides the flags" : " words besides the flags"),
                        hint()});
    }
  }

  [[noreturn]] void short_flag(const std::string& word) {
    std::vector<std::string> names;
    for (const Flag& f : command_.flags) names.push_back(f.name);
    const std::string near = word.size() > 2 ? nearest(word.substr(1), names) : "";
    throw UsageError({args_.where_, "", quote(word), "a flag that begins with two dashes",
                      near.empty() ? hint() : "did you mean --" + near + "?"});
  }

  // Returns how many further words it took (0 or 1).
  size_t flag(const std::string& word, const std::string* next) {
    const size_t equals = word.find('=');
    std::string name = word.substr(0, equals);
    std::optional<std::string> value;
    if (equals != std::string::npos) value = word.substr(equals + 1);

    const Flag* found = by_name(name);
    bool negated = false;
    if (!found && name.starts_with("no-")) {
      found = by_name(name.substr(3));
      if (found && found->kind != Kind::boolean) found = nullptr;
      negated = found != nullptr;
    }
    if (!found && command_.overrides) return collect(name, value, next);
    if (!found) unknown(name);

    if (found->kind == Kind::boolean) {
      std::string text = value.value_or("true");
      if (text != "true" && text != "false")
        throw UsageError({args_.where_, "--" + name, quote(text), "true, false or no value", ""});
      if (negated) text = text == "true" ? "false" : "true";
      store(*found, text);
      return 0;
    }
    size_t taken = 0;
    if (!value) {
      if (!next) throw UsageError({args_.where_, "--" + name, "no value", expected(*found), hint()});
      if (next->size() > 2 && next->starts_with("--"))
        throw UsageError({args_.where_, "--" + name, "the flag " + quote(*next) + " where a value should be", expected(*found),
                          "write --" + name + "=" + printable(*next) + " if that is the value"});
      value = *next;
      taken = 1;
    }
    check(*found, *value);
    store(*found, *value);
    return taken;
  }

  size_t collect(const std::string& name, const std::optional<std::string>& value, const std::string* next) {
    if (value) {
      args_.overrides_.emplace_back(name, *value);
      return 0;
    }
    if (!next || (next->size() > 2 && next->starts_with("--"))) {
      std::vector<std::string> names;
      for (const Flag& f : command_.flags) names.push_back(f.name);
      const std::string near = nearest(name, names);
      throw UsageError({args_.where_, "--" + printable(name), "no value", "a value for this field of the configuration",
                        near.empty() ? hint() : "did you mean --" + near + "?"});
    }
    args_.overrides_.emplace_back(name, *next);
    return 1;
  }

  void store(const Flag& f, const std::string& text) {
    auto& values = args_.values_[f.name];
    if (!values.empty() && !f.repeated && f.kind != Kind::boolean)
      throw UsageError({args_.where_, "--" + f.name, "a second value " + quote(text), "the flag once", ""});
    if (!f.repeated) values.clear();
    values.push_back(text);
  }

  void check(const Flag& f, const std::string& text) const {
    const auto refuse = [&] { throw UsageError({args_.where_, "--" + f.name, quote(text), expected(f), ""}); };
    switch (f.kind) {
      case Kind::boolean: break;
      case Kind::integer:
      case Kind::count: {
        const auto x = parse_integer(text, f.kind == Kind::count);
        if (!x || (f.least && *x < *f.least) || (f.most && *x > *f.most)) refuse();
        break;
      }
      case Kind::number: {
        const auto x = parse_number(text);
        if (!x || *x < f.low || *x > f.high) refuse();
        break;
      }
      case Kind::path:
        if (text.empty()) refuse();
        [[fallthrough]];
      case Kind::text:
        if (!f.choices.empty() && std::find(f.choices.begin(), f.choices.end(), text) == f.choices.end()) {
          const std::string near = nearest(text, f.choices);
          throw UsageError({args_.where_, "--" + f.name, quote(text), expected(f), near.empty() ? "" : "did you mean " + near + "?"});
        }
        break;
    }
  }

  static std::string expected(const Flag& f) {
    if (!f.choices.empty()) {
      std::string all;
      for (const std::string& c : f.choices) all += (all.empty() ? "" : ", ") + c;
      return "one of " + all;
    }
    const std::string low = low_text(f), high = high_text(f);
    std::string range;
    if (f.low > 0 && f.low < kAboveZero) range = " above 0" + (high.empty() ? "" : " and at most " + high);
    else if (!low.empty() && !high.empty()) range = " from " + low + " to " + high;
    else if (!low.empty()) range = " of at least " + low;
    else if (!high.empty()) range = " of at most " + high;
    switch (f.kind) {
      case Kind::integer: return "an integer" + range;
      case Kind::count: return "an integer" + range + " (10k, 1e6 and 3M are understood)";
      case Kind::number: return "a number" + range;
      case Kind::path: return "a path";
      default: return "a text";
    }
  }

  const Flag* by_name(const std::string& name) const {
    for (const Flag& f : command_.flags)
      if (f.name == name) return &f;
    return nullptr;
  }

  [[noreturn]] void unknown(const std::string& name) const {
    std::vector<std::string> names = {"help"};
    for (const Flag& f : command_.flags) {
      names.push_back(f.name);
      if (f.kind == Kind::boolean) names.push_back("no-" + f.name);
    }
    std::string near = nearest(name, names);
    if (near.empty() && name.starts_with("no-")) near = nearest(name.substr(3), names);
    throw UsageError({args_.where_, "", "the flag --" + printable(name), "a flag of this command",
                      near.empty() ? hint() : "did you mean --" + near + "?"});
  }

  void check_complete() const {
    for (size_t i = 0; i < command_.positionals.size(); ++i) {
      const Positional& p = command_.positionals[i];
      if (p.required && !args_.positionals_.contains(p.name))
        throw UsageError({args_.where_, p.name, "nothing", p.help, hint()});
    }
    for (const Flag& f : command_.flags)
      if (f.required && !args_.values_.contains(f.name))
        throw UsageError({args_.where_, "--" + f.name, "nothing", expected(f) + " (" + f.help + ")", hint()});
  }

  const Command& command_;
  Arguments args_;
  size_t next_ = 0;
};

Arguments parse_arguments(const Command& command, const std::string& where, const std::vector<std::string>& words) {
  return Parser(command, where).parse(words);
}

const Flag& Arguments::find(const std::string& flag) const {
  for (const Flag& f : flags_)
    if (f.name == flag) return f;
  FATHOM_ASSERT(false, where_, " has no flag ", flag);
}

const std::string* Arguments::value(const std::string& flag) const {
  const Flag& f = find(flag);
  const auto it = values_.find(flag);
  if (it != values_.end()) return &it->second.back();
  return f.fallback.empty() ? nullptr : &f.fallback;
}

bool Arguments::given(const std::string& flag) const { return find(flag), values_.contains(flag); }
bool Arguments::has(const std::string& flag) const { return value(flag) != nullptr; }

bool Arguments::boolean(const std::string& flag) const {
  const std::string* text = value(flag);
  return text && *text == "true";
}

int64_t Arguments::integer(const std::string& flag) const {
  const std::optional<int64_t> x = maybe_integer(flag);
  FATHOM_ASSERT(x, "no value and no default of --", flag);
  return *x;
}

double Arguments::number(const std::string& flag) const {
  const std::optional<double> x = maybe_number(flag);
  FATHOM_ASSERT(x, "no value and no default of --", flag);
  return *x;
}

const std::string& Arguments::text(const std::string& flag) const {
  static const std::string empty;
  const std::string* text = value(flag);
  return text ? *text : empty;
}

std::vector<std::string> Arguments::texts(const std::string& flag) const {
  find(flag);
  const auto it = values_.find(flag);
  return it == values_.end() ? std::vector<std::string>{} : it->second;
}

std::optional<int64_t> Arguments::maybe_integer(const std::string& flag) const {
  const std::string* text = value(flag);
  return text ? parse_integer(*text, true) : std::nullopt;
}

std::optional<double> Arguments::maybe_number(const std::string& flag) const {
  const std::string* text = value(flag);
  return text ? parse_number(*text) : std::nullopt;
}

std::optional<std::string> Arguments::maybe_text(const std::string& flag) const {
  const std::string* text = value(flag);
  return text ? std::optional(*text) : std::nullopt;
}

const std::string& Arguments::positional(const std::string& name) const {
  static const std::string empty;
  const auto it = positionals_.find(name);
  if (it != positionals_.end()) return it->second;
  FATHOM_ASSERT(std::any_of(table_.begin(), table_.end(), [&](const Positional& p) { return p.name == name; }), "no positional ", name);
  return empty;
}

bool Arguments::given_positional(const std::string& name) const { return positional(name), positionals_.contains(name); }

void Arguments::wrong(const std::string& flag, const std::string& found, const std::string& expected, const std::string& hint) const {
  throw UsageError({where_, "--" + flag, found, expected, hint});
}

}  // namespace fathom::cli
