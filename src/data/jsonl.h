// One string field of a JSON object, without building the object: lines may be long and hold anything else.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace fathom::data {

// The string at the top-level key `field` of the object in `line` (valid UTF-8). UserError names file and line.
std::string jsonl_field(std::string_view line, const std::string& field, const std::string& path, int64_t line_number);

}  // namespace fathom::data
