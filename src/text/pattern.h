// Regular expressions of a tokenizer.json. They are written for Oniguruma (the engine of the `tokenizers` package); here
// they are translated to PCRE2 so that they mean the same: \s is White_Space (PCRE2 adds U+180E), \h a hex digit, `^` and
// `$` stand at lines, \p{L} knows Unicode 16.0. A construct that the two engines read differently is refused by name.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/limits.h"

namespace fathom::text {

// Match data and stack of one thread.
class PatternScratch {
 public:
  PatternScratch();
  ~PatternScratch();
  PatternScratch(const PatternScratch&) = delete;
  PatternScratch& operator=(const PatternScratch&) = delete;

 private:
  friend class Pattern;
  struct State;
  std::unique_ptr<State> state_;
};

class Pattern {
 public:
  // UserError when it does not compile or cannot be held to its meaning. `where` and `field` name it in errors.
  static Pattern regex(const std::string& source, const std::string& where, const std::string& field);
  static Pattern literal(std::string text);

  bool may_match_nothing() const;

  // All matches from left to right, as Oniguruma's Rust binding finds them: an empty match right after a match is
  // passed over.
  class Matches {
   public:
    Matches(const Pattern& pattern, std::string_view text, PatternScratch& scratch) : pattern_(pattern), text_(text), scratch_(scratch) {}
    bool next();  // sets begin and end
    size_t begin = 0, end = 0;

   private:
    const Pattern& pattern_;
    std::string_view text_;
    PatternScratch& scratch_;
    size_t from_ = 0, last_end_ = std::string_view::npos;
  };

  // The text with every match replaced. UserError when it grows past `max_bytes`.
  std::string replace(std::string_view text, std::string_view content, PatternScratch& scratch, int64_t max_bytes = limits::kDocumentBytes) const;

 private:
  struct Compiled;
  Pattern() = default;
  bool find(std::string_view text, size_t from, size_t& begin, size_t& end, PatternScratch& scratch) const;

  std::string literal_;
  std::shared_ptr<const Compiled> compiled_;
};

// The translation alone. Throws UserError.
std::string translate_regex(const std::string& source, const std::string& where, const std::string& field);

}  // namespace fathom::text
