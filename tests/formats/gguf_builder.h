// GGUF files byte by byte, right and wrong ones. Every number may be given by hand: a test says only what is wrong in its file.
#pragma once
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "formats/gguf.h"

namespace fathom::formats {

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
inline std::string u32(uint32_t v) { return raw(v); }
inline std::string u64(uint64_t v) { return raw(v); }
inline std::string text(std::string_view s) { return u64(s.size()) + std::string(s); }
inline std::string type(GgufType t) { return u32(static_cast<uint32_t>(t)); }

struct GgufBuilder {
  std::string magic = "GGUF", version = u32(3);
  std::optional<uint64_t> tensor_count, metadata_count;  // instead of the true ones
  std::string metadata, table, data;
  uint64_t entries = 0, tensors = 0, alignment = 32;

  GgufBuilder& entry(std::string_view key, const std::string& type_and_value) {
    metadata += text(key) + type_and_value;
    ++entries;
    return *this;
  }
  template <class T>
  GgufBuilder& number(std::string_view key, GgufType t, T value) { return entry(key, type(t) + raw(value)); }
  GgufBuilder& string(std::string_view key, std::string_view value) { return entry(key, type(GgufType::string) + text(value)); }
  GgufBuilder& array(std::string_view key, GgufType t, uint64_t count, const std::string& elements) {
    return entry(key, type(GgufType::array) + type(t) + u64(count) + elements);
  }
  GgufBuilder& strings(std::string_view key, std::initializer_list<std::string_view> values) {
    std::string all;
    for (const auto v : values) all += text(v);
    return array(key, GgufType::string, values.size(), all);
  }
  // A row of the table; `dims` in the file's order, the fastest first.
  GgufBuilder& row(std::string_view name, std::initializer_list<uint64_t> dims, uint32_t number, uint64_t offset) {
    table += text(name) + u32(static_cast<uint32_t>(dims.size()));
    for (const uint64_t d : dims) table += u64(d);
    table += u32(number) + u64(offset);
    ++tensors;
    return *this;
  }
  // A tensor whose bytes follow those of the last one, padded.
  GgufBuilder& tensor(std::string_view name, std::initializer_list<uint64_t> dims, GgmlType t, const std::string& bytes) {
    data.resize((data.size() + alignment - 1) / alignment * alignment);
    row(name, dims, static_cast<uint32_t>(t), data.size());
    data += bytes;
    return *this;
  }
  std::string bytes() const {
    std::string out = magic + version + u64(tensor_count.value_or(tensors)) + u64(metadata_count.value_or(entries)) + metadata + table;
    if (tensors) out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data;
  }
};

}  // namespace fathom::formats
