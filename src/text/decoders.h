// The decoder of a tokenizer.json: token texts back to text. Each decoder is a filter that takes pieces one by one and
// passes on what is certain, so decoding a whole list and decoding a stream are the same code.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/pattern.h"

namespace fathom::text {

class DecoderStream;

class Decoder {
 public:
  Decoder() = default;  // tokens are joined by spaces
  // `json` may be null. Throws UserError.
  Decoder(const Json& json, const std::string& where, const std::string& path);

  std::unique_ptr<DecoderStream> stream() const;

  // The bytes that one token stands for in the middle of a text.
  std::string token_bytes(std::string_view token) const;

 private:
  friend class DecoderStream;
  enum class Kind : uint8_t { byte_level, byte_fallback, fuse, replace, strip, metaspace, join };
  struct Step {
    Kind kind;
    std::optional<Pattern> pattern;  // replace
    std::string content;             // replace, strip, metaspace: the character
    int64_t start = 0, stop = 0;     // strip
    bool drop_first = false;         // metaspace: the first token loses its own
  };
  void add(const Json& json, const std::string& where, const std::string& path, int depth);
  bool joined_by_spaces_ = true;
  std::vector<Step> steps_;
};

// One run of the decoder. The Decoder outlives it.
class DecoderStream {
 public:
  explicit DecoderStream(const Decoder& decoder);
  ~DecoderStream();
  void push(std::string_view token, std::string& out);  // appends what is certain now
  void finish(std::string& out);                        // appends the rest; then the stream is as new

 private:
  class Filter;
  class Filters;
  std::vector<std::unique_ptr<Filter>> filters_;
};

}  // namespace fathom::text
