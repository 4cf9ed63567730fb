// How a model wants a conversation: its chat template and the tokens that the template names.
#pragma once
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "formats/gguf.h"
#include "text/chat_template.h"

namespace fathom::model {

struct ChatFormat {
  text::ChatTemplate chat_template;
  std::optional<std::string> bos_token, eos_token;  // as spelled in the vocabulary
  // The conversation as a text, up to where the model's answer begins, today. It holds special tokens: encode it with allow_special and
  // without add_special_tokens.
  std::string render(std::span<const text::ChatMessage> messages) const;
  // The same for text that is kept: on 26 July 2024, which is what templates say that know no date, so that it is the same tomorrow. Without
  // `answer_follows` as it stands once it is over.
  std::string render_to_keep(std::span<const text::ChatMessage> messages, bool answer_follows) const;
};

// Of whole ones, by what `load` finds; nothing where that is nothing. A format that cannot be read is an error of the first conversation: text
// without any needs none.
std::optional<text::ConversationFormat> whole_conversations(const std::function<std::optional<ChatFormat>()>& load);

// Of the format that stands beside a tokenizer.json, or in a folder.
std::optional<text::ConversationFormat> conversations_beside(const std::string& tokenizer);

// "add_bos_token" of a folder's tokenizer_config.json, where it says so: whether a text begins with the begin token.
std::optional<bool> folder_adds_bos(const std::string& folder);

// A folder's: chat_template.jinja, else "chat_template" of tokenizer_config.json (a text, or a list whose "default" counts).
// Nothing when the folder has neither. UserError names the file and field.
std::optional<ChatFormat> folder_chat_format(const std::string& folder);
// The files in which folder_chat_format() finds it, for a folder that has neither.
void write_chat_format(const std::string& folder, const ChatFormat& format);
// A GGUF file's: tokenizer.chat_template.
std::optional<ChatFormat> gguf_chat_format(const formats::GgufFile& file);

}  // namespace fathom::model
