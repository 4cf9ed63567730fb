// Hand-made bad GGUF files: each must give a message that names file, key or tensor, found and expected, at once and in
// little memory. The kinds are those that other readers of the format fell for: wrapping sizes, lengths past the end,
// alignment, duplicate keys, types out of range.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <fstream>

#include "bounds.h"
#include "core/error.h"
#include "core/limits.h"
#include "core/random.h"
#include "gguf_builder.h"

namespace fathom::formats {
namespace {

using ::testing::HasSubstr;

std::string message(const std::string& bytes) {
  try {
    const GgufFile f(std::as_bytes(std::span(bytes)), "bad.gguf");
    // An accepted file must stand every use.
    for (const GgufTensor& t : f.tensors()) {
      if (ggml_bytes(t.type, t.elements()) != static_cast<int64_t>(t.bytes.size())) return "wrong size";
      if (&f.at(t.name) != &t) return "not found";
      if (static_cast<int64_t>(t.to_f32().size()) != t.elements()) return "wrong elements";
    }
    for (const GgufValue& v : f.metadata().values())
      if (f.metadata().find(v.key) != &v) return "key not found";
    return "no error";
  } catch (const UserError& e) {
    return e.what();
  }
}

struct Bad {
  const char* name;
  std::string bytes;
  const char* message;
};
void PrintTo(const Bad& b, std::ostream* out) { *out << b.name; }

// Resident memory at most since the last call of forget_peak(), where the system forgets it on request; else since the beginning.
int64_t peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  rusage u{};
  ::getrusage(RUSAGE_SELF, &u);
  return u.ru_maxrss * 1024;
}
void forget_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

TEST(PeakMemory, IsSeen) {
  if (!(std::ofstream("/proc/self/clear_refs") << "5").flush()) GTEST_SKIP() << "no /proc/self/clear_refs";
  forget_peak();
  const int64_t before = peak_bytes();
  { const std::vector<char> some(200 << 20, 1); EXPECT_EQ(some.back(), 1); }
  EXPECT_GT(peak_bytes() - before, 190 << 20);
#ifndef __SANITIZE_ADDRESS__  // which keeps what was freed
  forget_peak();
  EXPECT_LT(peak_bytes() - before, 100 << 20);
#endif
}

class BadGguf : public ::testing::TestWithParam<Bad> {};
TEST_P(BadGguf, IsNamed) {
  forget_peak();
  const int64_t before = peak_bytes();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(message(GetParam().bytes), HasSubstr(std::string("bad.gguf: ") + GetParam().message));
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 1.0);
  EXPECT_LT(peak_bytes() - before, 100 << 20);
}

constexpr GgufType kU8 = GgufType::u8, kU32 = GgufType::u32, kString = GgufType::string, kArray = GgufType::array, kBool = GgufType::boolean;
constexpr uint64_t kHuge = UINT64_MAX, kHalf = uint64_t{1} << 63;

GgufBuilder with(const std::function<void(GgufBuilder&)>& change) {
  GgufBuilder b;
  change(b);
  return b;
}
std::string file(const std::function<void(GgufBuilder&)>& change) { return with(change).bytes(); }
// The first bytes of a good file that ends in a tensor.
std::string cut(int64_t from_end) {
  GgufBuilder b;
  b.string("general.architecture", "llama").strings("tokens", {"ab", "cd"}).tensor("a", {32}, GgmlType::Q8_0, std::string(34, '\0'));
  std::string bytes = b.bytes();
  return bytes.substr(0, bytes.size() - static_cast<size_t>(from_end));
}
std::string entry(const std::string& type_and_value) { return file([&](GgufBuilder& b) { b.entry("k", type_and_value); }); }
std::string row(std::initializer_list<uint64_t> dims, uint32_t type, uint64_t offset, size_t data = 64) {
  return file([&](GgufBuilder& b) { b.row("a", dims, type, offset).data.assign(data, '\0'); });
}
std::string aligned(const std::string& type_and_value) {
  return file([&](GgufBuilder& b) { b.entry("general.alignment", type_and_value).tensor("a", {1}, GgmlType::F32, "1234"); });
}

