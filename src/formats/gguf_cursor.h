// Reads the numbers and strings of a GGUF header one after the other and never past the end of the file: every length is
// held against its cap and against the bytes that remain before anything is made of it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace fathom::formats {

class GgufCursor {
 public:
  GgufCursor(std::span<const std::byte> file, std::string where) : file_(file), where_(std::move(where)) {}

  // What is being read, for errors: a key or a tensor, and the element of an array (-1 = none).
  void at(std::string field) { field_ = std::move(field), element_ = -1; }
  void element(int64_t i) { element_ = i; }

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return file_.size() - offset_; }
  const std::string& where() const { return where_; }

  std::span<const std::byte> bytes(uint64_t count, const char* what) {
    if (count > left()) fail(str(left(), " bytes before the end of the file"), str(count, " bytes of ", what, " at byte ", offset_), kCut);
    const auto out = file_.subspan(offset_, count);
    offset_ += count;
    return out;
  }

  template <class T>
  T number(const char* what) {
    T value;
    std::memcpy(&value, bytes(sizeof value, what).data(), sizeof value);
    return value;
  }

  std::string_view string(const char* what, int64_t cap) {
    const uint64_t length = number<uint64_t>("a string's length");
    if (length > static_cast<uint64_t>(cap)) fail(str(what, " of ", length, " bytes"), str("at most ", cap));
    const auto text = bytes(length, what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  [[noreturn]] void fail(const std::string& found, const std::string& expected, const std::string& hint = "") const {
    throw UserError({where_, element_ < 0 ? field_ : str(field_, "[", element_, "]"), found, expected, hint});
  }

  static constexpr const char* kCut = "the file is cut off or damaged";

 private:
  std::span<const std::byte> file_;
  std::string where_, field_;
  int64_t element_ = -1;
  uint64_t offset_ = 0;
};

}  // namespace fathom::formats
