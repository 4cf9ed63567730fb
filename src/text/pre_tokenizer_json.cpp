#include "core/utf8.h"
#include "text/component.h"
#include "text/pre_tokenizer.h"

namespace fathom::text {
namespace {

const std::vector<std::pair<const char*, SplitBehavior>> kBehaviors = {
    {"Removed", SplitBehavior::removed},
    {"Isolated", SplitBehavior::isolated},
    {"MergedWithPrevious", SplitBehavior::merged_with_previous},
    {"MergedWithNext", SplitBehavior::merged_with_next},
    {"Contiguous", SplitBehavior::contiguous},
};

char32_t one_char(const Component& c, const std::string& key) {
  const std::string text = c.string(key);
  char32_t code_point = 0;
  if (text.empty() || utf8_decode(text, code_point) != text.size()) c.wrong(key, "\"" + printable(text) + "\"", "one character");
  return code_point;
}

}  // namespace

PreTokenizer::PreTokenizer(const Json& json, const std::string& where, const std::string& path) {
  if (json.is_null()) return;
  add(json, where, path, 0);
  // ByteLevel at the end hands over bytes, which saves spelling every word in letters.
  if (!stages_.empty() && stages_.back().kind == Kind::letters) {
    stages_.pop_back();
    byte_level_ = true;
  }
}

void PreTokenizer::add_split(const std::optional<WordRule>& rule, Pattern pattern, SplitBehavior behavior, bool invert) {
  Stage s{};
  // The known patterns cover every character: isolated is all that they can be asked for by hand.
  s.kind = rule && behavior == SplitBehavior::isolated ? Kind::word_rule : Kind::split;
  if (rule) s.rule = *rule;
  s.pattern = std::move(pattern);
  s.behavior = behavior;
  s.invert = invert;
  stages_.push_back(std::move(s));
}

void PreTokenizer::add_chars(Chars chars, SplitBehavior behavior, char32_t one) {
  Stage s{};
  s.kind = Kind::chars;
  s.chars = chars, s.behavior = behavior, s.one = one;
  stages_.push_back(std::move(s));
}

void PreTokenizer::add(const Json& json, const std::string& where, const std::string& path, int depth) {
  const Component c(json, where, path, "pre-tokenizer");
  const std::string& type = c.type();
  if (static_cast<int64_t>(stages_.size()) >= limits::kTokenizerStages)
    throw UserError({where, path, "too many pre-tokenizers", str("at most ", limits::kTokenizerStages), ""});
  if (type == "Sequence") {
    if (depth > 8) throw UserError({where, path, "Sequences nested deeper than 8", "fewer", ""});
    for (const auto& member : c.members("pretokenizers")) add(member.json(), where, member.place(), depth + 1);
  } else if (type == "ByteLevel") {
    c.ignore("trim_offsets");
    if (c.boolean("add_prefix_space")) {
      Stage s{};
      s.kind = Kind::prefix_space;
      stages_.push_back(std::move(s));
    }
    if (c.boolean("use_regex", true)) add_split(WordRule::gpt2, Pattern::literal(""), SplitBehavior::isolated, false);
    Stage s{};
    s.kind = Kind::letters;
    stages_.push_back(std::move(s));
  } else if (type == "Split") {
    const auto p = c.pattern("pattern");
    const auto behavior = c.choice<SplitBehavior>("behavior", kBehaviors);
    add_split(p.regex ? word_rule_of(p.text) : std::nullopt, p.regex ? Pattern::regex(p.text, where, p.field) : Pattern::literal(p.text),
              behavior, c.boolean("invert"));
  } else if (type == "Metaspace") {
    Stage s{};
    s.kind = Kind::metaspace;
    s.chars = Chars::one;
    s.one = one_char(c, "replacement");
    utf8_append(s.replacement, s.one);
    s.prepend = c.choice<Prepend>("prepend_scheme", {{"always", Prepend::always}, {"never", Prepend::never}, {"first", Prepend::first}}, Prepend::always);
    if (!c.boolean("add_prefix_space", true)) {  // the older spelling of "never"
      if (c.has("prepend_scheme") && s.prepend != Prepend::never)
        c.wrong("add_prefix_space", "false", "true, since prepend_scheme is not \"never\"");
      s.prepend = Prepend::never;
    }
    s.behavior = c.boolean("split", true) ? SplitBehavior::merged_with_next : SplitBehavior::isolated;
    c.ignore("str_rep");
    stages_.push_back(std::move(s));
  } else if (type == "Digits") {
    add_chars(Chars::number, c.boolean("individual_digits") ? SplitBehavior::isolated : SplitBehavior::contiguous);
  } else if (type == "Punctuation") {
    add_chars(Chars::punctuation, c.choice<SplitBehavior>("behavior", kBehaviors, SplitBehavior::isolated));
  } else if (type == "WhitespaceSplit") {
    add_chars(Chars::space, SplitBehavior::removed);
  } else if (type == "CharDelimiterSplit") {
    add_chars(Chars::one, SplitBehavior::removed, one_char(c, "delimiter"));
  } else if (type == "BertPreTokenizer") {
    add_chars(Chars::space, SplitBehavior::removed);
    add_chars(Chars::punctuation, SplitBehavior::isolated);
  } else if (type == "Whitespace") {
    Stage s{};
    s.kind = Kind::words;
    s.behavior = SplitBehavior::removed;
    s.invert = true;
    stages_.push_back(std::move(s));
  } else if (type == "FixedLength") {
    Stage s{};
    s.kind = Kind::fixed_length;
    s.length = c.integer("length", 1, limits::kWordBytes, 5);
    stages_.push_back(std::move(s));
  } else {
    c.unknown("Sequence, ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, CharDelimiterSplit, FixedLength, BertPreTokenizer");
  }
  c.done();
}

}  // namespace fathom::text
