// A chat template and a conversation: the input is a template, then for each byte 0 a message. Whatever they are, rendering ends in
// a text within its bounds or a UserError, and does so twice alike.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const std::string_view source = input.substr(0, zero);
  std::vector<fathom::text::ChatMessage> messages;
  while (true) {
    const size_t at = input.find('\0');
    if (at == std::string_view::npos) break;
    input.remove_prefix(at + 1);
    messages.push_back({messages.size() % 2 ? "assistant" : "user", std::string(input.substr(0, input.find('\0')))});
  }
  fathom::text::ChatOptions options;
  options.bos_token = "<s>", options.eos_token = "</s>";
  try {
    const fathom::text::ChatTemplate chat(source, "fuzz");
    const std::string text = chat.render(messages, options);
    if (!fathom::is_utf8(text) || static_cast<int64_t>(text.size()) > fathom::limits::kChatBytes) std::abort();
    if (chat.render(messages, options) != text) std::abort();
  } catch (const fathom::UserError&) {
  }
  return 0;
}
