#include "formats/gguf.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "core/error.h"
#include "core/human.h"
#include "core/json.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "formats/safetensors_header.h"

namespace fathom::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers and tensors are read as they lie in the file");

// The least bytes of a metadata entry (key of one byte, type, value of one byte) and of a row in the table of tensors
// (name of one byte, rank, one dimension, type, offset): a count is held against what the rest of the file can hold.
constexpr uint64_t kLeastEntry = 8 + 1 + 4 + 1, kLeastTensor = 8 + 1 + 4 + 8 + 4 + 8;

constexpr const char* kOther = "the file is cut off or not a GGUF file";

void read_magic(GgufCursor& cursor, uint64_t size) {
  cursor.at("magic");
  if (size < 24) cursor.fail(str("a file of ", size, " bytes"), "at least 24", kOther);
  const auto bytes = cursor.bytes(4, "the magic");
  const std::string_view magic(reinterpret_cast<const char*>(bytes.data()), 4);
  const std::string found = "\"" + printable(magic) + "\"";
  if (magic == "FUGG") cursor.fail(found + ", a big-endian file", "\"GGUF\", little-endian", "convert the model to little-endian");
  if (magic == "lmgg" || magic == "fmgg" || magic == "tjgg" || magic == "algg")
    cursor.fail(found + ", a file of the time before GGUF", "\"GGUF\"", "convert the model again");
  if (magic != "GGUF") cursor.fail(found, "\"GGUF\"", kOther);
}

int read_version(GgufCursor& cursor) {
  cursor.at("version");
  const uint32_t version = cursor.number<uint32_t>("the version");
  // The magic of a big-endian file is the same four bytes; its version shows the order.
  if (version != 0 && (version & 0xffffu) == 0)
    cursor.fail(str(version, ", a big-endian file of version ", __builtin_bswap32(version)), "2 or 3, little-endian", "convert the model to little-endian");
  if (version == 1) cursor.fail("1", "2 or 3", "convert the model again");
  if (version != 2 && version != 3) cursor.fail(str(version), "2 or 3");
  return static_cast<int>(version);
}

uint64_t read_count(GgufCursor& cursor, const char* what, int64_t cap) {
  cursor.at(what);
  const uint64_t count = cursor.number<uint64_t>("a count");
  if (count > static_cast<uint64_t>(cap)) cursor.fail(str(count), str("at most ", cap));
  return count;
}

void check_count(GgufCursor& cursor, const char* what, uint64_t count, uint64_t least) {
  cursor.at(what);
  if (count > cursor.left() / least)
    cursor.fail(str(count), str("at most the ", cursor.left() / least, " that the rest of the file can hold"), GgufCursor::kCut);
}

// One row of the table; returns the offset in the data.
uint64_t read_tensor(GgufCursor& cursor, GgufTensor& t) {
  t.name = cursor.string("a tensor name", limits::kTensorNameBytes);
  if (t.name.empty()) cursor.fail("a tensor without a name", "a name");
  const std::string name = printable(t.name);
  cursor.at(name);
  if (has_control_character(t.name)) cursor.fail("a control character in a tensor name", "none");
  cursor.at(name + ".shape");
  const uint32_t rank = cursor.number<uint32_t>("a number of dimensions");
  if (rank < 1 || rank > static_cast<uint32_t>(limits::kGgufRank)) cursor.fail(str(rank, " dimensions"), str("1 to ", limits::kGgufRank));
  t.shape.resize(rank);
  for (uint32_t i = 0; i < rank; ++i) {
    const uint64_t n = cursor.number<uint64_t>("a dimension");
    if (n < 1 || n > static_cast<uint64_t>(INT64_MAX)) cursor.fail(str("the dimension ", n), str("1 to ", INT64_MAX));
    t.shape[rank - 1 - i] = static_cast<int64_t>(n);
  }
  cursor.at(name + ".type");
  const uint32_t number = cursor.number<uint32_t>("a type");
  const auto type = ggml_type_from_number(number);
  if (!type) cursor.fail(ggml_type_text(number), "one of " + ggml_type_names());
  t.type = *type;
  const uint64_t offset = cursor.number<uint64_t>("an offset");

  cursor.at(name + ".shape");
  if (t.columns() % ggml_block_elements(t.type) != 0)
    cursor.fail(str(shape_text(t.shape), " of ", ggml_type_name(t.type)), str("rows of a multiple of ", ggml_block_elements(t.type), " elements"));
  int64_t elements = 1;
  bool overflow = false;
  for (int64_t d : t.shape) overflow = overflow || __builtin_mul_overflow(elements, d, &elements);
  int64_t bytes = 0;
  overflow = overflow || __builtin_mul_overflow(elements / ggml_block_elements(t.type), ggml_block_bytes(t.type), &bytes);
  if (overflow) cursor.fail(shape_text(t.shape) + ", whose product overflows", str("at most ", INT64_MAX, " bytes"));
  return offset;
}

}  // namespace

