// TensorBoard event files, written by hand: TFRecord frames (length, masked CRC-32C, data, masked CRC-32C) around Event
// protocol buffers with scalars, histograms and text. A run goes on in a new file of the same folder; starting at a step
// tells TensorBoard to forget what an interrupted run wrote past it.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace fathom::formats {

class EventWriter {
 public:
  // Creates `folder` when needed and in it events.out.tfevents.TIME.HOST.PID.N. `start_step` is the first step to come.
  explicit EventWriter(const std::string& folder, int64_t start_step = 0);
  ~EventWriter();  // flushes; an error there is lost, so call flush() where it matters
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  void scalar(std::string_view tag, int64_t step, double value);  // stored as f32; NaN is allowed
  void histogram(std::string_view tag, int64_t step, std::span<const float> values);  // what is not finite is left out
  void text(std::string_view tag, int64_t step, std::string_view markdown);
  void flush();

  const std::string& path() const { return path_; }
  // Seconds since the epoch that later events carry; 0 = the clock.
  void set_time(double seconds) { time_ = seconds; }

 private:
  void event(int64_t step, int field, std::string_view payload);
  void record(std::string_view data);
  std::string path_, buffer_;
  int fd_ = -1;
  double time_ = 0;
};

uint32_t crc32c(std::string_view bytes);

}  // namespace fathom::formats
