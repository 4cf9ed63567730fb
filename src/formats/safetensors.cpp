#include "formats/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/float16.h"
#include "core/human.h"
#include "core/json.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "formats/safetensors_header.h"

namespace fathom::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are mapped as they lie in the file");

// Elements times element size, or an error that names the shape.
uint64_t checked_bytes(const TensorView& view, const std::string& where) {
  uint64_t n = static_cast<uint64_t>(dtype_bytes(view.dtype));
  for (int64_t d : view.shape)
    if (__builtin_mul_overflow(n, static_cast<uint64_t>(d), &n) || n > static_cast<uint64_t>(INT64_MAX))
      throw UserError({where, printable(view.name) + ".shape", shape_text(view.shape) + ", whose product overflows",
                       str("at most ", INT64_MAX, " bytes"), ""});
  return n;
}

}  // namespace

int64_t TensorView::elements() const {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

std::span<const float> TensorView::f32_view() const {
  if (dtype != Dtype::F32 || reinterpret_cast<uintptr_t>(bytes.data()) % alignof(float) != 0) return {};
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

std::vector<float> TensorView::to_f32() const {
  const size_t n = bytes.size() / static_cast<size_t>(dtype_bytes(dtype));
  std::vector<float> out(n);
  const auto each = [&](auto sample, auto convert) {
    for (size_t i = 0; i < n; ++i) {
      std::memcpy(&sample, bytes.data() + i * sizeof sample, sizeof sample);
      out[i] = convert(sample);
    }
  };
  switch (dtype) {
    case Dtype::F32: if (n) std::memcpy(out.data(), bytes.data(), bytes.size()); break;
    case Dtype::F64: each(double{}, [](double v) { return static_cast<float>(v); }); break;
    case Dtype::F16: each(uint16_t{}, f16_to_f32); break;
    case Dtype::BF16: each(uint16_t{}, bf16_to_f32); break;
    default: FATHOM_ASSERT(false, name, " is ", dtype_name(dtype));
  }
  return out;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : where_(path), map_(std::make_unique<MappedFile>(path)) {
  parse(map_->bytes());
}

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, std::string where) : where_(std::move(where)) { parse(bytes); }

void SafetensorsFile::parse(std::span<const std::byte> file) {
  const std::string whole = "the file is cut off or not a safetensors file";
  if (file.size() < 8) throw UserError({where_, "header length", str("a file of ", file.size(), " bytes"), "at least 8", whole});
  uint64_t header_bytes;
  std::memcpy(&header_bytes, file.data(), 8);
  if (header_bytes < 2 || header_bytes > static_cast<uint64_t>(limits::kSafetensorsHeaderBytes))
    throw UserError({where_, "header length", str(header_bytes), str("2 to ", limits::kSafetensorsHeaderBytes), whole});
  if (header_bytes > file.size() - 8)
    throw UserError({where_, "header length", str(header_bytes), str("at most the ", file.size() - 8, " bytes that follow it"), whole});
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + 8, header_bytes);
  if (header[0] != '{') throw UserError({where_, "header", "\"" + printable(header, 16) + "\"", "a JSON object", whole});

  SafetensorsHeader read = read_safetensors_header(header, where_);
  metadata_ = std::move(read.metadata);

  std::stable_sort(read.tensors.begin(), read.tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const std::span<const std::byte> data = file.subspan(8 + header_bytes);
  uint64_t expected = 0;
  tensors_.reserve(read.tensors.size());
  for (SafetensorsHeader::Tensor& raw : read.tensors) {
    const std::string field = printable(raw.view.name) + ".data_offsets";
    const std::string found = str("[", raw.begin, ", ", raw.end, "]");
    if (raw.end < raw.begin) throw UserError({where_, field, found, "an end that is not before the begin", ""});
    if (raw.end > data.size())
      throw UserError({where_, field, found, str("an end in the ", data.size(), " bytes of tensor data"), whole});
    const uint64_t bytes = checked_bytes(raw.view, where_);
    if (bytes != raw.end - raw.begin)
      throw UserError({where_, field, str(raw.end - raw.begin, " bytes"),
                       str(bytes, " for ", dtype_name(raw.view.dtype), " ", shape_text(raw.view.shape)), ""});
    if (raw.begin != expected) {
      const std::string before = tensors_.empty() ? "the first tensor" : "the tensor after " + printable(tensors_.back().name);
      throw UserError({where_, field, found + (raw.begin < expected ? " (overlap)" : " (gap)"),
                       str(before, " to begin at ", expected), ""});
    }
    raw.view.bytes = data.subspan(raw.begin, raw.end - raw.begin);
    expected = raw.end;
    tensors_.push_back(std::move(raw.view));
  }
  if (expected != data.size())
    throw UserError({where_, "", str(data.size() - expected, " bytes after the last tensor"), "none", ""});
  by_name_.reserve(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i)
    if (!by_name_.emplace(tensors_[i].name, i).second)
      throw UserError({where_, printable(tensors_[i].name), "the tensor twice", "once", ""});
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

namespace {

[[noreturn]] void no_such_tensor(const std::string& where, std::string_view name, const std::vector<const TensorView*>& all) {
  std::vector<std::string> names;
  for (const TensorView* t : all) names.push_back(t->name);
  const std::string near = nearest(std::string(name), names);
  throw UserError({where, printable(name), "no such tensor", "a tensor of this name",
                   near.empty() ? "" : "the nearest is " + printable(near)});
}

}  // namespace

const TensorView& SafetensorsFile::at(std::string_view name) const {
  if (const TensorView* t = find(name)) return *t;
  std::vector<const TensorView*> all;
  for (const TensorView& t : tensors_) all.push_back(&t);
  no_such_tensor(where_, name, all);
}

SafetensorsSet::SafetensorsSet(const std::string& path) : where_(path) {
  std::string file = path;
  if (is_folder(path)) {
    file = join_path(path, "model.safetensors");
    const std::string index = join_path(path, "model.safetensors.index.json");
    if (!exists(file)) {
      if (!exists(index))
        throw UserError({path, "", "neither of them", "model.safetensors or model.safetensors.index.json", ""});
      file = index;
    }
  }
  if (file.ends_with(".index.json")) open_index(file);
  else files_.push_back(std::make_unique<SafetensorsFile>(file));
  for (const auto& f : files_)
    for (const TensorView& t : f->tensors())
      if (const auto [it, added] = by_name_.emplace(t.name, &t); !added)
        throw UserError({f->where(), printable(t.name), "a tensor that an earlier file holds too", "each tensor once", ""});
}

void SafetensorsSet::open_index(const std::string& path) {
  const JsonOptions options{.max_bytes = limits::kSafetensorsHeaderBytes, .max_values = 2 * limits::kTensorCount};
  const Json json = read_json(path, options);
  const Fields fields(json, path);
  fields.ignore("metadata");
  const Json& weights = fields.raw("weight_map");
  fields.done();
  if (!weights.is_object()) fields.wrong("weight_map", describe(weights), "an object of tensor: file");
  std::map<std::string, int64_t> count;  // tensors of each file
  const auto field = [](const std::string& tensor) { return "weight_map." + printable(tensor); };
  for (const auto& [tensor, file] : weights.items()) {
    if (!file.is_string()) throw UserError({path, field(tensor), describe(file), "a file name", ""});
    const std::string& name = file.get_ref<const std::string&>();
    if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos || has_control_character(name))
      throw UserError({path, field(tensor), describe(file), "the name of a file beside the index", ""});
    ++count[name];
    if (static_cast<int64_t>(count.size()) > limits::kTensorShards)
      throw UserError({path, "weight_map", str("more than ", limits::kTensorShards, " files"), "fewer", ""});
  }
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash);
  for (const auto& [name, tensors] : count) {
    auto file = std::make_unique<SafetensorsFile>(join_path(folder, name));
    for (const TensorView& t : file->tensors()) {
      const auto it = weights.find(t.name);
      if (it == weights.end() || it->get_ref<const std::string&>() != name)
        throw UserError({path, field(t.name), it == weights.end() ? "no such key" : describe(*it),
                         "\"" + name + "\", which holds this tensor", ""});
    }
    files_.push_back(std::move(file));
  }
  std::map<std::string, const SafetensorsFile*> by_file;
  size_t i = 0;
  for (const auto& [name, tensors] : count) by_file[name] = files_[i++].get();
  for (const auto& [tensor, file] : weights.items())
    if (!by_file[file.get_ref<const std::string&>()]->find(tensor))
      throw UserError({path, field(tensor), describe(file) + ", which does not hold it", "the file that holds the tensor", ""});
}

std::vector<const TensorView*> SafetensorsSet::tensors() const {
  std::vector<const TensorView*> all;
  for (const auto& f : files_)
    for (const TensorView& t : f->tensors()) all.push_back(&t);
  return all;
}

const TensorView* SafetensorsSet::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second;
}

