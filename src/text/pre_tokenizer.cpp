#include "text/pre_tokenizer.h"

#include <algorithm>

#include "core/utf8.h"
#include "text/byte_alphabet.h"
#include "text/unicode.h"

namespace fathom::text {
namespace {

using Span = PreTokenizer::Scratch::Span;

char32_t next_char(std::string_view text, size_t at, size_t& length) {
  char32_t c = 0;
  length = utf8_decode(text.substr(at), c);
  FATHOM_ASSERT(length > 0, "a pre-tokenizer needs UTF-8");
  return c;
}

// Of the part [begin, end) of a text.
size_t lead_of(size_t lead, size_t begin, size_t end) { return lead > begin ? std::min(lead, end) - begin : 0; }

// What `tokenizers` makes of matches and gaps; a span with match == true is left out of the result.
void apply_behavior(SplitBehavior behavior, std::vector<Span>& spans) {
  if (behavior == SplitBehavior::removed) return;
  if (behavior == SplitBehavior::isolated) {
    for (Span& s : spans) s.match = false;
    return;
  }
  const bool reverse = behavior == SplitBehavior::merged_with_next;
  if (reverse) std::reverse(spans.begin(), spans.end());
  size_t kept = 0;
  bool previous = false;
  for (const Span s : spans) {
    const bool merge = behavior == SplitBehavior::contiguous ? s.match == previous : s.match && !previous;
    if (merge && kept > 0) {
      if (reverse) spans[kept - 1].begin = s.begin;
      else spans[kept - 1].end = s.end;
    } else {
      spans[kept++] = {s.begin, s.end, false};
    }
    previous = s.match;
  }
  spans.resize(kept);
  if (reverse) std::reverse(spans.begin(), spans.end());
}

}  // namespace

void PreTokenizer::spans(const Stage& s, std::string_view text, PatternScratch& patterns, std::vector<Span>& out) const {
  out.clear();
  size_t done = 0;
  const auto match = [&](size_t begin, size_t end) {
    if (done != begin) out.push_back({done, begin, false});
    out.push_back({begin, end, true});
    done = end;
  };
  switch (s.kind) {
    case Kind::word_rule: for_each_word(s.rule, text, match); break;
    case Kind::split: {
      Pattern::Matches matches(*s.pattern, text, patterns);
      while (matches.next()) match(matches.begin, matches.end);
      break;
    }
    case Kind::words: {  // runs of word characters, and runs of what is neither word nor space
      size_t length = 0;
      const auto kind = [&](size_t at) {
        const char32_t c = next_char(text, at, length);
        return is_word_char(c) ? 1 : is_space(c) ? 0 : 2;
      };
      for (size_t at = 0; at < text.size();) {
        const int k = kind(at);
        size_t end = at + length;
        if (k != 0) {
          while (end < text.size() && kind(end) == k) end += length;
          match(at, end);
        }
        at = end;
      }
      break;
    }
    case Kind::chars:
    case Kind::metaspace: {
      size_t length = 0;
      for (size_t at = 0; at < text.size(); at += length) {
        const char32_t c = next_char(text, at, length);
        const bool hit = s.chars == Chars::one           ? c == s.one
                         : s.chars == Chars::space       ? is_space(c)
                         : s.chars == Chars::punctuation ? is_punctuation(c)
                                                         : char_class(c) == CharClass::number;
        if (hit) match(at, at + length);
      }
      break;
    }
    case Kind::fixed_length: {
      size_t length = 0;
      for (size_t at = 0; at < text.size();) {
        size_t end = at;
        for (int64_t i = 0; i < s.length && end < text.size(); ++i, end += length) next_char(text, end, length);
        out.push_back({at, end, false});
        done = at = end;
      }
      break;
    }
    default: FATHOM_ASSERT(false, "a stage that does not split");
  }
  if (done != text.size()) out.push_back({done, text.size(), false});
  if (s.invert)
    for (Span& span : out) span.match = !span.match;
  apply_behavior(s.behavior, out);
}

bool PreTokenizer::needs_lead() const {
  return std::any_of(stages_.begin(), stages_.end(), [](const Stage& s) { return s.kind == Kind::metaspace && s.prepend == Prepend::first; });
}

void PreTokenizer::run(std::string_view text, size_t lead, Scratch& scratch, WordSink& sink) const {
  if (scratch.stages.size() < stages_.size()) scratch.stages.resize(stages_.size());
  stage(0, text, lead, text.data() + text.size(), scratch, sink);
}

void PreTokenizer::stage(size_t k, std::string_view text, size_t lead, const char* readable_end, Scratch& scratch, WordSink& sink) const {
  if (text.empty()) return;
  if (k == stages_.size()) return sink.word(text, readable_end);
  const Stage& s = stages_[k];
  Scratch::Stage& mine = scratch.stages[k];
  switch (s.kind) {
    case Kind::word_rule: {
      const bool last = k + 1 == stages_.size();
      for_each_word(s.rule, text, [&](size_t begin, size_t end) {
        const std::string_view word = text.substr(begin, end - begin);
        if (last) sink.word(word, readable_end);
        else stage(k + 1, word, lead_of(lead, begin, end), readable_end, scratch, sink);
      });
      return;
    }
    case Kind::prefix_space:
      if (text[0] == ' ') return stage(k + 1, text, lead, readable_end, scratch, sink);
      mine.text.assign(1, ' ').append(text);
      if (lead > 0) ++lead;
      break;
    case Kind::letters:
      mine.text = bytes_to_letters(text);
      if (lead > 0) lead = bytes_to_letters(text.substr(0, lead)).size();
      break;
    case Kind::metaspace: {
      mine.text.clear();
      if (lead > 0) lead += static_cast<size_t>(std::count(text.data(), text.data() + lead, ' ')) * (s.replacement.size() - 1);
      for (const char c : text) {
        if (c == ' ') mine.text += s.replacement;
        else mine.text += c;
      }
      if ((s.prepend == Prepend::always || (s.prepend == Prepend::first && lead > 0)) && !mine.text.starts_with(s.replacement)) {
        mine.text.insert(0, s.replacement);
        if (lead > 0) lead += s.replacement.size();
      }
      break;
    }
    default: {
      spans(s, text, *scratch.patterns, mine.spans);
      for (const Span& span : mine.spans)
        if (!span.match) stage(k + 1, text.substr(span.begin, span.end - span.begin), lead_of(lead, span.begin, span.end), readable_end, scratch, sink);
      return;
    }
  }
  const std::string_view changed = mine.text;
  const char* const end = changed.data() + changed.size();
  if (s.kind != Kind::metaspace || s.behavior != SplitBehavior::merged_with_next) return stage(k + 1, changed, lead, end, scratch, sink);
  spans(s, changed, *scratch.patterns, mine.spans);
  for (const Span& span : mine.spans)
    stage(k + 1, changed.substr(span.begin, span.end - span.begin), lead_of(lead, span.begin, span.end), end, scratch, sink);
}

}  // namespace fathom::text
