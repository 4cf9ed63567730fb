#include <cmath>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "data/documents.h"

namespace fathom::data {

Split split_by_hash(std::string_view text, double share) {
  // The upper 53 bits as a number in [0, 1), with a seed of our own so that the split is independent of other hashes.
  const uint64_t h = XXH3_64bits_withSeed(text.data(), text.size(), 0x66617468'6f6d0001ULL);
  return static_cast<double>(h >> 11) * 0x1.0p-53 < share ? Split::validation : Split::train;
}

size_t split_tail(std::string_view text, double share) {
  const auto tail = static_cast<size_t>(std::ceil(static_cast<double>(text.size()) * share));
  if (tail == 0 || tail >= text.size()) return text.size();
  const size_t wanted = text.size() - tail;
  const size_t feed = text.find('\n', wanted - 1);
  // A line that is longer than the tail is cut inside, at a character.
  if (feed != std::string_view::npos && feed + 1 < text.size() && feed + 1 - wanted <= tail / 2) return feed + 1;
  size_t cut = wanted;
  while (cut < text.size() && (static_cast<unsigned char>(text[cut]) & 0xc0) == 0x80) ++cut;
  return cut;
}

}  // namespace fathom::data
