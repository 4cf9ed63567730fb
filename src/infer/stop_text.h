// Text out of ids, one by one, cut before the first stop string: what may still become one is held back.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace fathom::infer {

class StopText {
 public:
  StopText(const text::Tokenizer& tokenizer, std::vector<std::string> stop) : decoder_(tokenizer), stop_(std::move(stop)) {}
  std::string push(int32_t id) { return take(decoder_.push(id), false); }  // text that is certain now
  std::string finish() { return stopped_ ? "" : take(decoder_.finish(), true); }
  bool stopped() const { return stopped_; }  // a stop string was met: nothing follows

 private:
  std::string take(const std::string& more, bool last);
  text::StreamDecoder decoder_;
  std::vector<std::string> stop_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace fathom::infer
