#include "formats/gguf_writer.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "core/limits.h"
#include "core/utf8.h"

namespace fathom::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers and tensors are written as they lie in memory");

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<uint64_t>(text.size()));
  out.append(text);
}

int64_t padded(int64_t bytes) {
  constexpr int64_t kAlignment = static_cast<int64_t>(GgufWriter::kAlignment);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// What our reader, and llama.cpp's, would refuse is a programmer's error here: names and shapes come from a model that was read.
void check(const GgufTensorEntry& t) {
  FATHOM_ASSERT(!t.name.empty() && static_cast<int64_t>(t.name.size()) <= limits::kTensorNameBytes && !has_control_character(t.name), printable(t.name));
  FATHOM_ASSERT(!t.shape.empty() && t.shape.size() <= static_cast<size_t>(limits::kGgufRank), t.name, " has ", t.shape.size(), " dimensions");
  FATHOM_ASSERT(std::ranges::all_of(t.shape, [](int64_t d) { return d >= 1; }), t.name);
  FATHOM_ASSERT(t.shape.back() % ggml_block_elements(t.type) == 0, t.name, ": rows of ", t.shape.back(), " as ", ggml_type_name(t.type));
}

}  // namespace

void GgufEntries::begin(std::string_view key, GgufType type) {
  FATHOM_ASSERT(!key.empty() && static_cast<int64_t>(key.size()) <= limits::kGgufKeyBytes && !has_control_character(key), printable(key));
  FATHOM_ASSERT(keys_.emplace(key).second, key, " twice");
  put_text(bytes_, key);
  put(bytes_, static_cast<uint32_t>(type));
}

void GgufEntries::begin_array(std::string_view key, GgufType type, uint64_t count) {
  FATHOM_ASSERT(count <= static_cast<uint64_t>(limits::kGgufArrayElements), key, " of ", count);
  begin(key, GgufType::array);
  put(bytes_, static_cast<uint32_t>(type));
  put(bytes_, count);
}

void GgufEntries::u32(std::string_view key, uint32_t value) {
  begin(key, GgufType::u32);
  put(bytes_, value);
}
void GgufEntries::f32(std::string_view key, float value) {
  begin(key, GgufType::f32);
  put(bytes_, value);
}
void GgufEntries::boolean(std::string_view key, bool value) {
  begin(key, GgufType::boolean);
  put(bytes_, static_cast<uint8_t>(value));
}
void GgufEntries::string(std::string_view key, std::string_view value) {
  begin(key, GgufType::string);
  put_text(bytes_, value);
}
void GgufEntries::strings(std::string_view key, std::span<const std::string> values) {
  begin_array(key, GgufType::string, values.size());
  for (const std::string& value : values) put_text(bytes_, value);
}
void GgufEntries::i32s(std::string_view key, std::span<const int32_t> values) {
  begin_array(key, GgufType::i32, values.size());
  for (const int32_t value : values) put(bytes_, value);
}
void GgufEntries::f32s(std::string_view key, std::span<const float> values) {
  begin_array(key, GgufType::f32, values.size());
  for (const float value : values) put(bytes_, value);
}

void GgufEntries::copy(const GgufValue& value) {
  if (value.is_array) begin_array(value.key, value.type, static_cast<uint64_t>(value.count));
  else begin(value.key, value.type);
  for (const std::string_view text : value.strings) put_text(bytes_, text);
  bytes_.append(reinterpret_cast<const char*>(value.bytes.data()), value.bytes.size());
}

int64_t GgufTensorEntry::bytes() const {
  int64_t elements = 1;
  for (const int64_t d : shape) elements *= d;
  return ggml_bytes(type, elements);
}

GgufWriter::GgufWriter(const std::string& path, const GgufEntries& entries, std::vector<GgufTensorEntry> tensors)
    : tensors_(std::move(tensors)), file_(path) {
  FATHOM_ASSERT(!entries.has("general.alignment"), "the alignment is the writer's");
  std::string header = "GGUF";
  put(header, uint32_t{3});
  put(header, static_cast<uint64_t>(tensors_.size()));
  put(header, entries.count());
  header += entries.bytes();
  std::unordered_set<std::string_view> names;
  int64_t offset = 0;
  for (const GgufTensorEntry& t : tensors_) {
    check(t);
    FATHOM_ASSERT(names.insert(t.name).second, t.name, " twice");
    put_text(header, t.name);
    put(header, static_cast<uint32_t>(t.shape.size()));
    for (size_t i = t.shape.size(); i-- > 0;) put(header, static_cast<uint64_t>(t.shape[i]));  // the fastest first
    put(header, static_cast<uint32_t>(t.type));
    put(header, static_cast<uint64_t>(offset));
    offset += padded(t.bytes());
  }
  header.resize(static_cast<size_t>(padded(static_cast<int64_t>(header.size()))));
  file_.write(header);
}

const GgufTensorEntry& GgufWriter::current() const {
  FATHOM_ASSERT(!finished(), "all tensors are written");
  return tensors_[index_];
}

void GgufWriter::append(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const int64_t size = current().bytes();
  FATHOM_ASSERT(static_cast<int64_t>(bytes.size()) <= size - written_, current().name);
  file_.write(bytes.data(), bytes.size());
  written_ += static_cast<int64_t>(bytes.size());
  if (written_ < size) return;
  // The last tensor is padded too: llama.cpp reads whole multiples.
  file_.write(std::string(static_cast<size_t>(padded(size) - size), '\0'));
  ++index_;
  written_ = 0;
}

void GgufWriter::commit() {
  FATHOM_ASSERT(finished(), tensors_.size() - index_, " tensors are not written");
  file_.commit();
}

}  // namespace fathom::formats
