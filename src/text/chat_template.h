// A model's chat template: a conversation as the text that the model was trained to go on from. Templates are Jinja2; what is
// here is the part of Jinja2 that the templates of Llama-family models use, without anything that could reach outside, and with
// bounds on work, depth and size (docs/limits.md). The text is the one that `transformers` gives. What Jinja2 has and this
// has not is an error with the line and the construct. The text holds the special tokens: encode it with allow_special and without
// add_special_tokens.
#pragma once
#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace fathom::text {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant"
  std::string content;  // broken UTF-8 is read as U+FFFD
};

// Whole conversations as texts, and from which template: what those who read text want of a model's.
struct ConversationFormat {
  std::function<std::string(std::span<const ChatMessage>)> render;
  std::string source;
};

struct ChatOptions {
  bool add_generation_prompt = true;                   // ends with the beginning of the model's answer
  std::optional<std::string> bos_token, eos_token;     // as spelled in the vocabulary; absent: undefined in the template
  using Variable = std::variant<bool, int64_t, std::string>;
  std::vector<std::pair<std::string, Variable>> variables;  // more of them, by name: enable_thinking, date_string, …
  std::optional<std::tm> now;                          // for strftime_now; absent: a template that calls it is refused
};

class ChatTemplate {
 public:
  // `where` names the source in errors. UserError names the line and what stands there.
  ChatTemplate(std::string_view source, std::string where);

  // UserError also when the template itself refuses the conversation (raise_exception).
  std::string render(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;
  const std::string& source() const;

 private:
  struct Parsed;
  std::shared_ptr<const Parsed> parsed_;  // immutable: copies are cheap, render is thread-safe
};

}  // namespace fathom::text