INSTANTIATE_TEST_SUITE_P(
    All, BadGguf,
    ::testing::Values(
        // Magic, version, counts
        Bad{"empty", "", "magic: found a file of 0 bytes, expected at least 24; the file is cut off or not a GGUF file"},
        Bad{"only_the_magic", "GGUF", "magic: found a file of 4 bytes, expected at least 24"},
        Bad{"counts_cut", GgufBuilder().bytes().substr(0, 23), "magic: found a file of 23 bytes"},
        Bad{"text", "this is a text file, no model", "magic: found \"this\", expected \"GGUF\"; the file is cut off or not a GGUF file"},
        Bad{"binary_magic", std::string("\x01\xff\n\0", 4) + std::string(20, '\0'), "magic: found \"\\x01\\xff\\x0a\\x00\", expected \"GGUF\""},
        Bad{"magic_backwards", file([](GgufBuilder& b) { b.magic = "FUGG"; }), "magic: found \"FUGG\", a big-endian file, expected \"GGUF\", little-endian; convert the model"},
        Bad{"ggjt", file([](GgufBuilder& b) { b.magic = "tjgg"; }), "magic: found \"tjgg\", a file of the time before GGUF, expected \"GGUF\"; convert the model again"},
        Bad{"big_endian", file([](GgufBuilder& b) { b.version = std::string("\0\0\0\3", 4); }), "version: found 50331648, a big-endian file of version 3, expected 2 or 3, little-endian"},
        Bad{"version_0", file([](GgufBuilder& b) { b.version = u32(0); }), "version: found 0, expected 2 or 3"},
        Bad{"version_1", file([](GgufBuilder& b) { b.version = u32(1); }), "version: found 1, expected 2 or 3; convert the model again"},
        Bad{"version_4", file([](GgufBuilder& b) { b.version = u32(4); }), "version: found 4, expected 2 or 3"},
        Bad{"version_huge", file([](GgufBuilder& b) { b.version = u32(UINT32_MAX); }), "version: found 4294967295, expected 2 or 3"},
        Bad{"metadata_count_past_the_bound", file([](GgufBuilder& b) { b.metadata_count = 65537; }), "metadata count: found 65537, expected at most 65536"},
        Bad{"metadata_count_huge", file([](GgufBuilder& b) { b.metadata_count = kHuge; }), "metadata count: found 18446744073709551615, expected at most 65536"},
        Bad{"metadata_count_past_the_file", file([](GgufBuilder& b) { b.metadata_count = 1; }), "metadata count: found 1, expected at most the 0 that the rest of the file can hold; the file is cut off or damaged"},
        Bad{"one_entry_too_many", file([](GgufBuilder& b) { b.string("key", "some longer text").metadata_count = 2; }), "metadata entry 2 of 2: found 0 bytes before the end of the file, expected 8 bytes of a string's length at byte"},
        Bad{"tensor_count_past_the_bound", file([](GgufBuilder& b) { b.tensor_count = 65537; }), "tensor count: found 65537, expected at most 65536"},
        Bad{"tensor_count_negative", file([](GgufBuilder& b) { b.tensor_count = kHuge; }), "tensor count: found 18446744073709551615, expected at most 65536"},
        Bad{"tensor_count_past_the_file", file([](GgufBuilder& b) { b.tensor_count = 65536; }), "tensor count: found 65536, expected at most the 0 that the rest of the file can hold"},
        Bad{"one_tensor_too_many", file([](GgufBuilder& b) { b.tensor("a", {1}, GgmlType::F32, "1234").tensor_count = 2; }), "tensor"},
        // Keys
        Bad{"key_length_2_to_the_63", GgufBuilder().bytes().substr(0, 16) + u64(1) + u64(kHalf) + std::string(8, '\0'), "metadata entry 1 of 1: found a key of 9223372036854775808 bytes, expected at most 65535"},
        Bad{"key_length_wraps", GgufBuilder().bytes().substr(0, 16) + u64(1) + u64(kHuge) + std::string(8, '\0'), "metadata entry 1 of 1: found a key of 18446744073709551615 bytes"},
        Bad{"key_past_the_file", GgufBuilder().bytes().substr(0, 16) + u64(1) + u64(100) + "key" + std::string(8, '\0'), "metadata entry 1 of 1: found 11 bytes before the end of the file, expected 100 bytes of a key at byte 32"},
        Bad{"key_too_long", file([](GgufBuilder& b) { b.string(std::string(65536, 'k'), ""); }), "metadata entry 1 of 1: found a key of 65536 bytes, expected at most 65535"},
        Bad{"empty_key", file([](GgufBuilder& b) { b.string("", "v"); }), "metadata entry 1 of 1: found an empty key, expected a name"},
        Bad{"control_character_in_key", file([](GgufBuilder& b) { b.string(std::string_view("a\0b", 3), "v"); }), "a\\x00b: found a control character in a key, expected none"},
        Bad{"key_twice", file([](GgufBuilder& b) { b.string("general.name", "a").string("general.name", "b"); }), "general.name: found the key twice, expected once"},
        Bad{"key_twice_of_other_type", file([](GgufBuilder& b) { b.string("k", "a").number("k", kU8, uint8_t{1}); }), "k: found the key twice, expected once"},
        // Values
        Bad{"value_type_13", entry(u32(13) + u64(0)), "k: found a value of type 13, expected a type from 0 (u8) to 12 (f64); the file is cut off or damaged"},
        Bad{"value_type_huge", entry(u32(UINT32_MAX) + u64(0)), "k: found a value of type 4294967295, expected a type from 0"},
        Bad{"value_type_cut", file([](GgufBuilder& b) { b.entry("kkkkkkkkkkkk", "\1\0"); }), "kkkkkkkkkkkk: found 1 bytes before the end of the file, expected 4 bytes of a value of type at byte 44"},
        Bad{"value_cut", entry(type(GgufType::f64) + "1234567"), "k: found 7 bytes before the end of the file, expected 8 bytes of a value at byte 37"},
        Bad{"boolean_2", entry(type(kBool) + "\2"), "k: found the byte 2 as a boolean, expected 0 or 1"},
        Bad{"boolean_255_in_array", entry(type(kArray) + type(kBool) + u64(2) + std::string("\1\xff")), "k[1]: found the byte 255 as a boolean, expected 0 or 1"},
        Bad{"string_length_huge", entry(type(kString) + u64(kHuge)), "k: found a string of 18446744073709551615 bytes, expected at most 67108864"},
        Bad{"string_length_2_to_the_63", entry(type(kString) + u64(kHalf)), "k: found a string of 9223372036854775808 bytes, expected at most 67108864"},
        Bad{"string_past_the_file", entry(type(kString) + u64(4) + "abc"), "k: found 3 bytes before the end of the file, expected 4 bytes of a string at byte 45"},
        Bad{"string_far_past_the_file", entry(type(kString) + u64(1 << 26) + "abc"), "k: found 3 bytes before the end of the file, expected 67108864 bytes of a string"},
        Bad{"string_length_cut", entry(type(kString) + "1234567"), "k: found 7 bytes before the end of the file, expected 8 bytes of a string's length"},
        // Arrays
        Bad{"array_of_type_13", entry(type(kArray) + u32(13) + u64(0)), "k: found the type of an array's elements 13, expected a type from 0 (u8) to 12 (f64)"},
        Bad{"array_of_arrays", entry(type(kArray) + type(kArray) + u64(1) + type(kU8) + u64(0)), "k: found an array of arrays, expected an array of numbers, booleans or strings"},
        Bad{"deep_arrays", [] {
          std::string deep = type(kArray);
          for (int i = 0; i < 100'000; ++i) deep += type(kArray) + u64(1);
          return entry(deep);
        }(), "k: found an array of arrays, expected an array of numbers"},
        Bad{"array_length_huge", entry(type(kArray) + type(kU8) + u64(kHuge)), "k: found an array of 18446744073709551615 elements, expected at most 16777216"},
        Bad{"array_length_wraps_in_bytes", entry(type(kArray) + type(GgufType::u64) + u64(uint64_t{1} << 61)), "k: found an array of 2305843009213693952 elements, expected at most 16777216"},
        Bad{"array_past_the_bound", entry(type(kArray) + type(kU8) + u64((1 << 24) + 1)), "k: found an array of 16777217 elements, expected at most 16777216"},
        Bad{"array_past_the_file", entry(type(kArray) + type(kU32) + u64(3) + std::string(11, '\0')), "k: found an array of 3 of type u32, expected at most the 2 that the rest of the file can hold; the file is cut off"},
        Bad{"strings_past_the_file", entry(type(kArray) + type(kString) + u64(1 << 24) + text("a")), "k: found an array of 16777216 of type string, expected at most the 1 that the rest of the file can hold"},
        Bad{"array_length_cut", entry(type(kArray) + type(kU8) + "1234567"), "k: found 7 bytes before the end of the file, expected 8 bytes of an array's length"},
        Bad{"second_string_past_the_file", entry(type(kArray) + type(kString) + u64(2) + text("a") + u64(9) + "abc"), "k[1]: found 3 bytes before the end of the file, expected 9 bytes of a string at byte"},
        Bad{"second_string_huge", entry(type(kArray) + type(kString) + u64(2) + text("a") + u64(kHuge)), "k[1]: found a string of 18446744073709551615 bytes, expected at most 67108864"},
        // Alignment
        Bad{"alignment_0", aligned(type(kU32) + u32(0)), "general.alignment: found the u32 0, expected a whole number from 8 to 65536"},
        Bad{"alignment_1", aligned(type(kU32) + u32(1)), "general.alignment: found the u32 1, expected a whole number from 8 to 65536"},
        Bad{"alignment_24", aligned(type(kU32) + u32(24)), "general.alignment: found the u32 24, expected a power of two"},
        Bad{"alignment_2_to_the_31", aligned(type(kU32) + u32(1u << 31)), "general.alignment: found the u32 2147483648, expected a whole number from 8 to 65536"},
        Bad{"alignment_2_to_the_63", aligned(type(GgufType::u64) + u64(kHalf)), "general.alignment: found the u64 9223372036854775808, expected a whole number"},
        Bad{"alignment_negative", aligned(type(GgufType::i32) + raw(-32)), "general.alignment: found the i32 -32, expected a whole number from 8"},
        Bad{"alignment_is_a_string", aligned(type(kString) + text("32")), "general.alignment: found the string \"32\", expected a whole number from 8"},
        Bad{"alignment_is_an_array", aligned(type(kArray) + type(kU32) + u64(1) + u32(32)), "general.alignment: found an array of 1 of type u32, expected a whole number"},
        // The table of tensors
        Bad{"tensor_without_a_name", file([](GgufBuilder& b) { b.tensor("", {1}, GgmlType::F32, "1234"); }), "tensor 1 of 1: found a tensor without a name, expected a name"},
        Bad{"tensor_name_too_long", file([](GgufBuilder& b) { b.tensor(std::string(1025, 'n'), {1}, GgmlType::F32, "1234"); }), "tensor 1 of 1: found a tensor name of 1025 bytes, expected at most 1024"},
        Bad{"tensor_name_huge", file([](GgufBuilder& b) { b.table = u64(kHuge) + std::string(64, '\0'), b.tensors = 1; }), "tensor 1 of 1: found a tensor name of 18446744073709551615 bytes, expected at most 1024"},
        Bad{"tensor_name_past_the_file", file([](GgufBuilder& b) { b.table = u64(1000) + std::string(64, 'n'), b.tensors = 1; }), "tensor 1 of 1: found"},
        Bad{"control_character_in_tensor_name", file([](GgufBuilder& b) { b.tensor("a\nb", {1}, GgmlType::F32, "1234"); }), "a\\x0ab: found a control character in a tensor name, expected none"},
        Bad{"tensor_twice", file([](GgufBuilder& b) { b.tensor("a", {1}, GgmlType::F32, "1234").tensor("a", {1}, GgmlType::F32, "1234"); }), "a: found the tensor twice, expected once"},
        Bad{"no_dimensions", row({}, 0, 0), "a.shape: found 0 dimensions, expected 1 to 4"},
        Bad{"five_dimensions", row({1, 1, 1, 1, 1}, 0, 0), "a.shape: found 5 dimensions, expected 1 to 4"},
        Bad{"dimensions_huge", file([](GgufBuilder& b) { b.table = text("a") + u32(UINT32_MAX) + std::string(64, '\0'), b.tensors = 1; }), "a.shape: found 4294967295 dimensions, expected 1 to 4"},
        Bad{"dimension_0", row({32, 0}, 0, 0), "a.shape: found the dimension 0, expected 1 to 9223372036854775807"},
        Bad{"dimension_negative", row({kHuge}, 0, 0), "a.shape: found the dimension 18446744073709551615, expected 1 to 9223372036854775807"},
        Bad{"product_wraps_to_0", row({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0), "a.shape: found [4294967296, 4294967296], whose product overflows, expected at most 9223372036854775807 bytes"},
        Bad{"product_wraps_to_4_mb", row({(uint64_t{1} << 62) + (1 << 18), 4}, 0, 0, 4 << 20), "a.shape: found [4, 4611686018427650048], whose product overflows"},
        Bad{"bytes_wrap", row({uint64_t{1} << 62}, 0, 0), "a.shape: found [4611686018427387904], whose product overflows"},
        Bad{"bytes_of_blocks_wrap", row({kHalf - 32, 1, 1, 1}, 8, 0), "a.shape: found [1, 1, 1, 9223372036854775776], whose product overflows"},
        Bad{"row_of_part_of_a_block", row({33}, 8, 0), "a.shape: found [33] of Q8_0, expected rows of a multiple of 32 elements"},
        Bad{"row_of_part_of_a_superblock", row({128, 2}, 12, 0, 144), "a.shape: found [2, 128] of Q4_K, expected rows of a multiple of 256 elements"},
        Bad{"type_q2_k", row({256}, 10, 0), "a.type: found Q2_K (10), expected one of F32, F16, BF16, Q8_0, Q4_0"},
        Bad{"type_i32", row({1}, 26, 0), "a.type: found I32 (26), expected one of F32"},
        Bad{"type_removed", row({32}, 4, 0), "a.type: found the unknown type 4, expected one of F32"},
        Bad{"type_huge", row({32}, UINT32_MAX, 0), "a.type: found the unknown type 4294967295, expected one of F32"},
        // Offsets
        Bad{"offset_not_aligned", row({1}, 0, 4), "a.offset: found 4, expected a multiple of the alignment, 32"},
        Bad{"offset_past_the_end", row({1}, 0, 96), "a.offset: found 96 for 4 bytes, F32 [1], expected an end in the 64 bytes of tensor data; the file is cut off"},
        Bad{"end_past_the_end", row({17}, 0, 0), "a.offset: found 0 for 68 bytes, F32 [17], expected an end in the 64 bytes of tensor data"},
        Bad{"end_past_the_end_by_a_byte", row({9}, 0, 32, 67), "a.offset: found 32 for 36 bytes, F32 [9], expected an end in the 67 bytes of tensor data"},
        Bad{"offset_wraps", row({16}, 0, kHuge - 31), "a.offset: found 18446744073709551584 for 64 bytes, F32 [16], expected an end in the 64 bytes"},
        Bad{"size_far_past_the_file", row({uint64_t{1} << 60}, 0, 0), "a.offset: found 0 for 4611686018427387904 bytes, F32 [1152921504606846976], expected an end in the 64 bytes"},
        Bad{"overlap", file([](GgufBuilder& b) { b.row("a", {16}, 0, 0).row("b", {1}, 0, 32).data.assign(64, '\0'); }), "b.offset: found 32 (overlap), expected at least 64, the end of a"},
        Bad{"same_bytes_twice", file([](GgufBuilder& b) { b.row("a", {1}, 0, 0).row("b", {1}, 0, 0).data.assign(64, '\0'); }), "b.offset: found 0 (overlap), expected at least 4, the end of a"},
        Bad{"no_data", file([](GgufBuilder& b) { b.row("a", {1}, 0, 0); }), "a.offset: found 0 for 4 bytes, F32 [1], expected an end in the 0 bytes of tensor data"},
        Bad{"cut_in_the_padding", [] {
          std::string bytes = with([](GgufBuilder& b) { b.row("abcde", {1}, 0, 0); }).bytes();
          return bytes.substr(0, 24 + 37);
        }(), "tensor data: found 0 bytes before the end of the file, expected 3 bytes of padding at byte 61"},
        Bad{"cut_in_the_data", cut(1), "a.offset: found 0 for 34 bytes, Q8_0 [32], expected an end in the 33 bytes of tensor data"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(BadInput, AGgufFileCutAnywhereIsRefused) {
  ASSERT_EQ(message(cut(0)), "no error");
  const int64_t size = static_cast<int64_t>(cut(0).size());
  for (int64_t n = 1; n <= size; ++n) EXPECT_THAT(message(cut(n)), HasSubstr("bad.gguf: ")) << "without the last " << n << " bytes";
}

TEST(BadInput, AChangedGgufFileIsReadOrRefused) {
  const std::string good = cut(0);
  Random random(7);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = good;
    for (uint64_t k = 1 + random.below(3); k > 0; --k) bytes[random.below(bytes.size())] = static_cast<char>(random.below(2) ? random.bits() : 0xff);
    const std::string m = message(bytes);
    EXPECT_TRUE(m == "no error" || m.starts_with("bad.gguf: ")) << m;
  }
}

}  // namespace
}  // namespace fathom::formats
