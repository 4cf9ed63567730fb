#include "train/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "core/file.h"
#include "core/limits.h"

namespace fathom::train {
namespace {

// A line is whole or absent for every reader: one write() of all of it.
void append(int fd, const std::string& path, const std::string& line) {
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = ::write(fd, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw UserError({path, "", str("cannot write: ", std::strerror(errno)), "", "free some space and resume the run"});
    done += static_cast<size_t>(n);
  }
}

void scalars(formats::EventWriter& events, const std::string& tag, int64_t step, const Json& value) {
  if (value.is_number()) events.scalar(tag, step, value.get<double>());
  else if (value.is_array())
    for (size_t i = 0; i < value.size(); ++i) scalars(events, str(tag, "/", i), step, value[i]);
  else if (value.is_object())
    for (const auto& [key, inner] : value.items()) scalars(events, tag + "/" + key, step, inner);
}

}  // namespace

Metrics::Metrics(const std::string& run, int64_t step) : path_(join_path(run, "metrics.jsonl")), events_(run, step) {
  if (exists(path_)) step > 0 ? truncate_metrics(path_, step) : remove_all(path_);  // a run that was killed before its first checkpoint begins anew
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw UserError({path_, "", str("cannot open: ", std::strerror(errno)), "", ""});
}

Metrics::~Metrics() { ::close(fd_); }

void Metrics::write(const Json& line) {
  append(fd_, path_, line.dump() + "\n");
  const std::string type = line.at("type");
  const int64_t step = line.at("step");
  for (const auto& [key, value] : line.items())
    if (key != "step") scalars(events_, type + "/" + key, step, value);
  if (type == "warning") events_.text("warning", step, line.at("text").get<std::string>());
  events_.flush();  // a line is some hundred bytes every few seconds, and whoever watches wants it now
}

void Metrics::histogram(const std::string& tag, int64_t step, std::span<const float> values) { events_.histogram(tag, step, values); }

void Metrics::flush() {
  events_.flush();
  if (::fsync(fd_) != 0 && errno != EINVAL) throw UserError({path_, "", str("cannot sync: ", std::strerror(errno)), "", ""});
}

void truncate_metrics(const std::string& path, int64_t step) {
  const std::string text = read_file(path, limits::kMetricsBytes);
  std::string kept;
  size_t begin = 0, number = 0;
  while (begin < text.size()) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    const Json json = parse_json(line, str(path, ":", ++number));
    const Fields fields(json, str(path, ":", number));
    // What is said at the end of a run is said again when the end is reached again.
    if (fields.integer("step", 0, limits::kSteps) <= step && fields.string("type") != "final") kept += line + "\n";
  }
  if (kept.size() != text.size()) atomic_write(path, kept);
}

}  // namespace fathom::train
