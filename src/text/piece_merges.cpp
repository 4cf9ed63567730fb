#include "text/piece_merges.h"

#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "core/limits.h"
#include "core/utf8.h"

namespace fathom::text {
namespace {

struct Merge {
  float score;
  uint16_t left_length, right_length;  // in characters; a piece has at most kPieceBytes
  int32_t left, right;
};

}  // namespace

std::vector<std::pair<int32_t, int32_t>> merges_of_scores(std::span<const std::string_view> pieces, std::span<const float> scores,
                                                          const std::vector<bool>& takes_part, const std::string& where) {
  static_assert(limits::kPieceBytes <= UINT16_MAX);
  std::unordered_map<std::string_view, int32_t> ids;
  ids.reserve(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i)
    if (takes_part[i]) ids.emplace(pieces[i], static_cast<int32_t>(i));

  std::vector<Merge> merges;
  std::vector<Merge> of_piece;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (!takes_part[i]) continue;
    const std::string_view piece = pieces[i];
    if (static_cast<int64_t>(piece.size()) > limits::kPieceBytes)  // every cut of it is looked up
      throw UserError({where, str("tokenizer.ggml.tokens[", i, "]"), str("a piece of ", piece.size(), " bytes"), str("at most ", limits::kPieceBytes), ""});
    size_t length = 0;
    for (size_t at = 0; at < piece.size(); at += utf8_length(piece.substr(at))) ++length;
    of_piece.clear();
    size_t at = utf8_length(piece);
    for (size_t k = 1; k < length; ++k) {
      const auto left = ids.find(piece.substr(0, at)), right = left == ids.end() ? left : ids.find(piece.substr(at));
      if (right != ids.end()) of_piece.push_back({scores[i], static_cast<uint16_t>(k), static_cast<uint16_t>(length - k), left->second, right->second});
      at += utf8_length(piece.substr(at));
    }
    std::sort(of_piece.begin(), of_piece.end(), [](const Merge& a, const Merge& b) { return a.left != b.left ? a.left < b.left : a.right < b.right; });
    merges.insert(merges.end(), of_piece.begin(), of_piece.end());
    if (static_cast<int64_t>(merges.size()) > limits::kMerges)
      throw UserError({where, "tokenizer.ggml.tokens", str("pieces that give more than ", limits::kMerges, " merges"), "fewer", ""});
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.left_length != b.left_length ? a.left_length > b.left_length : a.right_length > b.right_length;
  });
  std::vector<std::pair<int32_t, int32_t>> out;
  out.reserve(merges.size());
  for (const Merge& m : merges) out.emplace_back(m.left, m.right);
  return out;
}

}  // namespace fathom::text
