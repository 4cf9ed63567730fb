#include "cli/depth_colours.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "core/utf8.h"

namespace fathom::cli {
namespace {

// Colours of the 256 palette: background, letters. Contrast of letters on background is at least 5.6.
constexpr std::array<const char*, 7> kRamp = {"",
                                              "\x1b[48;5;195;38;5;16m",
                                              "\x1b[48;5;153;38;5;16m",
                                              "\x1b[48;5;111;38;5;16m",
                                              "\x1b[48;5;69;38;5;16m",
                                              "\x1b[48;5;26;38;5;231m",
                                              "\x1b[48;5;18;38;5;231m"};
constexpr const char* kReset = "\x1b[0m";

const char* colour_of(int64_t depth, DepthRange range) {
  if (range.most <= range.least) return kRamp[0];
  const double share = static_cast<double>(depth - range.least) / static_cast<double>(range.most - range.least);
  return kRamp[static_cast<size_t>(std::lround(std::clamp(share, 0.0, 1.0) * (kRamp.size() - 1)))];
}

}  // namespace

std::string terminal_safe(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    char32_t point = 0;
    const size_t n = utf8_decode(text.substr(i), point);
    if (n == 0) {
      out += "\xef\xbf\xbd";
      i += 1;
      continue;
    }
    if ((point < 0x20 && point != '\n' && point != '\t') || point == 0x7f) utf8_append(out, point == 0x7f ? U'\u2421' : U'\u2400' + point);
    else if (point >= 0x80 && point < 0xa0) out += "\xef\xbf\xbd";  // C1: some terminals obey them
    else out.append(text.substr(i, n));
    i += n;
  }
  return out;
}

std::string in_depth_colour(std::string_view text, int64_t depth, DepthRange range) {
  const std::string colour = colour_of(depth, range), safe = terminal_safe(text);
  if (colour.empty()) return safe;
  std::string out;
  // The background must end before a new line, or the terminal fills the rest of the line with it.
  for (size_t begin = 0; begin <= safe.size();) {
    const size_t end = std::min(safe.find('\n', begin), safe.size());
    if (end > begin) out += colour + safe.substr(begin, end - begin) + kReset;
    if (end < safe.size()) out += '\n';
    begin = end + 1;
  }
  return out;
}

std::string depth_legend(DepthRange range) {
  std::string line = "depth ";
  for (int64_t d = range.least; d <= range.most; ++d) line += in_depth_colour(str(" ", d, " "), d, range);
  return line + " blocks run in full";
}

}  // namespace fathom::cli
