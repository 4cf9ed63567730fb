// tokenizer.json and text together: the input is a file, a byte 0, and a text for it. Whatever the file, reading it ends
// in a tokenizer or a UserError; whatever the text, a stream decodes as a batch does.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fathom::set_log_level(fathom::LogLevel::quiet);
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const std::string_view json = input.substr(0, zero);
  const std::string_view text = zero == std::string_view::npos ? std::string_view() : input.substr(zero + 1);
  try {
    const auto tokenizer = fathom::text::Tokenizer::from_json(json, "fuzz");
    const auto ids = tokenizer.encode(text, {.add_special_tokens = true, .allow_special = true});
    if (tokenizer.encode(text, {.add_special_tokens = true, .allow_special = true}) != ids) std::abort();
    std::string streamed;
    fathom::text::StreamDecoder stream(tokenizer, false);
    for (const int32_t id : ids) {
      if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
      tokenizer.token_bytes(id);
      const std::string step = stream.push(id);
      if (!fathom::is_utf8(step)) std::abort();
      streamed += step;
    }
    streamed += stream.finish();
    if (streamed != tokenizer.decode(ids, false)) std::abort();
  } catch (const fathom::UserError&) {
  }
  return 0;
}