const std::string& SafetensorsSet::where(std::string_view name) const {
  for (const auto& file : files_)
    if (file->find(name)) return file->where();
  return where_;
}

const TensorView& SafetensorsSet::at(std::string_view name) const {
  if (const TensorView* t = find(name)) return *t;
  no_such_tensor(where_, name, tensors());
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<TensorEntry> entries,
                                     const std::map<std::string, std::string>& metadata)
    : entries_(std::move(entries)), file_(path) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const TensorEntry& e : entries_) {
    TensorView view{e.name, e.dtype, e.shape, {}};
    const int64_t bytes = static_cast<int64_t>(checked_bytes(view, path));
    FATHOM_ASSERT(!e.name.empty() && e.name != "__metadata__" && !header.contains(e.name), e.name);
    FATHOM_ASSERT(e.shape.size() <= static_cast<size_t>(limits::kTensorRank), e.name);
    header[e.name] = {{"dtype", dtype_name(e.dtype)}, {"shape", e.shape}, {"data_offsets", {offset, offset + bytes}}};
    sizes_.push_back(bytes);
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 8 + 63) / 64 * 64 - 8, ' ');
  const uint64_t length = text.size();
  FATHOM_ASSERT(static_cast<int64_t>(length) <= limits::kSafetensorsHeaderBytes, length);
  file_.write(&length, sizeof length);
  file_.write(text);
  skip_empty();
}

