#include "formats/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "core/error.h"
#include "core/file.h"

namespace fathom::formats {
namespace {

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (c & 1 ? 0x82f63b78u : 0);  // Castagnoli, reflected
    table[i] = c;
  }
  return table;
}();

// TFRecord's mask: a CRC of data that holds CRCs is weak.
uint32_t masked_crc(std::string_view bytes) {
  const uint32_t c = crc32c(bytes);
  return std::rotr(c, 15) + 0xa282ead8u;
}

// ---- Protocol buffers: a tag is field * 8 + wire type (0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes).

void put_varint(std::string& out, uint64_t v) {
  for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
  out += static_cast<char>(v);
}
template <class T>
void put_raw(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void put_integer(std::string& out, int field, int64_t v) {
  put_varint(out, static_cast<uint64_t>(field) * 8);
  put_varint(out, static_cast<uint64_t>(v));
}
void put_float(std::string& out, int field, float v) {
  put_varint(out, static_cast<uint64_t>(field) * 8 + 5);
  put_raw(out, v);
}
void put_double(std::string& out, int field, double v) {
  put_varint(out, static_cast<uint64_t>(field) * 8 + 1);
  put_raw(out, v);
}
void put_bytes(std::string& out, int field, std::string_view v) {
  put_varint(out, static_cast<uint64_t>(field) * 8 + 2);
  put_varint(out, v.size());
  out += v;
}
void put_doubles(std::string& out, int field, const std::vector<double>& v) {
  put_bytes(out, field, {reinterpret_cast<const char*>(v.data()), v.size() * sizeof(double)});
}

// Field numbers of tensorboard/compat/proto: event.proto, summary.proto, histogram.proto, tensor.proto.
enum EventField { kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7 };
enum ValueField { kTag = 1, kSimpleValue = 2, kHistogram = 5, kTensor = 8, kMetadata = 9 };
constexpr int kSessionStart = 1, kDtString = 7;
constexpr size_t kBufferBytes = 1 << 16;

// The upper edges of TensorFlow's default buckets: 1e-12 · 1.1^k up to 1e20, mirrored around 0.
const std::vector<double>& bucket_edges() {
  static const std::vector<double> edges = [] {
    std::vector<double> up;
    for (double v = 1e-12; v < 1e20; v *= 1.1) up.push_back(v);
    std::vector<double> all;
    for (auto it = up.rbegin(); it != up.rend(); ++it) all.push_back(-*it);
    all.push_back(0);
    all.insert(all.end(), up.begin(), up.end());
    all.push_back(1.7976931348623157e308);
    return all;
  }();
  return edges;
}

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0 || !name[0]) return "host";
  std::string out = name;
  std::replace_if(out.begin(), out.end(), [](char c) { return c == '/' || c == '.'; }, '-');
  return out;
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t c = 0xffffffffu;
  for (char b : bytes) c = (c >> 8) ^ kCrcTable[(c ^ static_cast<unsigned char>(b)) & 0xff];
  return ~c;
}

EventWriter::EventWriter(const std::string& folder, int64_t start_step) {
  static std::atomic<int> counter{0};
  make_folders(folder);
  // TensorBoard reads a run's files in the order of their names, which begin with the time: be later than all others.
  const std::string prefix = "events.out.tfevents.";
  int64_t seconds = static_cast<int64_t>(now());
  for (const std::string& name : list_folder(folder))
    if (name.starts_with(prefix)) seconds = std::max<int64_t>(seconds, std::strtoll(name.c_str() + prefix.size(), nullptr, 10) + 1);
  char time[24];
  std::snprintf(time, sizeof time, "%010lld", static_cast<long long>(seconds));
  path_ = join_path(folder, str(prefix, time, ".", host_name(), ".", ::getpid(), ".", counter++));
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0) throw UserError({path_, str("cannot create: ", std::strerror(errno)), "", "", ""});
  event(0, kFileVersion, "brain.Event:2");
  // The first START of a run does nothing; each later one drops what earlier files hold from its step on.
  std::string log;
  put_integer(log, 1, kSessionStart);
  event(start_step, kSessionLog, log);
  flush();
}

EventWriter::~EventWriter() {
  try {
    flush();
  } catch (const UserError&) {
  }
  ::close(fd_);
}

void EventWriter::record(std::string_view data) {
  std::string length;
  put_raw(length, static_cast<uint64_t>(data.size()));
  buffer_ += length;
  put_raw(buffer_, masked_crc(length));
  buffer_ += data;
  put_raw(buffer_, masked_crc(data));
  if (buffer_.size() >= kBufferBytes) flush();
}

void EventWriter::event(int64_t step, int field, std::string_view payload) {
  std::string e;
  put_double(e, kWallTime, time_ > 0 ? time_ : now());
  put_integer(e, kStep, step);
  put_bytes(e, field, payload);
  record(e);
}

namespace {

std::string summary_of(std::string_view tag, const std::string& rest) {
  std::string value, summary;
  put_bytes(value, kTag, tag);
  value += rest;
  put_bytes(summary, 1, value);
  return summary;
}

}  // namespace

void EventWriter::scalar(std::string_view tag, int64_t step, double value) {
  std::string v;
  put_float(v, kSimpleValue, static_cast<float>(value));
  event(step, kSummary, summary_of(tag, v));
}

void EventWriter::histogram(std::string_view tag, int64_t step, std::span<const float> values) {
  const std::vector<double>& edges = bucket_edges();
  std::map<size_t, double> counts;
  double low = INFINITY, high = -INFINITY, sum = 0, squares = 0, n = 0;
  for (const float f : values) {
    if (!std::isfinite(f)) continue;
    const double v = f;
    counts[static_cast<size_t>(std::lower_bound(edges.begin(), edges.end(), v) - edges.begin())] += 1;
    low = std::min(low, v), high = std::max(high, v);
    sum += v, squares += v * v, n += 1;
  }
  if (n == 0) low = high = 0;
  std::vector<double> limit, bucket;
  for (const auto& [i, count] : counts) {
    // An empty bucket says where the first one of a run begins.
    if (i > 0 && (limit.empty() || limit.back() != edges[i - 1])) limit.push_back(edges[i - 1]), bucket.push_back(0);
    limit.push_back(edges[i]), bucket.push_back(count);
  }
  if (limit.empty()) limit.push_back(0), bucket.push_back(0);
  std::string h, v;
  const double figures[] = {low, high, n, sum, squares};
  for (int i = 0; i < 5; ++i) put_double(h, i + 1, figures[i]);
  put_doubles(h, 6, limit);
  put_doubles(h, 7, bucket);
  put_bytes(v, kHistogram, h);
  event(step, kSummary, summary_of(tag, v));
}

void EventWriter::text(std::string_view tag, int64_t step, std::string_view markdown) {
  std::string dimension, shape, tensor, plugin, metadata, v;
  put_integer(dimension, 1, 1);
  put_bytes(shape, 2, dimension);
  put_integer(tensor, 1, kDtString);
  put_bytes(tensor, 2, shape);
  put_bytes(tensor, 8, markdown);
  put_bytes(plugin, 1, "text");
  put_bytes(metadata, 1, plugin);
  put_bytes(v, kTensor, tensor);
  put_bytes(v, kMetadata, metadata);
  event(step, kSummary, summary_of(tag, v));
}

void EventWriter::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      buffer_.erase(0, done);
      throw UserError({path_, str("cannot write: ", std::strerror(error)), "", "", error == ENOSPC ? "free some space and try again" : ""});
    }
    done += static_cast<size_t>(n);
  }
  buffer_.clear();
}

}  // namespace fathom::formats
