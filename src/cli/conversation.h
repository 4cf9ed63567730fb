// A conversation as the ids that a model reads: what was said so far keeps its ids and the dials it was read at, so that
// nothing of it has to be read again.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "infer/scheduler.h"
#include "model/chat_format.h"
#include "text/tokenizer.h"

namespace fathom::cli {

class Conversation {
 public:
  Conversation(model::ChatFormat format, text::Tokenizer tokenizer) : format_(std::move(format)), tokenizer_(std::move(tokenizer)) {}

  // A new conversation; `system` may be empty.
  void begin(const std::string& system);
  // Something said by the user. What the model answers comes after ids(), read under `policy`. UserError when the template
  // refuses it; the conversation is then as before.
  void ask(const std::string& text, const infer::RoutingPolicy& policy);
  // What came of it: `text` is that of `ids`.
  void answered(const std::string& text, std::span<const int32_t> ids);
  // Takes the last question back, and its answer; returns the question, "" when there is none.
  std::string take_back();

  // What was said, for a file that keeps ids() and policies() as well; and that again. UserError names `where` and the field.
  Json to_json() const;
  void restore(const Json& json, const std::string& where, std::vector<int32_t> ids, std::vector<infer::PolicyFrom> policies);

  const std::vector<int32_t>& ids() const { return now_.ids; }
  const std::vector<infer::PolicyFrom>& policies() const { return now_.policies; }
  const std::vector<text::ChatMessage>& messages() const { return now_.messages; }

 private:
  struct State {
    std::vector<text::ChatMessage> messages;
    std::string read;                         // the text of `ids`
    std::vector<int32_t> ids;
    std::vector<infer::PolicyFrom> policies;  // of `ids` and what follows
  };
  model::ChatFormat format_;
  text::Tokenizer tokenizer_;
  State now_;
  std::vector<State> before_;  // each question
};

}  // namespace fathom::cli
