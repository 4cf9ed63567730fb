// Hand-made bad safetensors files: each must give a message that names file, tensor, found and expected.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <chrono>
#include <cstring>
#include <functional>

#include "core/error.h"
#include "core/file.h"
#include "core/limits.h"
#include "formats/safetensors.h"

namespace fathom::formats {
namespace {

using ::testing::HasSubstr;

std::string file(const std::string& header, size_t data, int64_t length = -1) {
  const uint64_t n = length < 0 ? header.size() : static_cast<uint64_t>(length);
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);
  return out + header + std::string(data, '\0');
}

std::string message(const std::string& bytes) {
  try {
    SafetensorsFile f(std::as_bytes(std::span(bytes)), "bad.safetensors");
    // An accepted file must stand every use.
    for (const TensorView& t : f.tensors()) {
      if (t.elements() * dtype_bytes(t.dtype) != static_cast<int64_t>(t.bytes.size())) return "wrong size";
      if (&f.at(t.name) != &t) return "not found";
    }
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

class BadSafetensors : public ::testing::TestWithParam<Bad> {};
TEST_P(BadSafetensors, IsNamed) { EXPECT_THAT(message(GetParam().bytes), HasSubstr(std::string("bad.safetensors: ") + GetParam().message)); }

const std::string kA = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
std::string tensor(const std::string& rest) { return "{\"a\":{" + rest + "}}"; }

INSTANTIATE_TEST_SUITE_P(
    All, BadSafetensors,
    ::testing::Values(
        Bad{"empty", "", "header length: found a file of 0 bytes, expected at least 8; the file is cut off or not a safetensors file"},
        Bad{"seven_bytes", "1234567", "header length: found a file of 7 bytes"},
        Bad{"no_header", file("", 0), "header length: found 0, expected 2 to 100000000"},
        Bad{"header_past_the_bound", file("{}", 0, limits::kSafetensorsHeaderBytes + 1), "header length: found 100000001, expected 2 to 100000000"},
        Bad{"header_past_the_file", file("{}", 0, 3), "header length: found 3, expected at most the 2 bytes that follow it"},
        Bad{"negative_header", std::string(8, '\xff') + "{}", "header length: found 18446744073709551615"},
        Bad{"text", "this is a text file", "header length: found"},
        Bad{"array", file("[1]", 0), "header: found \"[1]\", expected a JSON object"},
        Bad{"cut_json", file("{\"a\":", 0), "header byte 6: found"},
        Bad{"trailing_json", file("{} {}", 0), "header byte 4: found"},
        Bad{"invalid_utf8", file("{\"\xff\":1}", 0), "header byte 3: found"},
        Bad{"tensor_is_a_number", file("{\"a\":1}", 0), "a: found the number 1, expected an object with dtype, shape and data_offsets"},
        Bad{"tensor_is_an_array", file("{\"a\":[]}", 0), "a: found an array, expected an object"},
        Bad{"no_name", file("{\"\":{}}", 0), "header: found a tensor without a name, expected a name"},
        Bad{"control_character", file("{\"a\\u0000b\":{}}", 0), "a\\x00b: found a control character in a tensor name, expected none"},
        Bad{"long_name", file("{\"" + std::string(1025, 'n') + "\":{}}", 0), "nnnnnnnn"},
        Bad{"nothing_in_it", file(tensor(""), 0), "a.dtype: found no such key, expected dtype, shape and data_offsets"},
        Bad{"no_shape", file(tensor(R"("dtype":"F32","data_offsets":[0,4])"), 4), "a.shape: found no such key"},
        Bad{"no_offsets", file(tensor(R"("dtype":"F32","shape":[])"), 4), "a.data_offsets: found no such key"},
        Bad{"unknown_key", file(tensor(R"("dtype":"F32","stride":[1])"), 4), "a.stride: found an unknown key, expected dtype, shape and data_offsets"},
        Bad{"dtype_twice", file(tensor(R"("dtype":"F32","dtype":"F32")"), 4), "a.dtype: found the key twice, expected once"},
        Bad{"unknown_dtype", file(tensor(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"), 4), "a.dtype: found \"F33\", expected one of F64, F32, F16, BF16"},
        Bad{"dtype_is_a_number", file(tensor(R"("dtype":32)"), 4), "a.dtype: found the number 32, expected a string"},
        Bad{"shape_is_a_string", file(tensor(R"("shape":"2")"), 4), "a.shape: found the string \"2\", expected an array of whole numbers"},
        Bad{"negative_dimension", file(tensor(R"("dtype":"F32","shape":[-2])"), 4), "a.shape: found the number -2, expected whole numbers from 0"},
        Bad{"float_dimension", file(tensor(R"("dtype":"F32","shape":[2.0])"), 4), "a.shape: found the number 2.0, expected whole numbers from 0"},
        Bad{"nan_dimension", file(tensor(R"("dtype":"F32","shape":[NaN])"), 4), "header byte"},
        Bad{"nested_shape", file(tensor(R"("dtype":"F32","shape":[[2]])"), 4), "a.shape: found an array, expected whole numbers from 0"},
        Bad{"rank", file(tensor(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1])"), 4), "a.shape: found more than 8 dimensions, expected at most 8"},
        Bad{"huge_dimension", file(tensor(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4])"), 4), "a.shape: found the dimension 18446744073709551615, expected at most 9223372036854775807"},
        Bad{"product_overflows", file(tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0), "a.shape: found [4294967296, 4294967296], whose product overflows"},
        Bad{"bytes_overflow", file(tensor(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])"), 0), "a.shape: found [2305843009213693952], whose product overflows"},
        Bad{"overflow_hidden_by_zero", file(tensor(R"("dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0])"), 0), "a.shape: found [4294967296, 4294967296, 0], whose product overflows"},
        Bad{"one_offset", file(tensor(R"("data_offsets":[0])"), 4), "a.data_offsets: found 1 numbers, expected [begin, end]"},
        Bad{"three_offsets", file(tensor(R"("data_offsets":[0,4,8])"), 8), "a.data_offsets: found more than two numbers, expected [begin, end]"},
        Bad{"negative_offset", file(tensor(R"("data_offsets":[-4,0])"), 4), "a.data_offsets: found the number -4, expected whole numbers from 0"},
        Bad{"end_before_begin", file(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[8,4])"), 8), "a.data_offsets: found [8, 4], expected an end that is not before the begin"},
        Bad{"past_the_data", file("{" + kA + "}", 7), "a.data_offsets: found [0, 8], expected an end in the 7 bytes of tensor data"},
        Bad{"far_past_the_data", file(tensor(R"("dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807])"), 4), "a.data_offsets: found [0, 9223372036854775807], expected an end in the 4 bytes"},
        Bad{"size_and_shape", file(tensor(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), 8), "a.data_offsets: found 8 bytes, expected 12 for F32 [3]"},
        Bad{"size_and_dtype", file(tensor(R"("dtype":"F16","shape":[2],"data_offsets":[0,8])"), 8), "a.data_offsets: found 8 bytes, expected 4 for F16 [2]"},
        Bad{"overlap", file("{" + kA + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12), "b.data_offsets: found [4, 12] (overlap), expected the tensor after a to begin at 8"},
        Bad{"same_bytes_twice", file("{" + kA + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8), "b.data_offsets: found [0, 8] (overlap)"},
        Bad{"gap", file("{" + kA + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})", 16), "b.data_offsets: found [12, 16] (gap), expected the tensor after a to begin at 8"},
        Bad{"gap_at_the_start", file(R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8), "b.data_offsets: found [4, 8] (gap), expected the first tensor to begin at 0"},
        Bad{"tail", file("{" + kA + "}", 9), "found 1 bytes after the last tensor, expected none"},
        Bad{"data_without_tensors", file("{}", 4), "found 4 bytes after the last tensor"},
        Bad{"same_name", file("{" + kA + R"(,"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})", 12), "a: found the tensor twice, expected once"},
        Bad{"metadata_is_a_list", file(R"({"__metadata__":[]})", 0), "__metadata__: found an array"},
        Bad{"metadata_of_numbers", file(R"({"__metadata__":{"a":1}})", 0), "__metadata__.a: found the number 1, expected a string"},
        Bad{"metadata_key_twice", file(R"({"__metadata__":{"a":"1","a":"2"}})", 0), "__metadata__.a: found the key twice, expected once"},
        Bad{"metadata_twice", file(R"({"__metadata__":{},"__metadata__":{}})", 0), "__metadata__: found the key twice, expected once"},
        Bad{"deep", file("{\"a\":" + std::string(100'000, '['), 0), "a: found an array, expected an object"},
        Bad{"only_padding", file(std::string(10, ' '), 0), "header: found \"          \", expected a JSON object"}),
    [](const auto& info) { return std::string(info.param.name); });

int64_t peak_bytes() {
  rusage u{};
  ::getrusage(RUSAGE_SELF, &u);
  return u.ru_maxrss * 1024;
}

TEST(BadInput, HostileHeadersEatNeitherMemoryNorTime) {
  std::vector<std::string> headers;
  const auto repeat = [](const std::string& head, const std::string& unit) {
    std::string s = head;
    while (s.size() < 10'000'000) s += unit;
    return s;
  };
  headers.push_back(repeat("{\"a\":{\"dtype\":\"F32\",\"shape\":[1", ",1"));        // a rank of 20 million
  headers.push_back(repeat("{", "\"a\":{\"b\":"));                               // deep
  headers.push_back(repeat("{\"a\":{\"dtype\":\"", "xxxxxxxxxxxxxxxx"));          // a long string
  headers.push_back(repeat("{\"__metadata__\":{\"a\":\"b\"", ",\"aaaaa\":\"\"")); // many keys, twice
  headers.push_back(repeat("{\"a\":", "[[],"));
  std::string many = "{";  // more tensors than the bound; names all different
  for (int i = 0; many.size() < 95'000'000; ++i) many += (i ? "," : "") + str("\"", i, "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}");
  headers.push_back(many + "}");
  for (const std::string& h : headers) {
    const int64_t before = peak_bytes();
    const auto begin = std::chrono::steady_clock::now();
    const std::string m = message(file(h, 0));
    EXPECT_THAT(m, HasSubstr(&h == &headers.back() ? "bad.safetensors: header: found more than 1048576 tensors, expected fewer" : "bad.safetensors: "));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    // The copy of the header in this test counts too. Sanitizers triple both.
    EXPECT_LT(peak_bytes() - before, 1'500'000'000) << h.substr(0, 40);
    EXPECT_LT(seconds, 60) << h.substr(0, 40);
  }
}

TEST(BadInput, AFullDiskLeavesNoFile) {
  TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "a.safetensors");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string m = "no error";
  try {
    SafetensorsWriter w(path, {{"a", Dtype::F32, {1000}}});
    w.append_f32(std::vector<float>(1000));
    w.commit();
  } catch (const UserError& e) {
    m = e.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, old);
  EXPECT_THAT(m, HasSubstr("a.safetensors: cannot write: File too large"));
  EXPECT_TRUE(list_folder(folder.path()).empty());
}

// Every byte of a good file changed in turn: refused with a message, or read without a fault.
TEST(BadInput, EveryChangedByteIsCaughtOrHarmless) {
  const std::string good = file("{" + kA + R"(,"bb":{"dtype":"BF16","shape":[1,3],"data_offsets":[8,14]},"__metadata__":{"k":"v"}})", 14);
  ASSERT_EQ(message(good), "no error");
  int refused = 0;
  for (size_t i = 0; i < good.size(); ++i)
    for (const int change : {1, 2, 4, 16, 0x80}) {
      std::string bytes = good;
      bytes[i] = static_cast<char>(bytes[i] ^ change);
      const std::string m = message(bytes);
      EXPECT_TRUE(m == "no error" || m.starts_with("bad.safetensors: ")) << m;
      refused += m != "no error";
    }
  EXPECT_GT(refused, 400);
  for (size_t n = 0; n < good.size(); ++n) EXPECT_THAT(message(good.substr(0, n)), HasSubstr("bad.safetensors: "));
}

}  // namespace
}  // namespace fathom::formats
