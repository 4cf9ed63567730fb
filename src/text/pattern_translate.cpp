#include <cstdio>
#include <map>
#include <vector>

#include "core/error.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace fathom::text {
namespace {

constexpr int kGroupDepth = 100;

class Translator {
 public:
  Translator(const std::string& source, const std::string& where, const std::string& field) : source_(source), where_(where), field_(field) {}

  std::string run() {
    if (static_cast<int64_t>(source_.size()) > limits::kPatternBytes)
      throw UserError({where_, field_, str("a pattern of ", source_.size(), " bytes"), str("at most ", limits::kPatternBytes), ""});
    closers_.push_back(0);
    while (at_ < source_.size()) {
      const char c = source_[at_];
      if (c == '\\') escape(false);
      else if (c == '[') character_class();
      else if (c == '(') open_group();
      else if (c == ')') close_group();
      else if (c == '{') interval();
      else out_ += c, ++at_;
    }
    if (closers_.size() != 1) refuse("a group without its )", source_.size());
    out_.append(closers_.back(), ')');
    return out_;
  }

 private:
  [[noreturn]] void refuse(const std::string& what, size_t at) const {
    throw UserError({where_, field_, str(what, " at offset ", at, " of the pattern ", printable(source_, 200)),
                     "a regular expression of the kind tokenizers use (classes, groups, look-around, repeats)", ""});
  }

  bool looking_at(std::string_view text) const { return std::string_view(source_).substr(at_).starts_with(text); }

  // Ranges of a general category that PCRE2's Unicode 14.0 does not have yet; "" when there are none.
  static std::string later(const std::string& category) {
    std::string out;
    char buffer[32];
    for (const AssignedRange& r : assigned_after_unicode_14()) {
      if (r.category[0] != category[0] || (category.size() == 2 && r.category[1] != category[1])) continue;
      if (r.first == r.last) std::snprintf(buffer, sizeof buffer, "\\x{%x}", static_cast<unsigned>(r.first));
      else std::snprintf(buffer, sizeof buffer, "\\x{%x}-\\x{%x}", static_cast<unsigned>(r.first), static_cast<unsigned>(r.last));
      out += buffer;
    }
    return out;
  }

  // What may stand inside [ ] for a general category.
  static std::string category_items(const std::string& category) { return "\\p{" + category + "}" + later(category); }

  // Oniguruma's \w, found by asking it for every code point.
  static std::string word_items() {
    return category_items("L") + category_items("M") + category_items("Nd") + category_items("Nl") + category_items("Pc") +
           "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}";
  }

  void emit(const std::string& items, bool negated, bool in_class, size_t at) {
    if (in_class) {
      if (negated) refuse("a negated class inside [ ]", at);
      out_ += items;
    } else {
      out_ += (negated ? "[^" : "[") + items + "]";
    }
  }

  void property(bool negated, bool in_class) {
    const size_t start = at_;
    at_ += 2;
    if (at_ >= source_.size() || source_[at_] != '{') refuse("\\p without {name}", start);
    const size_t close = source_.find('}', at_);
    if (close == std::string::npos) refuse("\\p{ without }", start);
    std::string name;
    for (size_t i = at_ + 1; i < close; ++i) {
      const char c = source_[i];
      if (c == '^' && name.empty()) negated = !negated;
      else if (c == ' ' || c == '_' || c == '-') continue;
      else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) name += c;
      else refuse("a property name with " + printable(std::string(1, c)), start);
    }
    at_ = close + 1;
    std::string lower;
    for (const char c : name) lower += static_cast<char>(c | 0x20);
    static const std::map<std::string, const char*> kLong = {
        {"letter", "L"}, {"uppercaseletter", "Lu"}, {"lowercaseletter", "Ll"}, {"titlecaseletter", "Lt"}, {"modifierletter", "Lm"},
        {"otherletter", "Lo"}, {"mark", "M"}, {"nonspacingmark", "Mn"}, {"spacingmark", "Mc"}, {"enclosingmark", "Me"},
        {"number", "N"}, {"decimalnumber", "Nd"}, {"letternumber", "Nl"}, {"othernumber", "No"}, {"punctuation", "P"},
        {"symbol", "S"}, {"separator", "Z"}, {"other", "C"}};
    if (const auto it = kLong.find(lower); it != kLong.end()) name = it->second;
    if (name.size() <= 2 && !name.empty()) {
      std::string category(1, static_cast<char>(name[0] & ~0x20));
      if (name.size() == 2) category += static_cast<char>(name[1] | 0x20);
      if (std::string_view("LMNPSZC").find(category[0]) == std::string_view::npos) refuse("the unknown property " + name, start);
      if (negated && in_class) out_ += "\\P{" + category + "}";  // without the later ranges: a class cannot subtract
      else emit(category_items(category), negated, in_class, start);
      return;
    }
    static const char* const kScripts[] = {"Han", "Hiragana", "Katakana", "Hangul", "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Thai",
                                           "Lao", "Khmer", "Myanmar", "Devanagari", "Bengali", "Tamil", "Telugu", "Kannada", "Malayalam",
                                           "Gujarati", "Gurmukhi", "Oriya", "Sinhala", "Tibetan", "Georgian", "Armenian", "Ethiopic", "Mongolian"};
    for (const char* script : kScripts) {
      std::string s;
      for (const char* p = script; *p; ++p) s += static_cast<char>(*p | 0x20);
      if (s == lower) {
        out_ += std::string(negated ? "\\P" : "\\p") + "{sc:" + script + "}";  // bare names mean script extensions in PCRE2
        return;
      }
    }
    refuse("the unknown property " + printable(name), start);
  }

