// Tokens in the colour of their depth on a terminal: plain for the shallowest, then pale to dark blue. Background and
// letters are both set, so that it reads alike on light and dark terminals and by lightness alone.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace fathom::cli {

struct DepthRange {
  int64_t least = 0, most = 0;  // blocks that every token runs in full, that a token may run in full
};

// `text` between colour sequences; control characters that would steer the terminal become visible.
std::string in_depth_colour(std::string_view text, int64_t depth, DepthRange range);
std::string depth_legend(DepthRange range);  // one line
std::string terminal_safe(std::string_view text);

}  // namespace fathom::cli
