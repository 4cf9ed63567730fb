#include "cli/lines.h"

#include <cerrno>
#include <cstring>
#include <poll.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "core/error.h"
#include "core/limits.h"

namespace fathom::cli {

Lines::Got Lines::next(std::string& line) {
  while (true) {
    if (const size_t at = held_.find('\n'); at != std::string::npos || (ended_ && !held_.empty())) {
      line = held_.substr(0, at);
      held_.erase(0, at == std::string::npos ? at : at + 1);
      if (line.ends_with('\r')) line.pop_back();
      return Got::line;
    }
    if (ended_) return Got::end;
    // A signal just before a wait without end would not end it.
    pollfd waits{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&waits, 1, 100);
    if (interrupted()) return Got::interrupt;
    if (ready <= 0) continue;
    char chunk[4096];
    const ssize_t n = ::read(STDIN_FILENO, chunk, sizeof chunk);
    if (n < 0 && errno != EINTR) throw UserError({"standard input", "", std::strerror(errno), "lines of text", ""});
    if (n == 0) ended_ = true;
    if (n > 0) held_.append(chunk, static_cast<size_t>(n));
    if (static_cast<int64_t>(held_.size()) > limits::kPromptBytes)
      throw UserError({"standard input", "", str("a line of more than ", limits::kPromptBytes, " bytes"), "a shorter one", ""});
  }
}

}  // namespace fathom::cli
