// Runs a parsed template.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_syntax.h"

namespace fathom::text::jinja {

using Variables = std::vector<std::pair<std::string, Value>>;

std::string render(const Body& body, Variables globals, Context& context);

}  // namespace fathom::text::jinja
