// Which bytes of a normal form `tokenizers` takes for those of a text's start. It counts characters: an output character
// stands for so many of the input's, in order, or for none and shares those of its neighbour before it. A mark that moved over
// others is so taken for one of those; this file counts as it does, not as would be right.
#include <utf8proc.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "core/error.h"
#include "core/utf8.h"
#include "text/unicode.h"

namespace fathom::text {
namespace {

struct Part {
  utf8proc_int32_t c;
  int extra;  // input characters that it stands for, less one: 0, or -1 for a later part of a decomposition, or more by composing
};

int combining_class(const Part& p) { return utf8proc_get_property(p.c)->combining_class; }

class LeadCounter {
 public:
  LeadCounter(std::string_view text, NormalForm form, size_t lead) : text_(text), form_(form), lead_(lead) {}

  size_t count() {
    std::vector<Part> pending;  // a starter and its marks
    const auto flush = [&] {
      std::stable_sort(pending.begin(), pending.end(), [](const Part& a, const Part& b) { return combining_class(a) < combining_class(b); });
      for (const Part& p : pending) composes() ? compose(p) : emit(p);
      pending.clear();
    };
    for (std::string_view rest = text_; !rest.empty() && !ended_;) {
      char32_t c = 0;
      rest.remove_prefix(utf8_decode(rest, c));
      const bool compatible = form_ == NormalForm::nfkc || form_ == NormalForm::nfkd;
      const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
      utf8proc_int32_t parts[64];  // the longest decomposition has 18
      int boundary = 0;
      const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, 64, options, &boundary);
      FATHOM_ASSERT(n >= 0 && n <= 64, "utf8proc: ", utf8proc_errmsg(n));
      for (utf8proc_ssize_t i = 0; i < n; ++i) {
        const Part p{parts[i], i == 0 ? 0 : -1};
        if (combining_class(p) == 0) flush();
        pending.push_back(p);
      }
    }
    flush();
    if (starter_) emit(*starter_);
    for (const Part& p : marks_) emit(p);
    return bytes_;
  }

 private:
  bool composes() const { return form_ == NormalForm::nfc || form_ == NormalForm::nfkc; }

  // The next character of the decomposed text, which may join the starter before it.
  void compose(const Part& p) {
    const int mark = combining_class(p);
    if (!starter_) {
      if (mark == 0) starter_ = p;
      else emit(p);
      return;
    }
    const bool blocked = !marks_.empty() && combining_class(marks_.back()) >= mark;
    if (!blocked) {
      utf8proc_int32_t both[2] = {starter_->c, p.c};
      if (utf8proc_normalize_utf32(both, 2, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE)) == 1) {
        starter_ = Part{both[0], starter_->extra + p.extra + 1};
        return;
      }
    }
    if (mark != 0) return marks_.push_back(p);
    emit(*starter_);
    for (const Part& m : marks_) emit(m);
    marks_.clear();
    starter_ = p;
  }

  void emit(const Part& p) {
    if (ended_) return;
    if (p.extra < 0 ? taken_ > lead_ : taken_ >= lead_) {
      ended_ = true;
      return;
    }
    std::string bytes;
    utf8_append(bytes, static_cast<char32_t>(p.c));
    bytes_ += bytes.size();
    for (int i = 0; i <= p.extra && taken_ < text_.size(); ++i) taken_ += utf8_length(text_.substr(taken_));
  }

  std::string_view text_;
  NormalForm form_;
  size_t lead_, taken_ = 0, bytes_ = 0;
  bool ended_ = false;
  std::optional<Part> starter_;
  std::vector<Part> marks_;  // after the starter, not joined to it
};

}  // namespace

size_t normalized_lead(std::string_view text, NormalForm form, size_t lead) {
  return lead == 0 ? 0 : LeadCounter(text, form, lead).count();
}

}  // namespace fathom::text
