// Model files in the GGUF format, versions 2 and 3, little-endian: magic, version, counts, metadata, a table of tensors, the
// bytes of the tensors at multiples of general.alignment. The reader maps the file and hands out views into it after checking
// every number (the limits are in core/limits.h); nothing is copied but tables. The writer is gguf_writer.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/file.h"
#include "formats/ggml_types.h"
#include "formats/gguf_metadata.h"

namespace fathom::formats {

// A tensor in a mapped file; valid as long as the object that handed it out.
struct GgufTensor {
  std::string_view name;
  GgmlType type = GgmlType::F32;
  std::vector<int64_t> shape;        // row-major as in safetensors, [rows, columns]: the reverse of the file's order
  std::span<const std::byte> bytes;  // ggml_bytes(type, elements()) of them; a row is whole blocks

  int64_t elements() const;
  int64_t columns() const { return shape.back(); }  // elements of a row, a multiple of ggml_block_elements(type)
  int64_t rows() const { return elements() / columns(); }
  std::span<const std::byte> row(int64_t i) const;
  std::vector<float> to_f32() const;  // dequantised
};

class GgufFile {
 public:
  explicit GgufFile(const std::string& path);
  // Bytes that the caller keeps alive; `where` names them in errors.
  GgufFile(std::span<const std::byte> bytes, std::string where);

  int version() const { return version_; }
  int64_t alignment() const { return alignment_; }
  const GgufMetadata& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in the order of their bytes
  const GgufTensor* find(std::string_view name) const;                 // nullptr when there is none
  const GgufTensor& at(std::string_view name) const;                   // UserError with the nearest name
  const std::string& where() const { return where_; }
  void release() const { if (map_) map_->release(); }  // MappedFile::release

 private:
  void parse(std::span<const std::byte> file);
  void place(std::span<const std::byte> data, const std::vector<uint64_t>& offsets);

  std::string where_;
  std::unique_ptr<MappedFile> map_;
  int version_ = 0;
  int64_t alignment_ = 32;
  GgufMetadata metadata_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;
};

}  // namespace fathom::formats
