#include "core/human.h"

#include <cmath>
#include <cstdio>

namespace fathom {
namespace {

std::string format(const char* pattern, double value) {
  char out[64];
  std::snprintf(out, sizeof out, pattern, value);
  return out;
}

}  // namespace

std::string human_count(double n) {
  const char* suffix[] = {"", "k", "M", "G", "T", "P", "E"};
  int i = 0;
  while (std::abs(n) >= 999.5 && i < 6) n /= 1000, ++i;
  if (i == 0) return format("%.0f", n);
  return format(std::abs(n) < 9.995 ? "%.2f" : std::abs(n) < 99.95 ? "%.1f" : "%.0f", n) + suffix[i];
}

std::string human_bytes(double n) {
  const char* suffix[] = {" B", " KB", " MB", " GB", " TB", " PB"};
  int i = 0;
  while (std::abs(n) >= 999.5 && i < 5) n /= 1000, ++i;
  return format(i == 0 || std::abs(n) >= 99.95 ? "%.0f" : "%.1f", n) + suffix[i];
}

std::string human_duration(double s) {
  if (!(s >= 0) || s > 1e9) return "?";
  if (s < 1) return format("%.0f ms", s * 1000);
  if (s < 60) return format("%.1f s", s);
  const int64_t t = static_cast<int64_t>(s + 0.5);
  char out[32];
  if (t < 3600) std::snprintf(out, sizeof out, "%dm%02ds", static_cast<int>(t / 60), static_cast<int>(t % 60));
  else std::snprintf(out, sizeof out, "%lldh%02dm", static_cast<long long>(t / 3600), static_cast<int>(t / 60 % 60));
  return out;
}

std::string fixed(double x, int digits) {
  if (!std::isfinite(x)) return "–";
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, x);
  return text;
}

std::string percent(double share, int digits) { return std::isfinite(share) ? fixed(100 * share, digits) + " %" : "–"; }

std::string grouped(int64_t n) {
  std::string text = std::to_string(n);
  for (std::ptrdiff_t i = static_cast<std::ptrdiff_t>(text.size()) - 3; i > (n < 0 ? 1 : 0); i -= 3) text.insert(static_cast<size_t>(i), ",");
  return text;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

}  // namespace fathom
