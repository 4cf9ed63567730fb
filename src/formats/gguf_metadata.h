// The metadata of a GGUF file: typed values under keys such as "llama.block_count". Strings and arrays are views into the
// file, which must outlive this object: a vocabulary of 150,000 tokens is read without a copy. The typed getters hold a value
// against its bounds and throw a UserError that names file, key, what was found and what is expected.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/gguf_cursor.h"

namespace fathom::formats {

enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };  // the file's numbers

const char* gguf_type_name(GgufType type);  // "u8"

struct GgufValue {
  std::string_view key;
  GgufType type = GgufType::u8;            // of an array: that of its elements, never `array` (nested arrays are refused)
  bool is_array = false;
  int64_t count = 1;                       // elements of an array, 1 of a single value
  std::span<const std::byte> bytes;        // numbers and booleans, little-endian and not aligned; empty for strings
  std::vector<std::string_view> strings;   // any bytes; UTF-8 by the format's word only

  // Element i as a whole number; nothing when the type is no integer or an i64 cannot hold it.
  std::optional<int64_t> integer(int64_t i = 0) const;
  // Element i as a number of any type but boolean and string; nothing for those.
  std::optional<double> number(int64_t i = 0) const;
  // For messages: `the string "abc"`, `the u32 7`, `an array of 3 of type string`.
  std::string text() const;
  std::string text(int64_t i) const;       // element i
};

class GgufMetadata {
 public:
  GgufMetadata() = default;
  // Reads `count` entries; the cursor stands behind them afterwards.
  GgufMetadata(GgufCursor& cursor, uint64_t count);

  const std::vector<GgufValue>& values() const { return values_; }  // in the order of the file
  const GgufValue* find(std::string_view key) const;                // nullptr when there is none
  bool has(std::string_view key) const { return find(key) != nullptr; }

  // With a fallback the key may be absent; a value of another type or past its bounds is an error all the same. An integer
  // may have any of the eight integer types, a number also f32 and f64, and must be finite.
  int64_t integer(std::string_view key, int64_t low, int64_t high, std::optional<int64_t> fallback = {}) const;
  double number(std::string_view key, double low, double high, std::optional<double> fallback = {}) const;
  bool boolean(std::string_view key, std::optional<bool> fallback = {}) const;
  std::string string(std::string_view key, std::optional<std::string> fallback = {}) const;

  // Arrays; an absent key is an error (ask has() where it may be).
  const std::vector<std::string_view>& strings(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key, int64_t low, int64_t high) const;
  std::vector<float> floats(std::string_view key) const;  // of type f32 or f64, NaN and infinity as they stand
  std::vector<bool> booleans(std::string_view key) const;

  [[noreturn]] void wrong(std::string_view key, const std::string& found, const std::string& expected, const std::string& hint = "") const;

 private:
  const GgufValue* value(std::string_view key, bool optional, bool array, const std::string& expected) const;

  std::string where_;
  std::vector<GgufValue> values_;
  std::unordered_map<std::string_view, size_t> by_key_;
};

}  // namespace fathom::formats
