#include "text/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstring>

#include "core/error.h"
#include "core/limits.h"
#include "core/utf8.h"

namespace fathom::text {
namespace {

// Steps of one search. A sane pattern takes a few per character; a search that backtracks without end gives up after
// about a second instead of hanging. A text has as many searches as matches, and their sum has no bound (docs/limits.md).
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKiB = 64 * 1024;
constexpr size_t kJitStackBytes = 8 * 1024 * 1024;

}  // namespace

struct PatternScratch::State {
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
};

PatternScratch::PatternScratch() : state_(std::make_unique<State>()) {
  state_->data = pcre2_match_data_create(1, nullptr);
  state_->context = pcre2_match_context_create(nullptr);
  state_->stack = pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr);
  if (!state_->data || !state_->context) throw std::bad_alloc();
  pcre2_set_match_limit(state_->context, kMatchLimit);
  pcre2_set_heap_limit(state_->context, kHeapLimitKiB);
  if (state_->stack) pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
}

PatternScratch::~PatternScratch() {
  pcre2_jit_stack_free(state_->stack);
  pcre2_match_context_free(state_->context);
  pcre2_match_data_free(state_->data);
}

struct Pattern::Compiled {
  pcre2_code* code = nullptr;
  std::string source, where, field;
  ~Compiled() { pcre2_code_free(code); }
};

Pattern Pattern::literal(std::string text) {
  Pattern p;
  p.literal_ = std::move(text);
  return p;
}

Pattern Pattern::regex(const std::string& source, const std::string& where, const std::string& field) {
  const std::string translated = translate_regex(source, where, field);
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Compiled>();
  compiled->source = source, compiled->where = where, compiled->field = field;
  compiled->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (!compiled->code) {
    PCRE2_UCHAR reason[160];
    pcre2_get_error_message(error, reason, sizeof reason);
    throw UserError({where, field, "the pattern " + printable(source, 200) + " (" + reinterpret_cast<const char*>(reason) + ")",
                     "a regular expression", ""});
  }
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);  // where there is no JIT the interpreter does it
  Pattern p;
  p.compiled_ = std::move(compiled);
  return p;
}

bool Pattern::may_match_nothing() const {
  if (!compiled_) return literal_.empty();
  uint32_t empty = 0;
  pcre2_pattern_info(compiled_->code, PCRE2_INFO_MATCHEMPTY, &empty);
  return empty != 0;
}

bool Pattern::find(std::string_view text, size_t from, size_t& begin, size_t& end, PatternScratch& scratch) const {
  if (!compiled_) {
    if (literal_.empty()) {
      begin = end = from;
      return true;
    }
    const size_t at = text.find(literal_, from);
    if (at == std::string_view::npos) return false;
    begin = at, end = at + literal_.size();
    return true;
  }
  auto& s = *scratch.state_;
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int rc = pcre2_match(compiled_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, s.data, s.context);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
    rc = pcre2_match(compiled_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s.data, s.context);
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  if (rc < 0) {
    PCRE2_UCHAR reason[160];
    pcre2_get_error_message(rc, reason, sizeof reason);
    throw UserError({compiled_->where, compiled_->field,
                     str("the pattern ", printable(compiled_->source, 200), " gives up on a text of ", text.size(), " bytes, at byte ", from, " (",
                         reinterpret_cast<const char*>(reason), ")"),
                     "a pattern that does not backtrack without end", ""});
  }
  const PCRE2_SIZE* vector = pcre2_get_ovector_pointer(s.data);
  begin = vector[0], end = vector[1];
  FATHOM_ASSERT(begin <= end && end <= text.size(), "match outside its text");
  return true;
}

bool Pattern::Matches::next() {
  while (from_ <= text_.size()) {
    if (!pattern_.find(text_, from_, begin, end, scratch_)) return false;
    if (begin != end || end != last_end_) {
      from_ = last_end_ = end;
      return true;
    }
    const size_t step = utf8_length(text_.substr(from_));
    from_ += step > 0 ? step : 1;
  }
  return false;
}

std::string Pattern::replace(std::string_view text, std::string_view content, PatternScratch& scratch, int64_t max_bytes) const {
  std::string out;
  if (text.empty()) return out;
  size_t done = 0;
  Matches matches(*this, text, scratch);
  while (matches.next()) {
    out.append(text.substr(done, matches.begin - done));
    out.append(content);
    done = matches.end;
    if (static_cast<int64_t>(out.size()) > max_bytes)
      throw UserError({"", "text", "replacements that make it too long", str("at most ", max_bytes, " bytes"), ""});
  }
  out.append(text.substr(done));
  return out;
}

}  // namespace fathom::text
