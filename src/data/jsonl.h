// What a line of a .jsonl file holds: a text or a conversation. The object is not built: lines may be long and hold anything else.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/chat_template.h"

namespace fathom::data {

using Line = std::variant<std::string, std::vector<text::ChatMessage>>;

// The string at the top-level key `field` of the object in `line` (valid UTF-8); where there is none, the conversation at "messages", an
// array of {"role", "content"} with a text each. UserError names file and line.
Line jsonl_line(std::string_view line, const std::string& field, const std::string& path, int64_t line_number);

}  // namespace fathom::data
