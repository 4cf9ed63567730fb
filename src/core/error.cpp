#include "core/error.h"

#include <algorithm>
#include <cstdio>

#include "core/utf8.h"

namespace fathom {
namespace {

std::string message_of(const ErrorParts& p, Reader reader) {
  std::string m = p.where;
  auto add = [&m](const char* separator, const std::string& text) {
    if (text.empty()) return;
    if (!m.empty()) m += separator;
    m += text;
  };
  add(": ", p.field);
  if (!p.found.empty()) add(": ", "found " + p.found);
  if (!p.expected.empty()) add(p.found.empty() ? ": " : ", ", "expected " + p.expected);
  add("; ", p.hint.text(reader));
  return m;
}

}  // namespace

UserError::UserError(ErrorParts parts) : std::runtime_error(message_of(parts, Reader::command_line)), parts_(std::move(parts)) {}

std::string UserError::message(Reader reader) const {
  const std::string message = message_of(parts_, reader);
  return message.empty() ? what() : message;  // one without parts
}

void assertion_failed(const char* condition, const char* file, int line, const std::string& note) {
  throw std::logic_error(str("internal error at ", file, ":", line, ": ", condition, note.empty() ? "" : ": ", note,
                             "; please report this with the command that you ran"));
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  size_t i = 0;
  while (i < text.size()) {
    if (out.size() >= limit) return out + "…";
    const size_t n = utf8_length(text.substr(i));
    if (n == 0 || has_control_character(text.substr(i, n))) {
      for (size_t k = 0; k < std::max<size_t>(n, 1); ++k, ++i) {
        char hex[8];
        std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned char>(text[i]));
        out += hex;
      }
    } else {
      out.append(text.substr(i, n));
      i += n;
    }
  }
  return out;
}

}  // namespace fathom
