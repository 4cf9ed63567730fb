// Pieces that the pages share: the colours of depth (one scale by lightness for the light theme, one for the dark, so
// that both read without colour vision), text in depth colours, and the map of tokens × blocks.
#pragma once
#include <string>
#include <vector>

#include "study/depth.h"

namespace fathom::study {

const std::string& depth_style();   // CSS for HtmlPage::style
const std::string& depth_script();  // JavaScript for HtmlPage::script: says which blocks the token under the pointer ran

// Step 0 to 6 of the scale: 0 is `least` (only the blocks that everybody runs), 6 is `most`.
int depth_step(double depth, int64_t least, int64_t most);

std::string depth_legend(int64_t least, int64_t most);
// Running text, every token on the colour of its depth; the first `given` are marked as the prompt.
std::string token_text(const std::vector<TokenView>& tokens, int64_t least, int64_t most, size_t given = 0);
// Running text with a column under every token: a cell per block from the first (top) to the last (bottom), filled
// where the token ran it, half as dark where it took its light path; a block whose attention and MLP are decided apart has a cell
// for each. Beyond 24 blocks only the routed ones are drawn.
std::string token_map(const std::vector<TokenView>& tokens, const std::vector<routing::RoutedUnit>& routed, int64_t least, int64_t most, int64_t blocks);

// One token as a chip.
std::string token_chip(const std::string& text, double depth, int64_t least, int64_t most, const std::string& title);

}  // namespace fathom::study
