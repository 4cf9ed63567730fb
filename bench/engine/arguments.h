// Lists of whole numbers on a benchmark's command line.
#pragma once
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"

namespace fathom::bench {

inline std::vector<int64_t> numbers(const std::string& flag, const std::string& text, size_t count) {
  std::vector<int64_t> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    try {
      out.push_back(std::stoll(part));
    } catch (const std::exception&) {
      throw UsageError({flag, "", "\"" + printable(part) + "\"", "whole numbers", ""});
    }
    if (out.back() < 1 || out.back() > (1 << 24)) throw UsageError({flag, "", str(out.back()), "1 to 16777216", ""});
  }
  if (out.empty() || (count && out.size() != count)) throw UsageError({flag, "", str(out.size(), " numbers"), str(count ? count : 1), ""});
  return out;
}

}  // namespace fathom::bench
