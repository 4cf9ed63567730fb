#include "bounds.h"
#include "gguf_builder.h"

namespace fathom::formats {
namespace {

using namespace limits;

void read(const GgufBuilder& b) {
  const std::string bytes = b.bytes();
  const GgufFile f(std::as_bytes(std::span(bytes)), "x.gguf");
}

GgufBuilder entries(int64_t n) {
  GgufBuilder b;
  for (int64_t i = 0; i < n; ++i) b.number(str(i), GgufType::u8, uint8_t{1});
  return b;
}
GgufBuilder tensors(int64_t n) {
  GgufBuilder b;
  b.alignment = 8;
  b.number("general.alignment", GgufType::u32, uint32_t{8});
  for (int64_t i = 0; i < n; ++i) b.tensor(str(i), {1}, GgmlType::F32, "1234");
  return b;
}
GgufBuilder keyed(int64_t bytes) { return GgufBuilder().number(std::string(static_cast<size_t>(bytes), 'k'), GgufType::u8, uint8_t{1}); }
// "At" these two the file is too short for what it claims.
GgufBuilder string_of(int64_t bytes) { return GgufBuilder().entry("k", type(GgufType::string) + u64(static_cast<uint64_t>(bytes))); }
GgufBuilder array_of(int64_t n) { return GgufBuilder().array("k", GgufType::u8, static_cast<uint64_t>(n), ""); }
GgufBuilder ranked(bool past) {
  GgufBuilder b;
  return past ? b.row("a", {1, 1, 1, 1, 1}, 0, 0) : b.tensor("a", {1, 1, 1, 1}, GgmlType::F32, "1234");
}
GgufBuilder aligned(int64_t bytes) {
  GgufBuilder b;
  b.alignment = static_cast<uint64_t>(bytes);
  return b.number("general.alignment", GgufType::u32, static_cast<uint32_t>(bytes)).tensor("a", {1}, GgmlType::F32, "1234");
}
GgufBuilder tensor_named(int64_t bytes) { return GgufBuilder().tensor(std::string(static_cast<size_t>(bytes), 'n'), {1}, GgmlType::F32, "1234"); }

TEST(Limits, Gguf) {
  static_assert(kGgufRank == 4);
  expect_bound("kGgufMetadataEntries", [] { read(entries(kGgufMetadataEntries)); }, [] { read(entries(kGgufMetadataEntries + 1)); }, "metadata count: found 65537, expected at most 65536");
  expect_bound("kGgufKeyBytes", [] { read(keyed(kGgufKeyBytes)); }, [] { read(keyed(kGgufKeyBytes + 1)); }, "found a key of 65536 bytes, expected at most 65535");
  expect_bound("kGgufStringBytes", [] { read(string_of(kGgufStringBytes)); }, [] { read(string_of(kGgufStringBytes + 1)); }, "found a string of 67108865 bytes, expected at most 67108864");
  expect_bound("kGgufArrayElements", [] { read(array_of(kGgufArrayElements)); }, [] { read(array_of(kGgufArrayElements + 1)); }, "found an array of 16777217 elements, expected at most 16777216");
  expect_bound("kGgufTensors", [] { read(tensors(kGgufTensors)); }, [] { read(tensors(kGgufTensors + 1)); }, "tensor count: found 65537, expected at most 65536");
  expect_bound("kGgufRank", [] { read(ranked(false)); }, [] { read(ranked(true)); }, "found 5 dimensions, expected 1 to 4");
  expect_bound("kGgufAlignment", [] { read(aligned(kGgufAlignment)); }, [] { read(aligned(2 * kGgufAlignment)); }, "expected a whole number from 8 to 65536");
  expect_bound("kTensorNameBytes", [] { read(tensor_named(kTensorNameBytes)); }, [] { read(tensor_named(kTensorNameBytes + 1)); }, "found a tensor name of 1025 bytes, expected at most 1024");
  // What is at the bound is read, not only refused for something else.
  for (const GgufBuilder& b : {entries(kGgufMetadataEntries), keyed(kGgufKeyBytes), tensors(kGgufTensors), ranked(false), aligned(kGgufAlignment), tensor_named(kTensorNameBytes)})
    EXPECT_EQ(error_message([&] { read(b); }), "no error");
}

}  // namespace
}  // namespace fathom::formats
