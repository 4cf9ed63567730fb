// Standard output as results are written to it: buffered, errors noticed (a full disk is a failure; a reader that has
// closed its end, as `| head` does, ends the program quietly), and colours only where a person sees them.
#pragma once
#include <string>
#include <string_view>

#include "core/json.h"

namespace fathom::cli {

// The reader of standard output has gone; run_program ends with 0 and says nothing.
struct OutputClosed {};

void out(std::string_view text);      // buffered
void out_flush();                     // throws UserError or OutputClosed
void out_json(const Json& value);     // one pretty-printed document and a newline

enum class Colour { automatic, always, never };
void set_colour(Colour colour);
bool use_colour();    // on standard output: --color, then NO_COLOR, then whether it is a terminal
bool stdout_is_terminal();
size_t terminal_width();  // columns of the terminal, 100 when there is none

// A table with aligned columns: the first to the left, the others to the right. Rows may differ in length.
std::string text_table(const std::vector<std::vector<std::string>>& rows, size_t left_columns = 1);

}  // namespace fathom::cli
