// Tensor files in the safetensors format: an 8-byte little-endian header length, a JSON header, the bytes of the tensors
// without gaps. The reader maps the file and hands out views into it after checking every number of the header (the
// limits are in core/limits.h); the writer streams tensors in the caller's order and is atomic. `SafetensorsSet` is one
// file or the shards of a model.safetensors.index.json behind one look-up by name.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/file.h"
#include "formats/dtype.h"

namespace fathom::formats {

// A tensor in a mapped file; valid as long as the object that handed it out.
struct TensorView {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<int64_t> shape;         // empty = a scalar
  std::span<const std::byte> bytes;   // row-major, little-endian; elements() * dtype_bytes(dtype) of them

  int64_t elements() const;
  // The elements as they lie in the file, or an empty span when the dtype is not F32 or they are not aligned.
  std::span<const float> f32_view() const;
  // A copy as f32 from F64, F32, F16 or BF16; another dtype is an assertion. NaN and infinity pass through.
  std::vector<float> to_f32() const;
};

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  // Bytes that the caller keeps alive; `where` names them in errors.
  SafetensorsFile(std::span<const std::byte> bytes, std::string where);

  const std::vector<TensorView>& tensors() const { return tensors_; }  // in the order of their bytes
  const TensorView* find(std::string_view name) const;                 // nullptr when there is none
  const TensorView& at(std::string_view name) const;                   // UserError with the nearest name
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // __metadata__
  const std::string& where() const { return where_; }
  void release() const { if (map_) map_->release(); }  // MappedFile::release

 private:
  void parse(std::span<const std::byte> bytes);
  std::string where_;
  std::unique_ptr<MappedFile> map_;
  std::vector<TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
  std::unordered_map<std::string_view, size_t> by_name_;
};

// All tensors of a model: `path` is a .safetensors file, an index (*.index.json), or a folder with model.safetensors or
// model.safetensors.index.json. Shards that the index names must lie beside it, and both must agree on every tensor.
class SafetensorsSet {
 public:
  explicit SafetensorsSet(const std::string& path);
  std::vector<const TensorView*> tensors() const;  // shard by shard, in the order of their bytes
  const TensorView* find(std::string_view name) const;
  const TensorView& at(std::string_view name) const;
  const std::vector<std::unique_ptr<SafetensorsFile>>& files() const { return files_; }
  const std::string& where(std::string_view name) const;  // the file that holds the tensor; where() when none does
  const std::string& where() const { return where_; }

 private:
  void open_index(const std::string& path);
  std::string where_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::unordered_map<std::string_view, const TensorView*> by_name_;
};

struct TensorEntry {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<int64_t> shape;
};

// Writes a file in one pass: the entries are fixed at the start, their bytes follow in that order, whole or in pieces.
// The header is padded with spaces so that the first tensor begins at a multiple of 64 bytes.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, std::vector<TensorEntry> entries,
                    const std::map<std::string, std::string>& metadata = {});
  // The next bytes of the entry at hand; an entry must be finished before the next begins.
  void append(std::span<const std::byte> bytes);
  // The next elements of the entry at hand, converted to its dtype (F64, F32, F16 or BF16).
  void append_f32(std::span<const float> values);
  const TensorEntry& current() const;  // the entry that append() writes next
  bool finished() const { return index_ == entries_.size(); }
  void commit();  // all entries must be written

 private:
  void skip_empty();
  std::vector<TensorEntry> entries_;
  std::vector<int64_t> sizes_;  // bytes of each entry
  size_t index_ = 0;
  int64_t written_ = 0;         // of the entry at hand
  AtomicFile file_;
};

}  // namespace fathom::formats
