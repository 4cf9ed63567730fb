// Text out of ids, one by one, cut before the first stop string: what may still become one is held back. Every byte keeps
// the token that it came with.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace fathom::infer {

struct TextPart {
  size_t token = 0;  // of the tokens that were pushed the one that these bytes are of; a character is of the one that completes it
  std::string text;
};
using TextParts = std::vector<TextPart>;
std::string text_of(const TextParts& parts);

class StopText {
 public:
  // The text goes on from `before`, which has been shown: its ids are no part of it.
  StopText(const text::Tokenizer& tokenizer, std::vector<std::string> stop, std::span<const int32_t> before = {});
  TextParts push(int32_t id);  // text that is certain now
  TextParts finish();
  bool stopped() const { return stopped_; }  // a stop string was met: nothing follows

 private:
  void own(const std::string& more, size_t token);
  TextParts take(const std::string& more, bool last);
  TextParts release(size_t bytes);
  struct Piece {
    size_t token, bytes;
  };
  struct Waiting {
    size_t token;
    std::string bytes;
  };
  text::Tokenizer tokenizer_;
  text::StreamDecoder decoder_;
  std::vector<std::string> stop_;
  std::string held_;
  std::vector<Piece> pieces_;     // of held_, in order
  std::vector<Waiting> waiting_;  // tokens whose bytes the decoder holds back
  size_t pushed_ = 0;
  bool stopped_ = false;
};

}  // namespace fathom::infer
