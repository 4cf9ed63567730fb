// Messages to the person at the terminal: one line each on stderr, so that stdout stays results. Whoever uses the library
// in a program of its own may have them instead.
#pragma once
#include <functional>
#include <string>

#include "core/error.h"

namespace fathom {

enum class LogLevel { quiet, warning, info, debug };

void set_log_level(LogLevel level);
LogLevel log_level();
void set_log_sink(std::function<void(const std::string&)> sink);  // null: stderr; one call at a time
void log_line(LogLevel level, const std::string& text);  // thread-safe; clears and redraws a progress bar

template <class... Args>
void log_info(const Args&... args) {
  if (log_level() >= LogLevel::info) log_line(LogLevel::info, str(args...));
}
template <class... Args>
void log_warning(const Args&... args) {
  if (log_level() >= LogLevel::warning) log_line(LogLevel::warning, "warning: " + str(args...));
}

}  // namespace fathom
