#include <algorithm>

#include "core/error.h"
#include "study/tasks.h"
#include "text/jinja_value.h"

namespace fathom::study {
namespace {

// What a tokenizer puts before a text: what a text of nothing and another begin with alike. What it puts after one has no place in the
// middle of a pair.
std::vector<int32_t> put_before(const text::Tokenizer& tokenizer) {
  const std::vector<int32_t> nothing = tokenizer.encode("", {.add_special_tokens = true}), some = tokenizer.encode("a", {.add_special_tokens = true});
  return {nothing.begin(), std::ranges::mismatch(nothing, some).in1};
}

}  // namespace

int64_t TaskRequest::Choice::scored() const {
  return std::ranges::count_if(targets, [](int32_t id) { return id >= 0; });
}

TaskEncoder::TaskEncoder(text::Tokenizer tokenizer, int64_t context) : tokenizer_(std::move(tokenizer)), context_(context), before_(put_before(tokenizer_)) {}

// `marked`: with what the tokenizer puts before a text, unless the text says it itself.
std::vector<int32_t> TaskEncoder::encode(std::string_view text, bool marked) const {
  std::vector<int32_t> ids = tokenizer_.encode(text, {.allow_special = true});
  const bool there = ids.size() >= before_.size() && std::equal(before_.begin(), before_.end(), ids.begin());
  if (marked && !there) ids.insert(ids.begin(), before_.begin(), before_.end());
  return ids;
}

TaskEncoder::Pair TaskEncoder::pair(std::string_view context, std::string_view continuation) const {
  if (context.empty()) {
    const std::optional<int32_t> begin = tokenizer_.bos_id() ? tokenizer_.bos_id() : tokenizer_.eos_id();
    if (!begin) throw UserError({"the context", "", "an empty text", "some text", "the tokenizer has no token that begins or ends a document"});
    Pair p{{*begin}, encode(continuation, false)};
    if (!p.continuation.empty() && p.continuation[0] == *begin) p.continuation.erase(p.continuation.begin());
    return p;
  }
  const std::string_view kept = text::jinja::strip_right(context);
  Pair p{encode(kept, true), encode(std::string(context) + std::string(continuation), true)};
  p.continuation.erase(p.continuation.begin(), p.continuation.begin() + std::min(std::ssize(p.context), std::ssize(p.continuation)));
  return p;
}

TaskRequest TaskEncoder::request(const TaskItem& item, const std::string& where) const {
  TaskRequest request;
  std::vector<Pair> pairs;
  for (size_t c = 0; c < item.choices.size(); ++c) {
    Pair p = pair(item.context, " " + item.choices[c]);
    const int64_t size = std::ssize(p.continuation);
    const std::string which = item.choices.size() > 1 ? str("choice ", c) : "continuation";
    if (size == 0) throw UserError({where, which, "no token of its own after the context", "at least one", "the tokenizer makes one word of both"});
    if (size > context_) throw UserError({where, which, str(size, " tokens"), str("at most ", context_, ", what the model reads at once"), "leave the item out"});
    request.cut |= std::ssize(p.context) + size > context_ + 1;
    pairs.push_back(std::move(p));
  }
  // Every context is encoded alike, whatever follows it. One of white space alone has no token.
  const std::vector<int32_t>& context = pairs[0].context;
  if (context.empty()) throw UserError({where, "context", "no token", "at least one", "it is white space, before which the tokenizer puts nothing"});
  const auto last = context.end() - 1;
  if (!request.cut) request.shared.assign(context.begin(), last);
  for (const Pair& p : pairs) {
    TaskRequest::Choice choice;
    choice.tokens.assign(request.cut ? context.begin() : last, context.end());
    choice.targets.assign(choice.tokens.size() - 1, -1);
    choice.tokens.insert(choice.tokens.end(), p.continuation.begin(), p.continuation.end() - 1);
    choice.targets.insert(choice.targets.end(), p.continuation.begin(), p.continuation.end());
    if (const int64_t over = std::ssize(choice.tokens) - context_; over > 0) {
      choice.tokens.erase(choice.tokens.begin(), choice.tokens.begin() + over);
      choice.targets.erase(choice.targets.begin(), choice.targets.begin() + over);
    }
    request.choices.push_back(std::move(choice));
  }
  return request;
}

}  // namespace fathom::study
