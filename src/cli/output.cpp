#include "cli/output.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/utf8.h"

namespace fathom::cli {
namespace {

constexpr size_t kBufferBytes = 1 << 16;

std::string& buffer() {
  static std::string bytes;
  return bytes;
}

Colour chosen = Colour::automatic;

// Columns that a text takes on a terminal: characters, with colour sequences not counted.
size_t columns(std::string_view text) {
  size_t n = 0;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '\x1b') {
      while (i < text.size() && text[i] != 'm') ++i;
      ++i;
      continue;
    }
    const size_t bytes = utf8_length(text.substr(i));
    i += bytes ? bytes : 1;
    ++n;
  }
  return n;
}

std::string one_line(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

// As dump(2), but an array of plain values stays on one line: a list of 1,000 ids is not 1,000 lines.
void write_json(const Json& value, size_t indent, std::string& text) {
  const bool plain = std::none_of(value.begin(), value.end(), [](const Json& v) { return v.is_structured(); });
  if (!value.is_structured() || value.empty() || (value.is_array() && plain)) {
    text += one_line(value);
    return;
  }
  const std::string inner(indent + 2, ' ');
  text += value.is_array() ? "[\n" : "{\n";
  size_t left = value.size();
  for (const auto& [key, v] : value.items()) {
    text += inner + (value.is_array() ? "" : one_line(key) + ": ");
    write_json(v, indent + 2, text);
    text += --left > 0 ? ",\n" : "\n";
  }
  text += std::string(indent, ' ') + (value.is_array() ? "]" : "}");
}

}  // namespace

void out(std::string_view text) {
  buffer().append(text);
  if (buffer().size() >= kBufferBytes) out_flush();
}

void out_flush() {
  std::string bytes;
  bytes.swap(buffer());  // a failure must not be met a second time when the program ends
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::write(STDOUT_FILENO, bytes.data() + done, bytes.size() - done);
    if (n >= 0) {
      done += static_cast<size_t>(n);
    } else if (errno == EPIPE) {
      throw OutputClosed{};
    } else if (errno != EINTR) {
      throw UserError({"standard output", "", std::strerror(errno), "that the result can be written", ""});
    }
  }
}

void out_json(const Json& value) {
  std::string text;
  write_json(value, 0, text);
  out(text + "\n");
}

void set_colour(Colour colour) { chosen = colour; }

bool stdout_is_terminal() { return ::isatty(STDOUT_FILENO) == 1; }

bool use_colour() {
  if (chosen != Colour::automatic) return chosen == Colour::always;
  const char* no = std::getenv("NO_COLOR");  // https://no-color.org: any value but the empty one
  if (no && *no) return false;
  const char* term = std::getenv("TERM");
  return stdout_is_terminal() && !(term && std::string_view(term) == "dumb");
}

size_t terminal_width() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40) return size.ws_col;
  return 100;
}

std::string text_table(const std::vector<std::vector<std::string>>& rows, size_t left_columns) {
  std::vector<size_t> widths;
  for (const auto& row : rows)
    for (size_t c = 0; c < row.size(); ++c) {
      if (c >= widths.size()) widths.push_back(0);
      widths[c] = std::max(widths[c], columns(row[c]));
    }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string space(widths[c] - columns(row[c]), ' ');
      line += (c == 0 ? "" : "  ") + (c < left_columns ? row[c] + space : space + row[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace fathom::cli
