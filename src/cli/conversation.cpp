#include "cli/conversation.h"

#include <utility>

namespace fathom::cli {

void Conversation::begin(const std::string& system) {
  now_ = {};
  before_.clear();
  if (!system.empty()) now_.messages.push_back({"system", system});
}

void Conversation::ask(const std::string& text, const infer::RoutingPolicy& policy) {
  State next = now_;
  next.messages.push_back({"user", text});
  const std::string all = format_.render(next.messages);
  // A template may write the past anew (some drop what a model thought): then all of it is read anew.
  if (!all.starts_with(next.read)) next.read.clear(), next.ids.clear(), next.policies.clear();
  const auto from = static_cast<int64_t>(next.ids.size());
  if (next.policies.empty() || !(next.policies.back().policy == policy)) next.policies.push_back({from, policy});
  tokenizer_.encode_append(std::string_view(all).substr(next.read.size()), {.add_special_tokens = false, .allow_special = true}, next.ids);
  next.read = all;
  before_.push_back(std::exchange(now_, std::move(next)));
}

void Conversation::answered(const std::string& text, std::span<const int32_t> ids) {
  now_.messages.push_back({"assistant", text});
  now_.read += text;
  now_.ids.insert(now_.ids.end(), ids.begin(), ids.end());
}

std::string Conversation::take_back() {
  if (before_.empty()) return "";
  const std::string question = now_.messages[before_.back().messages.size()].content;
  now_ = std::move(before_.back());
  before_.pop_back();
  return question;
}

}  // namespace fathom::cli
