// Writes a GGUF file, version 3, little-endian, in one pass: metadata and the table of tensors are fixed at the start, the bytes
// of the tensors follow in that order, whole or in pieces. Atomic as core/file.h has it: nothing stands under the name before commit().
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/file.h"
#include "formats/ggml_types.h"
#include "formats/gguf_metadata.h"

namespace fathom::formats {

// Entries in their order. A key given twice, an empty one and one with a control character is a programmer's error.
class GgufEntries {
 public:
  void u32(std::string_view key, uint32_t value);
  void f32(std::string_view key, float value);
  void boolean(std::string_view key, bool value);
  void string(std::string_view key, std::string_view value);
  void strings(std::string_view key, std::span<const std::string> values);
  void i32s(std::string_view key, std::span<const int32_t> values);
  void f32s(std::string_view key, std::span<const float> values);
  void copy(const GgufValue& value);  // of another file, of whatever type, as it is

  bool has(std::string_view key) const { return keys_.count(std::string(key)) > 0; }
  uint64_t count() const { return keys_.size(); }
  const std::string& bytes() const { return bytes_; }  // as they stand in the file

 private:
  void begin(std::string_view key, GgufType type);
  void begin_array(std::string_view key, GgufType type, uint64_t count);
  std::string bytes_;
  std::unordered_set<std::string> keys_;
};

struct GgufTensorEntry {
  std::string name;
  GgmlType type = GgmlType::F32;
  std::vector<int64_t> shape;  // row-major, [rows, columns]; a row is whole blocks
  int64_t bytes() const;
};

class GgufWriter {
 public:
  static constexpr uint64_t kAlignment = 32;  // of tensors; the format's default, so that no key says it

  // `entries` must not hold general.alignment.
  GgufWriter(const std::string& path, const GgufEntries& entries, std::vector<GgufTensorEntry> tensors);
  // The next bytes of the tensor at hand; a tensor must be finished before the next begins.
  void append(std::span<const std::byte> bytes);
  const GgufTensorEntry& current() const;  // the tensor that append() writes next
  bool finished() const { return index_ == tensors_.size(); }
  void commit();                           // all tensors must be written

 private:
  std::vector<GgufTensorEntry> tensors_;
  size_t index_ = 0;
  int64_t written_ = 0;  // of the tensor at hand
  AtomicFile file_;
};

}  // namespace fathom::formats
