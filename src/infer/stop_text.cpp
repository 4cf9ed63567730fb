#include "infer/stop_text.h"

#include <algorithm>
#include <string_view>

#include "core/utf8.h"

namespace fathom::infer {

std::string text_of(const TextParts& parts) {
  std::string text;
  for (const TextPart& part : parts) text += part.text;
  return text;
}

StopText::StopText(const text::Tokenizer& tokenizer, std::vector<std::string> stop, std::span<const int32_t> before)
    : tokenizer_(tokenizer), decoder_(tokenizer), stop_(std::move(stop)) {
  decoder_.begin_after(before);
}

TextParts StopText::push(int32_t id) {
  const std::string more = decoder_.push(id);
  const size_t token = pushed_++;
  if (more.empty()) waiting_.push_back({token, tokenizer_.is_special(id) ? "" : tokenizer_.token_bytes(id)});
  else own(more, token);
  return take(more, false);
}

TextParts StopText::finish() {
  const std::string more = decoder_.finish();
  if (!more.empty()) own(more, pushed_ > 0 ? pushed_ - 1 : 0);
  return take(more, true);
}

// `more` is of `token`, but for its beginning where the decoder had held that back: half a character, or a run of byte tokens,
// which it holds to the run's end.
void StopText::own(const std::string& more, size_t token) {
  std::string bytes;
  for (const Waiting& w : waiting_) bytes += w.bytes;
  size_t done = 0, end = 0;
  if (more.starts_with(bytes))
    for (const Waiting& w : waiting_) {
      end += w.bytes.size();
      const size_t whole = end - utf8_incomplete_tail(std::string_view(more).substr(0, end));
      if (whole > done) pieces_.push_back({w.token, whole - done});
      done = std::max(done, whole);
    }
  if (more.size() > done) pieces_.push_back({token, more.size() - done});
  waiting_.clear();
}

TextParts StopText::take(const std::string& more, bool last) {
  if (stopped_) return {};
  held_ += more;
  size_t cut = std::string::npos;
  for (const std::string& stop : stop_) cut = std::min(cut, held_.find(stop));
  if (cut != std::string::npos) {
    stopped_ = true;
    return release(cut);
  }
  // The longest end of the text that begins a stop string.
  size_t keep = 0;
  if (!last)
    for (const std::string& stop : stop_)
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n)
        if (std::string_view(held_).substr(held_.size() - n) == std::string_view(stop).substr(0, n)) keep = n;
  return release(held_.size() - keep);
}

TextParts StopText::release(size_t bytes) {
  TextParts out;
  size_t done = 0, piece = 0;
  for (; done < bytes; ++piece) {
    const size_t n = std::min(pieces_[piece].bytes, bytes - done);
    out.push_back({pieces_[piece].token, held_.substr(done, n)});
    pieces_[piece].bytes -= n;
    done += n;
    if (pieces_[piece].bytes > 0) break;
  }
  pieces_.erase(pieces_.begin(), pieces_.begin() + static_cast<std::ptrdiff_t>(piece));
  held_.erase(0, bytes);
  return out;
}

}  // namespace fathom::infer
