#include "formats/gguf_metadata.h"

#include <cmath>
#include <iterator>

#include "core/json.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "formats/safetensors_header.h"

namespace fathom::formats {
namespace {

struct TypeRow {
  const char* name;
  uint64_t bytes;  // 0 = has a length of its own
};
constexpr TypeRow kTypes[] = {{"u8", 1},      {"i8", 1},     {"u16", 2},   {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
                              {"boolean", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};

const TypeRow& row(GgufType type) { return kTypes[static_cast<size_t>(type)]; }

GgufType read_type(GgufCursor& cursor, const char* what) {
  const uint32_t number = cursor.number<uint32_t>(what);
  if (number >= std::size(kTypes)) cursor.fail(str(what, " ", number), str("a type from 0 (u8) to ", std::size(kTypes) - 1, " (f64)"), GgufCursor::kCut);
  return static_cast<GgufType>(number);
}

void read_array(GgufCursor& cursor, GgufValue& value) {
  value.is_array = true;
  value.type = read_type(cursor, "the type of an array's elements");
  if (value.type == GgufType::array) cursor.fail("an array of arrays", "an array of numbers, booleans or strings", "no known model needs one");
  const uint64_t count = cursor.number<uint64_t>("an array's length");
  if (count > static_cast<uint64_t>(limits::kGgufArrayElements))
    cursor.fail(str("an array of ", count, " elements"), str("at most ", limits::kGgufArrayElements));
  value.count = static_cast<int64_t>(count);
  // A string takes at least the 8 bytes of its length, so that this bounds the memory for their views as well.
  const uint64_t least = value.type == GgufType::string ? 8 : row(value.type).bytes;
  if (count > cursor.left() / least)
    cursor.fail(str("an array of ", count, " of type ", row(value.type).name), str("at most the ", cursor.left() / least, " that the rest of the file can hold"),
                GgufCursor::kCut);
  if (value.type != GgufType::string) {
    value.bytes = cursor.bytes(count * least, "an array");
    return;
  }
  value.strings.reserve(count);
  for (int64_t i = 0; i < value.count; ++i) {
    cursor.element(i);
    value.strings.push_back(cursor.string("a string", limits::kGgufStringBytes));
  }
}

void read_value(GgufCursor& cursor, GgufValue& value) {
  value.type = read_type(cursor, "a value of type");
  if (value.type == GgufType::array) read_array(cursor, value);
  else if (value.type == GgufType::string) value.strings = {cursor.string("a string", limits::kGgufStringBytes)};
  else value.bytes = cursor.bytes(row(value.type).bytes, "a value");
  if (value.type != GgufType::boolean) return;
  for (size_t i = 0; i < value.bytes.size(); ++i) {
    if (value.bytes[i] <= std::byte{1}) continue;
    if (value.is_array) cursor.element(static_cast<int64_t>(i));
    cursor.fail(str("the byte ", static_cast<int>(value.bytes[i]), " as a boolean"), "0 or 1");
  }
}

// Calls f with element i in its own type; false for booleans and strings.
template <class F>
bool with_number(const GgufValue& v, int64_t i, F f) {
  const auto as = [&](auto sample) {
    std::memcpy(&sample, v.bytes.data() + static_cast<size_t>(i) * sizeof sample, sizeof sample);
    f(sample);
    return true;
  };
  switch (v.type) {
    case GgufType::u8: return as(uint8_t{});
    case GgufType::i8: return as(int8_t{});
    case GgufType::u16: return as(uint16_t{});
    case GgufType::i16: return as(int16_t{});
    case GgufType::u32: return as(uint32_t{});
    case GgufType::i32: return as(int32_t{});
    case GgufType::u64: return as(uint64_t{});
    case GgufType::i64: return as(int64_t{});
    case GgufType::f32: return as(float{});
    case GgufType::f64: return as(double{});
    default: return false;
  }
}

}  // namespace

const char* gguf_type_name(GgufType type) { return row(type).name; }

std::optional<int64_t> GgufValue::integer(int64_t i) const {
  std::optional<int64_t> out;
  with_number(*this, i, [&](auto n) {
    if constexpr (std::is_integral_v<decltype(n)>)
      if (std::in_range<int64_t>(n)) out = static_cast<int64_t>(n);
  });
  return out;
}

std::optional<double> GgufValue::number(int64_t i) const {
  std::optional<double> out;
  with_number(*this, i, [&](auto n) { out = static_cast<double>(n); });
  return out;
}

std::string GgufValue::text(int64_t i) const {
  if (type == GgufType::string) return "the string \"" + printable(strings[static_cast<size_t>(i)]) + "\"";
  if (type == GgufType::boolean) return bytes[static_cast<size_t>(i)] == std::byte{1} ? "true" : "false";
  std::string out;
  with_number(*this, i, [&](auto n) { out = str("the ", gguf_type_name(type), " ", +n); });
  return out;
}

std::string GgufValue::text() const {
  return is_array ? str("an array of ", count, " of type ", gguf_type_name(type)) : text(0);
}

GgufMetadata::GgufMetadata(GgufCursor& cursor, uint64_t count) : where_(cursor.where()) {
  values_.reserve(count);
  by_key_.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    cursor.at(str("metadata entry ", i + 1, " of ", count));
    GgufValue value;
    value.key = cursor.string("a key", limits::kGgufKeyBytes);
    if (value.key.empty()) cursor.fail("an empty key", "a name");
    cursor.at(printable(value.key));
    if (has_control_character(value.key)) cursor.fail("a control character in a key", "none");
    if (!by_key_.emplace(value.key, i).second) cursor.fail("the key twice", "once");
    read_value(cursor, value);
    values_.push_back(std::move(value));
  }
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? nullptr : &values_[it->second];
}

void GgufMetadata::wrong(std::string_view key, const std::string& found, const std::string& expected, const std::string& hint) const {
  throw UserError({where_, printable(key), found, expected, hint});
}

const GgufValue* GgufMetadata::value(std::string_view key, bool optional, bool array, const std::string& expected) const {
  const GgufValue* v = find(key);
  if (v) {
    if (v->is_array != array) wrong(key, v->text(), expected);
    return v;
  }
  if (optional) return nullptr;
  std::vector<std::string> keys;
  for (const GgufValue& other : values_)
    if (other.key.size() < 2 * key.size()) keys.emplace_back(other.key);  // a longer one is never the nearest
  const std::string near = nearest(std::string(key), keys);
  wrong(key, "no such key", expected, near.empty() ? "" : "the nearest is " + printable(near));
}

int64_t GgufMetadata::integer(std::string_view key, int64_t low, int64_t high, std::optional<int64_t> fallback) const {
  const std::string expected = str("a whole number from ", low, " to ", high);
  const GgufValue* v = value(key, fallback.has_value(), false, expected);
  if (!v) return *fallback;
  const auto n = v->integer();
  if (!n || *n < low || *n > high) wrong(key, v->text(), expected);
  return *n;
}

double GgufMetadata::number(std::string_view key, double low, double high, std::optional<double> fallback) const {
  const std::string expected = str("a number from ", low, " to ", high);
  const GgufValue* v = value(key, fallback.has_value(), false, expected);
  if (!v) return *fallback;
  const auto n = v->number();
  if (!n || !(*n >= low && *n <= high) || !std::isfinite(*n)) wrong(key, v->text(), expected);
  return *n;
}

bool GgufMetadata::boolean(std::string_view key, std::optional<bool> fallback) const {
  const std::string expected = "a boolean";
  const GgufValue* v = value(key, fallback.has_value(), false, expected);
  if (!v) return *fallback;
  if (v->type != GgufType::boolean) wrong(key, v->text(), expected);
  return v->bytes[0] == std::byte{1};
}

std::string GgufMetadata::string(std::string_view key, std::optional<std::string> fallback) const {
  const std::string expected = "a string";
  const GgufValue* v = value(key, fallback.has_value(), false, expected);
  if (!v) return *fallback;
  if (v->type != GgufType::string) wrong(key, v->text(), expected);
  return std::string(v->strings[0]);
}

const std::vector<std::string_view>& GgufMetadata::strings(std::string_view key) const {
  const std::string expected = "an array of strings";
  const GgufValue* v = value(key, false, true, expected);
  if (v->type != GgufType::string) wrong(key, v->text(), expected);
  return v->strings;
}

std::vector<int64_t> GgufMetadata::integers(std::string_view key, int64_t low, int64_t high) const {
  const std::string expected = str("an array of whole numbers from ", low, " to ", high);
  const GgufValue* v = value(key, false, true, expected);
  if (v->type == GgufType::string || v->type == GgufType::boolean || v->type == GgufType::f32 || v->type == GgufType::f64) wrong(key, v->text(), expected);
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(v->count));
  for (int64_t i = 0; i < v->count; ++i) {
    const auto n = v->integer(i);
    if (!n || *n < low || *n > high)
      throw UserError({where_, str(printable(key), "[", i, "]"), v->text(i), str("a whole number from ", low, " to ", high), ""});
    out.push_back(*n);
  }
  return out;
}

std::vector<float> GgufMetadata::floats(std::string_view key) const {
  const std::string expected = "an array of type f32";
  const GgufValue* v = value(key, false, true, expected);
  if (v->type != GgufType::f32 && v->type != GgufType::f64) wrong(key, v->text(), expected);
  std::vector<float> out(static_cast<size_t>(v->count));
  for (int64_t i = 0; i < v->count; ++i) out[static_cast<size_t>(i)] = static_cast<float>(*v->number(i));
  return out;
}

std::vector<bool> GgufMetadata::booleans(std::string_view key) const {
  const std::string expected = "an array of booleans";
  const GgufValue* v = value(key, false, true, expected);
  if (v->type != GgufType::boolean) wrong(key, v->text(), expected);
  std::vector<bool> out(static_cast<size_t>(v->count));
  for (size_t i = 0; i < out.size(); ++i) out[i] = v->bytes[i] == std::byte{1};
  return out;
}

}  // namespace fathom::formats
