#include "cli/conversation.h"

#include <algorithm>
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
  constexpr text::EncodeOptions kAsWritten{.add_special_tokens = false, .allow_special = true};
  auto from = static_cast<int64_t>(next.ids.size());
  if (all.starts_with(next.read)) {
    tokenizer_.encode_append(std::string_view(all).substr(next.read.size()), kAsWritten, next.ids);
  } else {
    // A template may write the past anew (some drop what a model thought): from there on it is read anew.
    std::vector<int32_t> ids;
    tokenizer_.encode_append(all, kAsWritten, ids);
    from = std::ranges::mismatch(next.ids, ids).in1 - next.ids.begin();
    next.ids = std::move(ids);
  }
  std::erase_if(next.policies, [&](const infer::PolicyFrom& p) { return p.position >= from; });  // of questions that added no token too
  if (next.policies.empty() || !(next.policies.back().policy == policy)) next.policies.push_back({from, policy});
  next.read = all;
  before_.push_back(std::exchange(now_, std::move(next)));
}

void Conversation::answered(const std::string& text, std::span<const int32_t> ids) {
  now_.messages.push_back({"assistant", text});
  now_.read += text;
  now_.ids.insert(now_.ids.end(), ids.begin(), ids.end());
}

Json Conversation::to_json() const {
  Json messages = Json::array(), before = Json::array();
  for (const text::ChatMessage& m : now_.messages) messages.push_back({{"role", m.role}, {"content", m.content}});
  // A question is told from the rest by how much stood before it; what a template has written anew since cannot be.
  const auto begins = [](const auto& whole, const auto& part) { return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin()); };
  const auto same = [](const auto& a, const auto& b) { return a.position == b.position && a.policy == b.policy; };
  size_t first = before_.size();
  for (; first > 0; --first) {
    const State& s = before_[first - 1];
    if (!now_.read.starts_with(s.read) || !begins(now_.ids, s.ids) || s.policies.size() > now_.policies.size() ||
        !std::equal(s.policies.begin(), s.policies.end(), now_.policies.begin(), same)) break;
  }
  for (; first < before_.size(); ++first) {
    const State& s = before_[first];
    before.push_back({{"messages", s.messages.size()}, {"read", s.read.size()}, {"ids", s.ids.size()}, {"policies", s.policies.size()}});
  }
  return {{"messages", messages}, {"read", now_.read}, {"before", before}};
}

void Conversation::restore(const Json& json, const std::string& where, std::vector<int32_t> ids, std::vector<infer::PolicyFrom> policies) {
  const Fields f(json, where, "conversation");
  State now{.messages = {}, .read = f.string("read"), .ids = std::move(ids), .policies = std::move(policies)};
  const auto list = [&](const std::string& key) -> const Json& {
    const Json& all = f.raw(key);
    if (!all.is_array()) f.wrong(key, describe(all), "an array");
    return all;
  };
  const Json& messages = list("messages");
  for (size_t i = 0; i < messages.size(); ++i) {
    const Fields m(messages[i], where, f.path(str("messages[", i, "]")));
    now.messages.push_back({m.string("role"), m.string("content")});
    m.done();
  }
  std::vector<State> before;
  const Json& states = list("before");
  for (size_t i = 0; i < states.size(); ++i) {
    const Fields s(states[i], where, f.path(str("before[", i, "]")));
    const auto count = [&](const char* key, size_t low, size_t high) { return static_cast<ptrdiff_t>(s.integer(key, static_cast<int64_t>(low), static_cast<int64_t>(high))); };
    const auto m = count("messages", i == 0 ? 0 : before.back().messages.size() + 1, now.messages.empty() ? 0 : now.messages.size() - 1);
    const auto r = count("read", 0, now.read.size()), n = count("ids", 0, now.ids.size()), p = count("policies", 0, now.policies.size());
    before.push_back({.messages = {now.messages.begin(), now.messages.begin() + m}, .read = now.read.substr(0, static_cast<size_t>(r)),
                      .ids = {now.ids.begin(), now.ids.begin() + n}, .policies = {now.policies.begin(), now.policies.begin() + p}});
    s.done();
  }
  f.done();
  if (!before.empty() && now.messages.empty()) f.wrong("before", str(before.size(), " questions"), "none, since nothing was said");
  now_ = std::move(now);
  before_ = std::move(before);
}

std::string Conversation::take_back() {
  if (before_.empty()) return "";
  const std::string question = now_.messages[before_.back().messages.size()].content;
  now_ = std::move(before_.back());
  before_.pop_back();
  return question;
}

}  // namespace fathom::cli
