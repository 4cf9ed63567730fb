// Held-out text as the windows that are scored. A window holds at most `context` tokens of one document and begins from
// an empty cache; neighbours share one token, so that every token of a document but its first is predicted exactly once.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/documents.h"
#include "model/document_ends.h"
#include "text/tokenizer.h"

namespace fathom::study {

using model::DocumentEnds;
using model::document_ends;

struct Window {
  size_t document = 0;              // into HeldOut::documents
  int64_t begin = 0;                // its first token in the document
  size_t unit = 0;                  // see HeldOut::units
  std::span<const int32_t> tokens;  // at least 2
};

struct HeldOut {
  std::vector<std::vector<int32_t>> documents;  // with their begin and end tokens
  std::vector<Window> windows;                  // those to score, in order
  int64_t all_windows = 0;                      // how many the text has
  int64_t predicted = 0;                        // tokens that `windows` predict
  // What intervals are taken over: documents, or, when there are fewer than kFewDocuments, stretches of neighbouring
  // windows (at most kStretches). Neighbours are not independent, so such an interval is somewhat narrow.
  size_t units = 0;
  bool by_stretch = false;
  std::string name;                             // the inputs, for people
};

inline constexpr size_t kFewDocuments = 8, kStretches = 32;

struct HeldOutOptions {
  data::DocumentOptions documents;
  int64_t context = 256;   // tokens in a window, at least 2
  int64_t limit = 0;       // predicted tokens to stop at, windows spread evenly over all of the text; 0 = everything
  std::function<void(int64_t bytes, int64_t total)> progress;  // may throw to interrupt
};

// `inputs`: dataset folders (their validation split; `tokenizer` must be the one that made them) or files and folders of
// text, whose documents get `ends`. UserError when no document has two tokens, or when there are more than
// limits::kEvaluationTokens.
HeldOut load_held_out(const std::vector<std::string>& inputs, const text::Tokenizer& tokenizer, const DocumentEnds& ends, const HeldOutOptions& options);

// At most `limit` predicted tokens of these windows, spread evenly over them; all for 0.
std::vector<Window> spread_windows(const std::vector<Window>& all, int64_t limit);
int64_t predicted_tokens(const std::vector<Window>& windows);

// Takes every second window out of `text` and hands it back, so that thresholds come from other windows than losses; they point into the
// documents of `text`. UserError when it has one window only.
std::vector<Window> take_half(HeldOut& text);

// The windows of given documents (for tests, and for text that a command holds already).
HeldOut cut_windows(std::vector<std::vector<int32_t>> documents, int64_t context, int64_t limit = 0);

}  // namespace fathom::study
