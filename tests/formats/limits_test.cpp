#include "bounds.h"
#include "core/json.h"
#include "formats/safetensors_header.h"

namespace fathom::formats {
namespace {

using namespace limits;

void read(const std::string& header) { read_safetensors_header(header, "x.safetensors"); }

std::string shaped(int rank) {
  std::string shape = "1";
  for (int i = 1; i < rank; ++i) shape += ",1";
  return str("{\"a\":{\"dtype\":\"U8\",\"shape\":[", shape, "],\"data_offsets\":[0,1]}}");
}
std::string named(int64_t bytes) {
  return "{\"" + std::string(static_cast<size_t>(bytes), 'n') + R"(":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})";
}
std::string metadata(const Json& entries) { return Json{{"__metadata__", entries}}.dump(); }
std::string entries(int64_t n) {
  Json out = Json::object();
  for (int64_t i = 0; i < n; ++i) out[str(i)] = "";
  return metadata(out);
}
std::string text(int64_t bytes) { return metadata({{"k", std::string(static_cast<size_t>(bytes) - 1, 'x')}}); }  // one byte is the key's

TEST(Limits, SafetensorsHeader) {
  expect_bound("kTensorRank", [] { read(shaped(kTensorRank)); }, [] { read(shaped(kTensorRank + 1)); }, "more than 8 dimensions");
  expect_bound("kTensorNameBytes", [] { read(named(kTensorNameBytes)); }, [] { read(named(kTensorNameBytes + 1)); }, "found a tensor name of 1025 bytes, expected at most 1024");
  expect_bound("kTensorMetadataEntries", [] { read(entries(kTensorMetadataEntries)); }, [] { read(entries(kTensorMetadataEntries + 1)); },
               "found more entries, expected at most 4096");
  expect_bound("kTensorMetadataBytes", [] { read(text(kTensorMetadataBytes)); }, [] { read(text(kTensorMetadataBytes + 1)); }, "expected at most 16777216 bytes in all");
}

TEST(Limits, SafetensorsTensors) {  // one text of 50 MB for both sides
  const auto tensor = [](int64_t i) { return '"' + std::to_string(i) + R"(":{"dtype":"U8","shape":[],"data_offsets":[0,1]})"; };
  std::string header = "{" + tensor(0);
  for (int64_t i = 1; i < kTensorCount; ++i) header += ',' + tensor(i);
  header += '}';
  const auto one_more = [&] {
    header.back() = ',';
    read(header += tensor(kTensorCount) + '}');
  };
  expect_bound("kTensorCount", [&] { read(header); }, one_more, "more than 1048576 tensors");
}

TEST(Limits, SafetensorsHeaderLength) {  // "at" is a file shorter than the header that it claims
  const auto claim = [](int64_t length) {
    std::string bytes(10, ' ');
    for (int i = 0; i < 8; ++i) bytes[static_cast<size_t>(i)] = static_cast<char>(length >> (8 * i) & 0xff);
    SafetensorsFile file(std::as_bytes(std::span(bytes)), "x.safetensors");
  };
  expect_bound("kSafetensorsHeaderBytes", [&] { claim(kSafetensorsHeaderBytes); }, [&] { claim(kSafetensorsHeaderBytes + 1); }, "expected 2 to 100000000");
}

TEST(Limits, SafetensorsShards) {  // "at" misses the first of the files
  TemporaryFolder folder;
  const auto index = [&](int64_t files) {
    Json map = Json::object();
    for (int64_t i = 0; i < files; ++i) map[str("t", i)] = str("f", i);
    atomic_write(join_path(folder.path(), "model.safetensors.index.json"), Json{{"weight_map", map}}.dump());
    SafetensorsSet set(folder.path());
  };
  expect_bound("kTensorShards", [&] { index(kTensorShards); }, [&] { index(kTensorShards + 1); }, "more than 4096 files");
}

}  // namespace
}  // namespace fathom::formats
