#include <charconv>

#include "core/error.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "text/jinja_syntax.h"

namespace fathom::text::jinja {
namespace {

bool digit(char c) { return c >= '0' && c <= '9'; }
bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// One kind of line end, and none at the end of the file: Jinja drops one.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& where) : where_(where) {
    if (static_cast<int64_t>(source.size()) > limits::kChatTemplateBytes)
      throw UserError({where, "", str("a chat template of ", source.size(), " bytes"), str("at most ", limits::kChatTemplateBytes), ""});
    if (!is_utf8(source)) throw UserError({where, "", "a chat template that is not UTF-8", "UTF-8", ""});
    source_ = normalized(source);
  }

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const size_t tag = next_tag();
      std::string_view data = std::string_view(source_).substr(at_, tag - at_);
      if (tag == source_.size()) {
        push(Token::Kind::data, std::string(data));
        skip_to(tag);
        break;
      }
      const char kind = source_[tag + 1];
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      if (sign == '-') {
        data = strip_right(data);
      } else if (sign != '+' && kind != '{') {
        data = without_indent(data);
      }
      if (!data.empty()) push(Token::Kind::data, std::string(data));
      skip_to(tag + (sign == '-' || sign == '+' ? 3 : 2));
      if (kind == '#') comment();
      else tag_body(kind == '%');
    }
    push(Token::Kind::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void refuse(const std::string& found, const std::string& expected = "") const {
    throw UserError({where_, str("line ", line_), found, expected, ""});
  }

  size_t next_tag() const {
    for (size_t i = at_; (i = source_.find('{', i)) != std::string::npos && i + 1 < source_.size(); ++i)
      if (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#') return i;
    return source_.size();
  }

  // lstrip_blocks: white space between the start of the line and a block goes.
  std::string_view without_indent(std::string_view data) const {
    const size_t newline = data.rfind('\n');
    if (newline == std::string_view::npos && !line_starting_) return data;
    const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
    return strip_right(data.substr(start)).empty() ? data.substr(0, start) : data;
  }

  void skip_to(size_t to) {
    for (; at_ < to; ++at_) line_ += source_[at_] == '\n';
  }

  bool looking_at(std::string_view text) const { return std::string_view(source_).substr(at_).starts_with(text); }

  void push(Token::Kind kind, std::string text, int64_t number = 0) { tokens_.push_back({kind, std::move(text), number, line_}); }

  // Behind a tag's end: "-" takes all white space, a block's or comment's plain end one line end (trim_blocks).
  void after_end(bool strip, bool trim) {
    size_t to = at_;
    if (strip) to = source_.size() - strip_left(std::string_view(source_).substr(at_)).size();
    else if (trim && looking_at("\n")) ++to;
    line_starting_ = to > at_ && source_[to - 1] == '\n';
    skip_to(to);
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) refuse("a comment {# without its end", "#}");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    skip_to(end + 2);
    after_end(sign == '-', sign != '+');
  }

  void tag_body(bool block) {
    push(block ? Token::Kind::block_begin : Token::Kind::output_begin, "");
    const std::string end = block ? "%}" : "}}";
    std::string open;  // brackets: an end inside them does not count
    while (true) {
      skip_to(source_.size() - strip_left(std::string_view(source_).substr(at_)).size());
      if (at_ >= source_.size()) refuse(block ? "a block {% without its end" : "an output {{ without its end", end);
      if (open.empty()) {
        const bool minus = looking_at("-" + end), plus = block && looking_at("+" + end);
        if (minus || plus || looking_at(end)) {
          push(block ? Token::Kind::block_end : Token::Kind::output_end, "");
          skip_to(at_ + end.size() + (minus || plus ? 1 : 0));
          return after_end(minus, block && !plus);
        }
      }
      token(open);
    }
  }

  void token(std::string& open) {
    const char c = source_[at_];
    if (digit(c)) return number();
    if (letter(c)) {
      size_t to = at_;
      while (to < source_.size() && (letter(source_[to]) || digit(source_[to]))) ++to;
      push(Token::Kind::name, source_.substr(at_, to - at_));
      return skip_to(to);
    }
    if (c == '\'' || c == '"') return string(c);
    for (const char* op : {"//", "**", "==", "!=", ">=", "<="})
      if (looking_at(op)) {
        push(Token::Kind::op, op);
        return skip_to(at_ + 2);
      }
    if (std::string_view("+-/*%~[](){}><=.:|,").find(c) == std::string_view::npos) refuse("the character " + printable(source_.substr(at_, std::max<size_t>(1, utf8_length(std::string_view(source_).substr(at_))))) + " in a tag");
    if (c == '(' || c == '[' || c == '{') open += c;
    if (c == ')' || c == ']' || c == '}') {
      const char expected = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (open.empty() || open.back() != expected) refuse(std::string("a ") + c + " without its opening bracket");
      open.pop_back();
    }
    push(Token::Kind::op, std::string(1, c));
    skip_to(at_ + 1);
  }

  void number() {
    size_t to = at_;
    while (to < source_.size() && digit(source_[to])) ++to;
    const bool after_dot = !tokens_.empty() && tokens_.back().kind == Token::Kind::op && tokens_.back().text == ".";
    const std::string digits = source_.substr(at_, to - at_);
    if (to < source_.size() && (letter(source_[to]) || (source_[to] == '.' && !after_dot && to + 1 < source_.size() && digit(source_[to + 1]))))
      refuse("a number that begins with " + digits + source_[to], "a whole number");
    int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || (digits.size() > 1 && digits[0] == '0')) refuse("the number " + printable(digits), "a whole number of 64 bits");
    push(Token::Kind::integer, digits, value);
    skip_to(to);
  }

  void string(char quote) {
    std::string out;
    size_t i = at_ + 1;
    const auto need = [&](size_t n) {
      if (i + n > source_.size()) refuse("a string without its end");
    };
    while (true) {
      need(1);
      if (source_[i] == quote) break;
      if (source_[i] != '\\') {
        out += source_[i++];
        continue;
      }
      need(2);
      const char e = source_[i + 1];
      i += 2;
      switch (e) {
        case '\n': break;
        case '\\': case '\'': case '"': out += e; break;
        case 'n': out += '\n'; break;
        case 't': out += '\t'; break;
        case 'r': out += '\r'; break;
        case 'a': out += '\a'; break;
        case 'b': out += '\b'; break;
        case 'f': out += '\f'; break;
        case 'v': out += '\v'; break;
        case 'x': code_point(i, 2, out); break;
        case 'u': code_point(i, 4, out); break;
        case 'U': code_point(i, 8, out); break;
        default:
          // Python keeps a backslash that means nothing; octal numbers and names of characters are not for templates.
          if (digit(e) || e == 'N' || static_cast<unsigned char>(e) >= 0x80) refuse("the escape \\" + printable(std::string(1, e)) + " in a string");
          out += '\\', out += e;
      }
    }
    push(Token::Kind::string, std::move(out));
    skip_to(i + 1);
  }

  void code_point(size_t& i, size_t digits, std::string& out) {
    uint32_t value = 0;
    const bool there = i + digits <= source_.size();
    const char* begin = source_.data() + i;
    if (!there || std::from_chars(begin, begin + digits, value, 16).ptr != begin + digits || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
      refuse("a broken \\x, \\u or \\U in a string", "the number of a character");
    utf8_append(out, value);
    i += digits;
  }

  const std::string& where_;
  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& where) { return Lexer(source, where).run(); }

}  // namespace fathom::text::jinja
