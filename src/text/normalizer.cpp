#include "text/normalizer.h"

#include <algorithm>

#include "core/utf8.h"
#include "text/byte_alphabet.h"
#include "text/component.h"

namespace fathom::text {
namespace {

// It spoils their count of which character came from where: the text itself comes out wrong behind it, or they panic.
constexpr const char* kNothing = "the `tokenizers` package gives no ids that could be met here";

template <class F>
void for_each_char(std::string_view text, F&& f) {
  while (!text.empty()) {
    char32_t c = 0;
    const size_t length = utf8_decode(text, c);
    FATHOM_ASSERT(length > 0, "a normalizer needs UTF-8");
    f(c, text.substr(0, length));
    text.remove_prefix(length);
  }
}

// SentencePiece's rule of the same name: control characters go, odd spaces become spaces.
void nmt(char32_t c, std::string_view bytes, std::string& out) {
  const bool gone = (c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f;
  const bool space = c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) || c == 0x2028 ||
                     c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
  if (space) out += ' ';
  else if (!gone) out.append(bytes);
}

std::string_view strip(std::string_view text, bool left, bool right) {
  while (left && !text.empty()) {
    char32_t c = 0;
    const size_t length = utf8_decode(text, c);
    if (length == 0 || !is_space(c)) break;
    text.remove_prefix(length);
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
    char32_t c = 0;
    if (utf8_decode(text.substr(start), c) == 0 || !is_space(c)) break;
    text = text.substr(0, start);
  }
  return text;
}

}  // namespace

Normalizer::Normalizer(const Json& json, const std::string& where, const std::string& path) {
  if (!json.is_null()) add(json, where, path, 0);
}

void Normalizer::add(const Json& json, const std::string& where, const std::string& path, int depth) {
  const Component c(json, where, path, "normalizer");
  if (static_cast<int64_t>(steps_.size()) >= limits::kTokenizerStages)
    throw UserError({where, path, "too many normalizers", str("at most ", limits::kTokenizerStages), ""});
  const std::string& type = c.type();
  Step step{};
  if (type == "Sequence") {
    if (depth > 8) throw UserError({where, path, "Sequences nested deeper than 8", "fewer", ""});
    for (const auto& member : c.members("normalizers")) add(member.json(), where, member.place(), depth + 1);
    c.done();
    return;
  }
  if (type == "NFC") step.kind = Kind::normal_form, step.form = NormalForm::nfc;
  else if (type == "NFD") step.kind = Kind::normal_form, step.form = NormalForm::nfd;
  else if (type == "NFKC") step.kind = Kind::normal_form, step.form = NormalForm::nfkc;
  else if (type == "NFKD") step.kind = Kind::normal_form, step.form = NormalForm::nfkd;
  else if (type == "Lowercase") step.kind = Kind::lowercase;
  else if (type == "StripAccents") step.kind = Kind::strip_accents;
  else if (type == "Nmt") step.kind = Kind::nmt;
  else if (type == "ByteLevel") step.kind = Kind::byte_level;
  else if (type == "Prepend") {
    step.kind = Kind::prepend;
    step.content = c.string("prepend");
    if (step.content.empty()) c.wrong("prepend", "an empty text", "a text to put in front", kNothing);
  } else if (type == "Strip") {
    step.kind = Kind::strip;
    step.left = c.boolean("strip_left"), step.right = c.boolean("strip_right");
  } else if (type == "Replace") {
    step.kind = Kind::replace;
    const auto pattern = c.pattern("pattern");
    if (pattern.text.empty()) c.wrong("pattern", "an empty pattern", "a text to replace");
    step.pattern = pattern.regex ? Pattern::regex(pattern.text, where, pattern.field) : Pattern::literal(pattern.text);
    step.content = c.string("content");
    if (step.pattern->may_match_nothing()) c.wrong("pattern", "the pattern " + printable(pattern.text) + ", which matches nothing too", "one that matches characters", kNothing);
  } else {
    c.unknown("Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Nmt, Prepend, Replace, ByteLevel");
  }
  c.done();
  steps_.push_back(std::move(step));
}

std::string_view Normalizer::run(const Step& step, std::string_view text, std::string& out, PatternScratch& scratch) const {
  switch (step.kind) {
    case Kind::normal_form: return normalize(text, step.form, out);
    case Kind::strip: return strip(text, step.left, step.right);
    case Kind::replace: out = step.pattern->replace(text, step.content, scratch); return out;
    case Kind::prepend:
      if (text.empty()) return text;
      out.clear();
      out.reserve(step.content.size() + text.size());
      out.append(step.content).append(text);
      return out;
    case Kind::byte_level: out = bytes_to_letters(text); return out;
    case Kind::lowercase:
      out.clear();
      out.reserve(text.size());
      for_each_char(text, [&](char32_t c, std::string_view) { append_lowercase(out, c); });
      return out;
    case Kind::strip_accents:
      out.clear();
      for_each_char(text, [&](char32_t c, std::string_view bytes) {
        if (!is_mark(c)) out.append(bytes);
      });
      return out;
    case Kind::nmt:
      out.clear();
      for_each_char(text, [&](char32_t c, std::string_view bytes) { nmt(c, bytes, out); });
      return out;
  }
  FATHOM_ASSERT(false, "normalizer step");
}

size_t Normalizer::lead_after(const Step& step, std::string_view text, std::string_view result, size_t lead, PatternScratch& scratch) const {
  if (lead == 0) return 0;
  switch (step.kind) {
    case Kind::normal_form: return normalized_lead(text, step.form, lead);
    case Kind::prepend: return text.empty() ? 0 : step.content.size() + lead;
    case Kind::strip: {  // `result` lies in `text`, unless nothing is left
      const auto taken = result.empty() ? text.size() : static_cast<size_t>(result.data() - text.data());
      return std::min(lead - std::min(taken, lead), result.size());
    }
    case Kind::replace: {  // what replaces a match belongs to the match's last character
      size_t after = 0, done = 0;
      Pattern::Matches matches(*step.pattern, text, scratch);
      while (done < lead && matches.next() && matches.begin < lead) {
        after += matches.begin - done;
        if (matches.end <= lead) after += step.content.size();
        done = matches.end;
      }
      return after + lead - std::min(done, lead);
    }
    case Kind::byte_level:
    case Kind::lowercase:
    case Kind::strip_accents:
    case Kind::nmt: {  // character by character
      std::string out;
      return run(step, text.substr(0, lead), out, scratch).size();
    }
  }
  FATHOM_ASSERT(false, "normalizer step");
}

std::string_view Normalizer::apply(std::string_view text, std::string (&buffers)[2], PatternScratch& scratch, size_t* lead) const {
  int free = 0;
  for (const Step& step : steps_) {
    const std::string_view next = run(step, text, buffers[free], scratch);
    if (lead) *lead = lead_after(step, text, next, *lead, scratch);
    // A step that wrote its buffer must not have it as input of the next one.
    if (!next.empty() && next.data() >= buffers[free].data() && next.data() <= buffers[free].data() + buffers[free].size()) free ^= 1;
    text = next;
  }
  return text;
}

}  // namespace fathom::text