int64_t GgufTensor::elements() const {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

std::span<const std::byte> GgufTensor::row(int64_t i) const {
  const size_t bytes_of_row = static_cast<size_t>(ggml_bytes(type, columns()));
  FATHOM_ASSERT(i >= 0 && i < rows(), name, " has no row ", i);
  return bytes.subspan(static_cast<size_t>(i) * bytes_of_row, bytes_of_row);
}

std::vector<float> GgufTensor::to_f32() const {
  std::vector<float> out(static_cast<size_t>(elements()));
  dequantize(type, bytes, out.data());
  return out;
}

GgufFile::GgufFile(const std::string& path) : where_(path), map_(std::make_unique<MappedFile>(path)) { parse(map_->bytes()); }

GgufFile::GgufFile(std::span<const std::byte> bytes, std::string where) : where_(std::move(where)) { parse(bytes); }

void GgufFile::parse(std::span<const std::byte> file) {
  GgufCursor cursor(file, where_);
  read_magic(cursor, file.size());
  version_ = read_version(cursor);
  const uint64_t tensors = read_count(cursor, "tensor count", limits::kGgufTensors);
  const uint64_t entries = read_count(cursor, "metadata count", limits::kGgufMetadataEntries);
  check_count(cursor, "metadata count", entries, kLeastEntry);
  metadata_ = GgufMetadata(cursor, entries);

  const std::string key = "general.alignment";
  alignment_ = metadata_.integer(key, 8, limits::kGgufAlignment, 32);
  if (!std::has_single_bit(static_cast<uint64_t>(alignment_))) metadata_.wrong(key, metadata_.find(key)->text(), "a power of two");

  check_count(cursor, "tensor count", tensors, kLeastTensor);
  std::vector<uint64_t> offsets(tensors);
  tensors_.resize(tensors);
  by_name_.reserve(tensors);
  for (uint64_t i = 0; i < tensors; ++i) {
    cursor.at(str("tensor ", i + 1, " of ", tensors));
    offsets[i] = read_tensor(cursor, tensors_[i]);
    if (!by_name_.emplace(tensors_[i].name, i).second) throw UserError({where_, printable(tensors_[i].name), "the tensor twice", "once", ""});
  }
  if (tensors == 0) return;  // a file of metadata only may end where its table would
  const uint64_t pad = -cursor.offset() & (static_cast<uint64_t>(alignment_) - 1);
  cursor.at("tensor data");
  cursor.bytes(pad, "padding");
  place(file.subspan(cursor.offset()), offsets);
}

// Gives every tensor its bytes and sorts the tensors by them. Gaps are allowed, two tensors on the same byte are not.
void GgufFile::place(std::span<const std::byte> data, const std::vector<uint64_t>& offsets) {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    GgufTensor& t = tensors_[i];
    const uint64_t offset = offsets[i], bytes = static_cast<uint64_t>(ggml_bytes(t.type, t.elements()));
    const std::string field = printable(t.name) + ".offset";
    if (offset % static_cast<uint64_t>(alignment_) != 0) throw UserError({where_, field, str(offset), str("a multiple of the alignment, ", alignment_), ""});
    if (offset > data.size() || bytes > data.size() - offset)
      throw UserError({where_, field, str(offset, " for ", bytes, " bytes, ", ggml_type_name(t.type), " ", shape_text(t.shape)),
                       str("an end in the ", data.size(), " bytes of tensor data"), GgufCursor::kCut});
    t.bytes = data.subspan(offset, bytes);
  }
  std::stable_sort(tensors_.begin(), tensors_.end(), [](const GgufTensor& a, const GgufTensor& b) { return a.bytes.data() < b.bytes.data(); });
  const auto begin = [&](const GgufTensor& t) { return t.bytes.data() - data.data(); };
  for (size_t i = 1; i < tensors_.size(); ++i) {
    const GgufTensor &before = tensors_[i - 1], &t = tensors_[i];
    const int64_t end = begin(before) + static_cast<int64_t>(before.bytes.size());
    if (begin(t) < end)
      throw UserError({where_, printable(t.name) + ".offset", str(begin(t), " (overlap)"), str("at least ", end, ", the end of ", printable(before.name)), ""});
  }
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_[tensors_[i].name] = i;
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

const GgufTensor& GgufFile::at(std::string_view name) const {
  if (const GgufTensor* t = find(name)) return *t;
  std::vector<std::string> names;
  for (const GgufTensor& t : tensors_) names.emplace_back(t.name);
  const std::string near = nearest(std::string(name), names);
  throw UserError({where_, printable(name), "no such tensor", "a tensor of this name", near.empty() ? "" : "the nearest is " + printable(near)});
}

}  // namespace fathom::formats