void SafetensorsWriter::skip_empty() {
  while (index_ < entries_.size() && written_ == sizes_[index_]) ++index_, written_ = 0;
}

const TensorEntry& SafetensorsWriter::current() const {
  FATHOM_ASSERT(!finished(), "all tensors are written");
  return entries_[index_];
}

void SafetensorsWriter::append(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const std::string& name = current().name;
  FATHOM_ASSERT(static_cast<int64_t>(bytes.size()) <= sizes_[index_] - written_, name);
  file_.write(bytes.data(), bytes.size());
  written_ += static_cast<int64_t>(bytes.size());
  skip_empty();
}

void SafetensorsWriter::append_f32(std::span<const float> values) {
  if (values.empty()) return;
  const Dtype dtype = current().dtype;
  if (dtype == Dtype::F32) return append(std::as_bytes(values));
  const auto convert = [&](auto sample, auto from_f32) {
    std::vector<decltype(sample)> part;
    for (size_t i = 0; i < values.size(); i += 4096) {
      part.clear();
      for (float v : values.subspan(i, std::min<size_t>(4096, values.size() - i))) part.push_back(from_f32(v));
      append(std::as_bytes(std::span(part)));
    }
  };
  switch (dtype) {
    case Dtype::F64: return convert(double{}, [](float v) { return static_cast<double>(v); });
    case Dtype::F16: return convert(uint16_t{}, f32_to_f16);
    case Dtype::BF16: return convert(uint16_t{}, f32_to_bf16);
    default: FATHOM_ASSERT(false, current().name, " is ", dtype_name(dtype));
  }
}

void SafetensorsWriter::commit() {
  FATHOM_ASSERT(finished(), entries_.size() - index_, " tensors are not written");
  file_.commit();
}

}  // namespace fathom::formats