  void code_point(size_t digits_at, size_t digits, size_t start) {
    uint32_t value = 0;
    if (digits == 0 || digits > 8 || digits_at + digits > source_.size()) refuse("a broken \\x or \\u", start);
    for (size_t i = digits_at; i < digits_at + digits; ++i) {
      const char c = source_[i], l = static_cast<char>(c | 0x20);
      if (c >= '0' && c <= '9') value = value * 16 + static_cast<uint32_t>(c - '0');
      else if (l >= 'a' && l <= 'f') value = value * 16 + static_cast<uint32_t>(l - 'a' + 10);
      else refuse("a broken \\x or \\u", start);
    }
    if (value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) refuse("a code point that does not exist", start);
    char buffer[16];
    std::snprintf(buffer, sizeof buffer, "\\x{%x}", value);
    out_ += buffer;
  }

  void escape(bool in_class) {
    const size_t start = at_;
    if (at_ + 1 >= source_.size()) refuse("a \\ at the end", start);
    const char e = source_[at_ + 1];
    if (e == 'p' || e == 'P') return property(e == 'P', in_class);
    at_ += 2;
    switch (e) {
      case 's': out_ += "\\p{White_Space}"; return;
      case 'S': out_ += "\\P{White_Space}"; return;
      case 'd': case 'D':
        if (e == 'D' && in_class) out_ += "\\P{Nd}";
        else emit(category_items("Nd"), e == 'D', in_class, start);
        return;
      case 'w': case 'W': return emit(word_items(), e == 'W', in_class, start);
      case 'h': case 'H': return emit("0-9a-fA-F", e == 'H', in_class, start);
      case 'n': case 'r': case 't': case 'f': case 'e': case 'a': out_ += '\\', out_ += e; return;
      case 'v': out_ += "\\x{b}"; return;
      case 'b': case 'B':
        if (in_class) {
          if (e == 'B') refuse("\\B inside [ ]", start);
          out_ += "\\x{8}";
        } else {
          const std::string w = "[" + word_items() + "]";
          out_ += e == 'b' ? "(?:(?<=" + w + ")(?!" + w + ")|(?<!" + w + ")(?=" + w + "))"
                           : "(?:(?<=" + w + ")(?=" + w + ")|(?<!" + w + ")(?!" + w + "))";
        }
        return;
      case 'A': case 'z': case 'Z':
        if (in_class) break;
        out_ += '\\', out_ += e;
        return;
      case 'x': {
        size_t digits_at = at_, digits = 0;
        if (at_ < source_.size() && source_[at_] == '{') {
          const size_t close = source_.find('}', at_);
          if (close == std::string::npos) refuse("\\x{ without }", start);
          digits_at = at_ + 1, digits = close - digits_at;
          at_ = close + 1;
        } else {
          const auto hex = [](char c) { return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); };
          while (digits < 2 && at_ < source_.size() && hex(source_[at_])) ++digits, ++at_;
          // Bytes past 7f would be parts of characters in Oniguruma.
          if (digits == 2 && source_[digits_at] >= '8') refuse("\\x with a byte that is not ASCII", start);
        }
        return code_point(digits_at, digits, start);
      }
      case 'u':
        code_point(at_, 4, start);
        at_ += 4;
        return;
      default: break;
    }
    const auto byte = static_cast<unsigned char>(e);
    const bool alphanumeric = (e >= '0' && e <= '9') || ((e | 0x20) >= 'a' && (e | 0x20) <= 'z');
    if (alphanumeric || byte < 0x20) refuse("the escape \\" + printable(std::string(1, e)), start);
    if (byte < 0x80) out_ += '\\';
    out_ += e;
  }

  void character_class() {
    const size_t start = at_;
    out_ += source_[at_++];
    if (at_ < source_.size() && source_[at_] == '^') out_ += source_[at_++];
    if (at_ < source_.size() && source_[at_] == ']') out_ += "\\]", ++at_;
    while (true) {
      if (at_ >= source_.size()) refuse("a [ without its ]", start);
      const char c = source_[at_];
      if (c == ']') break;
      if (c == '\\') escape(true);
      else if (looking_at("&&")) refuse("&& inside [ ]", at_);
      else if (looking_at("[:space:]")) out_ += "\\p{White_Space}", at_ += 9;
      else if (looking_at("[:digit:]")) out_ += category_items("Nd"), at_ += 9;
      else if (looking_at("[:xdigit:]")) out_ += "0-9a-fA-F", at_ += 10;
      else if (c == '[') refuse("[ inside [ ]", at_);
      else out_ += c, ++at_;
    }
    out_ += ']', ++at_;
  }

  void open_group() {
    const size_t start = at_;
    for (const char* plain : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"})
      if (looking_at(plain)) {
        out_ += plain, at_ += std::string_view(plain).size();
        return push(start);
      }
    if (looking_at("(*")) refuse("(*", start);
    if (!looking_at("(?")) {
      out_ += "(?:", ++at_;  // nobody reads captures
      return push(start);
    }
    at_ += 2;
    std::string on, off;
    bool negative = false;
    while (at_ < source_.size() && source_[at_] != ':' && source_[at_] != ')') {
      const char c = source_[at_++];
      if (c == '-' && !negative) negative = true;
      else if (c == 'i') (negative ? off : on) += 'i';
      else if (c == 'm') (negative ? off : on) += 's';  // Ruby's m is everybody's s
      else refuse("a group of the kind (?" + printable(std::string(1, c)), start);
    }
    if (at_ >= source_.size()) refuse("a group without its )", start);
    out_ += "(?" + on + (off.empty() ? "" : "-" + off) + ":";
    if (source_[at_++] == ':') return push(start);
    ++closers_.back();  // (?i) reaches to the end of the group around it, alternatives included
    if (closers_.back() > kGroupDepth) refuse("too many options", start);
  }

  void push(size_t start) {
    closers_.push_back(0);
    if (closers_.size() > kGroupDepth) refuse(str("groups nested deeper than ", kGroupDepth), start);
  }

  void close_group() {
    if (closers_.size() == 1) refuse("a ) without its (", at_);
    out_.append(closers_.back() + 1, ')');
    closers_.pop_back();
    ++at_;
  }

  void interval() {
    const size_t start = at_;
    size_t i = at_ + 1, low = 0, high = 0;
    bool comma = false;
    for (; i < source_.size() && (source_[i] == ',' || (source_[i] >= '0' && source_[i] <= '9')); ++i) {
      if (source_[i] != ',') ++(comma ? high : low);
      else if (comma) break;
      else comma = true;
    }
    if (i >= source_.size() || source_[i] != '}' || low + high == 0) {
      out_ += "\\{", ++at_;
      return;
    }
    out_ += std::string("{") + (low == 0 ? "0" : "") + source_.substr(start + 1, i - start);
    at_ = i + 1;
    if (at_ < source_.size() && source_[at_] == '+') refuse("a + after {…}", at_);
    if (!comma && at_ < source_.size() && source_[at_] == '?') refuse("a ? after {n}", at_);
  }

  const std::string &source_, &where_, &field_;
  size_t at_ = 0;
  std::string out_;
  std::vector<size_t> closers_;  // per open group: brackets that (?i) opened in it
};

}  // namespace

std::string translate_regex(const std::string& source, const std::string& where, const std::string& field) {
  return Translator(source, where, field).run();
}

}  // namespace fathom::text
