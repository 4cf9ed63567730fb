#include "text/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/utf8.h"
#include "text/unicode.h"

namespace fathom::text {
namespace {

// Start of the character that ends at `end`.
size_t char_before(std::string_view text, size_t end, char32_t& c) {
  size_t start = end - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
  if (utf8_decode(text.substr(start, end - start), c) == 0) c = 0xfffd;
  return start;
}

}  // namespace

void AddedTokenFinder::add(const AddedToken& token, const std::string& pattern) {
  FATHOM_ASSERT(!pattern.empty(), "an added token needs a text");
  int32_t node = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const auto byte = static_cast<uint8_t>(pattern[i]);
    int32_t to = 0;
    if (i == 0) {
      to = first_[byte];
    } else {
      auto& edges = nodes_[static_cast<size_t>(node)].next;
      const auto it = std::lower_bound(edges.begin(), edges.end(), std::pair<uint8_t, int32_t>{byte, 0});
      if (it != edges.end() && it->first == byte) to = it->second;
    }
    if (to == 0) {
      to = static_cast<int32_t>(nodes_.size());
      nodes_.emplace_back();
      if (i == 0) {
        first_[byte] = to;
        only_first_ = only_first_ == -1 || only_first_ == byte ? byte : -2;
      } else {
        auto& edges = nodes_[static_cast<size_t>(node)].next;
        edges.insert(std::lower_bound(edges.begin(), edges.end(), std::pair<uint8_t, int32_t>{byte, 0}), {byte, to});
      }
    }
    node = to;
  }
  nodes_[static_cast<size_t>(node)].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

bool AddedTokenFinder::find(std::string_view input, size_t from, Found& found) const {
  if (tokens_.empty()) return false;
  for (size_t at = from; at < input.size(); ++at) {
    if (only_first_ >= 0) {
      const void* hit = std::memchr(input.data() + at, only_first_, input.size() - at);
      if (!hit) return false;
      at = static_cast<size_t>(static_cast<const char*>(hit) - input.data());
    }
    int32_t node = first_[static_cast<uint8_t>(input[at])];
    if (node == 0) continue;
    int32_t best = -1;
    size_t best_end = 0;
    for (size_t i = at + 1;; ++i) {
      const Node& n = nodes_[static_cast<size_t>(node)];
      if (n.token >= 0) best = n.token, best_end = i;
      if (i == input.size()) break;
      const auto byte = static_cast<uint8_t>(input[i]);
      const auto it = std::lower_bound(n.next.begin(), n.next.end(), std::pair<uint8_t, int32_t>{byte, 0});
      if (it == n.next.end() || it->first != byte) break;
      node = it->second;
    }
    if (best >= 0) {
      found = {at, best_end, &tokens_[static_cast<size_t>(best)]};
      return true;
    }
  }
  return false;
}

bool AddedTokenFinder::accept(std::string_view input, bool allow_special, size_t done, SpaceRun& spaces, Found& f) const {
  const AddedToken& t = *f.token;
  if (t.special && !allow_special) return false;
  char32_t c = 0;
  if (t.single_word) {
    if (f.begin > 0 && (char_before(input, f.begin, c), is_word_char(c))) return false;
    if (f.end < input.size() && utf8_decode(input.substr(f.end), c) > 0 && is_word_char(c)) return false;
  }
  if (t.lstrip) {
    size_t begin = f.begin;
    while (begin > done) {
      const size_t before = char_before(input, begin, c);
      if (!is_space(c)) break;
      begin = before;
    }
    f.begin = std::max(begin, done);
  }
  if (t.rstrip) {
    if (f.end >= spaces.begin && f.end < spaces.end) {
      f.end = spaces.end;
      return true;
    }
    spaces.begin = f.end;
    while (f.end < input.size()) {
      const size_t length = utf8_decode(input.substr(f.end), c);
      if (length == 0 || !is_space(c)) break;
      f.end += length;
    }
    spaces.end = f.end;
  }
  return true;
}

}  // namespace fathom::text
