// Numbers as people read them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fathom {

std::string human_count(double n);                  // 1.23k, 45.6M, 7.89G
std::string human_bytes(double n);                  // 1.2 KB, 3.4 MB (powers of 1000)
std::string human_duration(double seconds);         // 850 ms, 12.3 s, 4m05s, 2h03m
std::string fixed(double x, int digits);            // 3.1416; "–" when x is not finite
std::string percent(double share, int digits = 1);  // 0.125 → "12.5 %"; "–" likewise
std::string grouped(int64_t n);                     // 1,234,567
std::string shape_text(const std::vector<int64_t>& shape);  // [2, 3]

}  // namespace fathom
