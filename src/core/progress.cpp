#include "core/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <mutex>

#include "core/human.h"
#include "core/log.h"

namespace fathom {
namespace {

constexpr double kRateSeconds = 0.5;  // a rate from less than this is noise ("16.4G/s")

std::mutex mutex;
std::string bar;  // the line drawn last, to redraw after a message
LogLevel level = LogLevel::info;
std::function<void(const std::string&)> sink;

size_t terminal_width() {
  winsize w{};
  return ::ioctl(2, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

}  // namespace

bool stderr_is_terminal() { return ::isatty(2) == 1; }

void set_log_level(LogLevel l) { level = l; }
LogLevel log_level() { return level; }

void set_log_sink(std::function<void(const std::string&)> s) {
  std::lock_guard lock(mutex);
  sink = std::move(s);
}

void log_line(LogLevel, const std::string& text) {
  std::lock_guard lock(mutex);
  if (sink) return sink(text);
  if (!bar.empty()) std::cerr << "\r\x1b[K";
  std::cerr << text << '\n';
  if (!bar.empty()) std::cerr << bar;
  std::cerr.flush();
}

Progress::Progress(std::string label, std::string unit, int64_t total, int64_t start)
    : label_(std::move(label)), unit_(std::move(unit)), total_(total), start_(start), done_(start),
      terminal_(stderr_is_terminal()), begin_(std::chrono::steady_clock::now()),
      drawn_(begin_ - std::chrono::hours(1)) {}

Progress::~Progress() {
  if (finished_ || !terminal_) return;
  std::lock_guard lock(mutex);
  if (!bar.empty()) std::cerr << '\n' << std::flush;
  bar.clear();
}

double Progress::seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }
double Progress::rate() const { return static_cast<double>(done_ - start_) / std::max(seconds(), 1e-9); }

void Progress::update(int64_t done, const std::string& note) {
  done_ = done;
  note_ = note;
  const auto now = std::chrono::steady_clock::now();
  if (now - drawn_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000))) return;
  drawn_ = now;
  draw(false);
}

void Progress::finish(const std::string& note) {
  if (finished_) return;
  if (!note.empty()) note_ = note;
  draw(true);
  finished_ = true;
}

void Progress::draw(bool last) {
  if (level < LogLevel::info) return;
  std::string line = label_ + "  ";
  if (total_ > 0) {
    const double share = std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0);
    if (terminal_) {
      const int cells = 20, full = static_cast<int>(share * cells);
      for (int i = 0; i < cells; ++i) line += i < full ? "█" : "░";
      line += ' ';
    }
    line += fixed(std::floor(share * 100), 0) + "%  ";
  }
  line += human_count(static_cast<double>(done_));
  if (total_ > 0) line += "/" + human_count(static_cast<double>(total_));
  line += " " + unit_;
  const bool measured = seconds() >= kRateSeconds && done_ > start_;
  if (measured && rate() >= 1) line += "  " + human_count(rate()) + "/s";
  if (last) line += "  in " + human_duration(seconds());
  else if (total_ > 0 && measured) line += "  " + human_duration(static_cast<double>(total_ - done_) / rate()) + " left";
  if (!note_.empty()) line += "  " + note_;
  std::lock_guard lock(mutex);
  if (!terminal_) {
    std::cerr << line << '\n' << std::flush;
    return;
  }
  // Cut to the terminal's width, by characters, so that \r can go back over it.
  size_t columns = 0, bytes = 0;
  const size_t width = terminal_width() - 1;
  for (; bytes < line.size(); ++bytes) {
    if ((static_cast<unsigned char>(line[bytes]) & 0xc0) != 0x80 && ++columns > width) break;
  }
  line.resize(bytes);
  std::cerr << '\r' << line << "\x1b[K";
  bar = last ? "" : line;
  if (last) std::cerr << '\n';
  std::cerr.flush();
}

}  // namespace fathom
