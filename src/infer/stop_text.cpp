#include "infer/stop_text.h"

#include <algorithm>
#include <string_view>

namespace fathom::infer {

std::string StopText::take(const std::string& more, bool last) {
  if (stopped_) return "";
  held_ += more;
  size_t cut = std::string::npos;
  for (const std::string& stop : stop_) cut = std::min(cut, held_.find(stop));
  if (cut != std::string::npos) {
    stopped_ = true;
    return held_.substr(0, cut);
  }
  // The longest end of the text that begins a stop string.
  size_t keep = 0;
  if (!last)
    for (const std::string& stop : stop_)
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n)
        if (std::string_view(held_).substr(held_.size() - n) == std::string_view(stop).substr(0, n)) keep = n;
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

}  // namespace fathom::infer
