#include "formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "bounds.h"
#include "core/file.h"
#include "gguf_builder.h"

namespace fathom::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string floats(std::initializer_list<float> values) {
  std::string out;
  for (const float v : values) out += raw(v);
  return out;
}
GgufFile open(const std::string& bytes) { return GgufFile(std::as_bytes(std::span(bytes)), "m.gguf"); }

GgufBuilder every_type() {
  GgufBuilder b;
  b.number("u8", GgufType::u8, uint8_t{255}).number("i8", GgufType::i8, int8_t{-128}).number("u16", GgufType::u16, uint16_t{65535});
  b.number("i16", GgufType::i16, int16_t{-32768}).number("u32", GgufType::u32, uint32_t{4294967295u}).number("i32", GgufType::i32, std::numeric_limits<int32_t>::min());
  b.number("u64", GgufType::u64, uint64_t{1} << 63).number("i64", GgufType::i64, INT64_MIN).number("f32", GgufType::f32, 0.1f).number("f64", GgufType::f64, 1e300);
  b.number("yes", GgufType::boolean, uint8_t{1}).number("no", GgufType::boolean, uint8_t{0}).string("name", "größe").string("empty", "");
  b.strings("tokens", {"a", "", "\xff\n", "Ġthe"}).strings("none", {});
  b.array("scores", GgufType::f32, 3, floats({0, -1.5f, NAN})).array("types", GgufType::i32, 3, raw(1) + raw(-2) + raw(3));
  b.array("flags", GgufType::boolean, 2, std::string("\1\0", 2)).array("bytes", GgufType::u8, 2, "\x01\xff").array("wide", GgufType::u64, 1, u64(UINT64_MAX));
  return b;
}

TEST(Gguf, MetadataOfEveryType) {
  const std::string bytes = every_type().bytes();
  const GgufFile f = open(bytes);
  const GgufMetadata& m = f.metadata();
  EXPECT_EQ(f.version(), 3);
  EXPECT_EQ(f.alignment(), 32);
  EXPECT_EQ(f.where(), "m.gguf");
  EXPECT_EQ(m.values().size(), 21u);
  EXPECT_EQ(m.values()[12].key, "name");
  for (const auto& [key, value] : {std::pair<const char*, int64_t>{"u8", 255}, {"i8", -128}, {"u16", 65535}, {"i16", -32768}, {"u32", 4294967295}, {"i32", INT32_MIN}, {"i64", INT64_MIN}}) {
    EXPECT_EQ(m.integer(key, INT64_MIN, INT64_MAX), value) << key;
    EXPECT_EQ(m.number(key, -INFINITY, INFINITY), static_cast<double>(value)) << key;
  }
  EXPECT_EQ(m.find("u64")->integer(), std::nullopt);
  EXPECT_EQ(m.find("u64")->number(), 0x1p63);
  EXPECT_EQ(m.number("f32", 0, 1), static_cast<double>(0.1f));
  EXPECT_EQ(m.number("f64", 0, 1e301), 1e300);
  EXPECT_TRUE(m.boolean("yes"));
  EXPECT_FALSE(m.boolean("no"));
  EXPECT_EQ(m.string("name"), "größe");
  EXPECT_EQ(m.string("empty"), "");
  EXPECT_THAT(m.strings("tokens"), ElementsAre("a", "", "\xff\n", "Ġthe"));
  EXPECT_THAT(m.strings("none"), ElementsAre());
  EXPECT_THAT(m.integers("types", -2, 3), ElementsAre(1, -2, 3));
  EXPECT_THAT(m.integers("bytes", 0, 255), ElementsAre(1, 255));
  EXPECT_THAT(m.floats("scores"), ElementsAre(0, -1.5f, ::testing::IsNan()));
  EXPECT_THAT(m.booleans("flags"), ElementsAre(true, false));
  // Strings are the file's own bytes.
  EXPECT_GE(m.strings("tokens")[0].data(), bytes.data());
  EXPECT_LT(m.strings("tokens")[0].data(), bytes.data() + bytes.size());
}

TEST(Gguf, Fallbacks) {
  const std::string bytes = every_type().bytes();
  const GgufFile f = open(bytes);
  const GgufMetadata& m = f.metadata();
  EXPECT_EQ(m.integer("absent", 0, 1, 7), 7);
  EXPECT_EQ(m.number("absent", 0, 1, 0.5), 0.5);
  EXPECT_TRUE(m.boolean("absent", true));
  EXPECT_EQ(m.string("absent", "x"), "x");
  EXPECT_TRUE(m.has("u8"));
  EXPECT_FALSE(m.has("absent"));
  EXPECT_EQ(m.find("absent"), nullptr);
  EXPECT_THAT(error_message([&] { m.string("u8", "x"); }), HasSubstr("u8: found the u8 255, expected a string"));
}

TEST(Gguf, WrongTypesAndRanges) {
  const std::string bytes = every_type().bytes();
  const GgufFile f = open(bytes);
  const GgufMetadata& m = f.metadata();
  const auto says = [](const std::function<void()>& body, const std::string& words) { EXPECT_EQ(error_message(body), "m.gguf: " + words); };
  says([&] { m.integer("u9", 0, 5); }, "u9: found no such key, expected a whole number from 0 to 5; the nearest is u8");
  says([&] { m.integer("something.else", 0, 5); }, "something.else: found no such key, expected a whole number from 0 to 5");
  says([&] { m.integer("u8", 0, 5); }, "u8: found the u8 255, expected a whole number from 0 to 5");
  says([&] { m.integer("i8", 0, 5); }, "i8: found the i8 -128, expected a whole number from 0 to 5");
  says([&] { m.integer("u64", 0, INT64_MAX); }, "u64: found the u64 9223372036854775808, expected a whole number from 0 to 9223372036854775807");
  says([&] { m.integer("f32", 0, 5); }, "f32: found the f32 0.100000001, expected a whole number from 0 to 5");
  says([&] { m.integer("types", 0, 5); }, "types: found an array of 3 of type i32, expected a whole number from 0 to 5");
  says([&] { m.number("f32", 1, 2); }, "f32: found the f32 0.100000001, expected a number from 1 to 2");
  says([&] { m.number("yes", 1, 2); }, "yes: found true, expected a number from 1 to 2");
  says([&] { m.boolean("u8"); }, "u8: found the u8 255, expected a boolean");
  says([&] { m.string("tokens"); }, "tokens: found an array of 4 of type string, expected a string");
  says([&] { m.strings("name"); }, "name: found the string \"größe\", expected an array of strings");
  says([&] { m.strings("types"); }, "types: found an array of 3 of type i32, expected an array of strings");
  says([&] { m.strings("toke"); }, "toke: found no such key, expected an array of strings; the nearest is tokens");
  says([&] { m.integers("scores", 0, 5); }, "scores: found an array of 3 of type f32, expected an array of whole numbers from 0 to 5");
  says([&] { m.integers("types", 0, 5); }, "types[1]: found the i32 -2, expected a whole number from 0 to 5");
  says([&] { m.integers("wide", 0, 5); }, "wide[0]: found the u64 18446744073709551615, expected a whole number from 0 to 5");
  says([&] { m.floats("types"); }, "types: found an array of 3 of type i32, expected an array of type f32");
  says([&] { m.booleans("bytes"); }, "bytes: found an array of 2 of type u8, expected an array of booleans");
}

TEST(Gguf, NumbersAreFinite) {
  GgufBuilder b;
  b.number("nan", GgufType::f32, NAN).number("inf", GgufType::f64, static_cast<double>(INFINITY));
  const std::string bytes = b.bytes();
  const GgufFile f = open(bytes);
  EXPECT_THAT(error_message([&] { f.metadata().number("nan", -1e9, 1e9); }), HasSubstr("nan: found the f32 nan, expected a number from"));
  EXPECT_THAT(error_message([&] { f.metadata().number("inf", 0, INFINITY); }), HasSubstr("inf: found the f64 inf, expected"));
}

TEST(Gguf, Tensors) {
  GgufBuilder b;
  b.tensor("matrix", {3, 2}, GgmlType::F32, floats({1, 2, 3, 4, 5, 6})).tensor("vector", {2}, GgmlType::F16, std::string("\x00\x3c\x00\xc0", 4));
  b.tensor("four", {1, 2, 1, 1}, GgmlType::BF16, std::string("\x80\x3f\x00\x40", 4)).tensor("blocks", {64, 2}, GgmlType::Q8_0, std::string(4 * 34, '\1'));
  const std::string bytes = b.bytes();
  const GgufFile f = open(bytes);
  ASSERT_EQ(f.tensors().size(), 4u);
  const GgufTensor& m = f.at("matrix");
  EXPECT_THAT(m.shape, ElementsAre(2, 3));
  EXPECT_EQ(m.rows(), 2);
  EXPECT_EQ(m.columns(), 3);
  EXPECT_THAT(m.to_f32(), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(m.row(1).size(), 12u);
  EXPECT_EQ(m.row(1).data(), m.bytes.data() + 12);
  EXPECT_THROW(m.row(2), std::logic_error);
  EXPECT_THAT(f.at("vector").shape, ElementsAre(2));
  EXPECT_EQ(f.at("vector").rows(), 1);
  EXPECT_THAT(f.at("vector").to_f32(), ElementsAre(1, -2));
  EXPECT_THAT(f.at("four").shape, ElementsAre(1, 1, 2, 1));
  EXPECT_THAT(f.at("four").to_f32(), ElementsAre(1, 2));
  EXPECT_EQ(f.at("blocks").bytes.size(), 4u * 34);
  EXPECT_EQ(f.at("blocks").row(1).size(), 2u * 34);
  EXPECT_EQ(f.at("blocks").row(1).data(), f.at("blocks").bytes.data() + 68);
  EXPECT_EQ(error_message([&] { f.at("vectors"); }), "m.gguf: vectors: found no such tensor, expected a tensor of this name; the nearest is vector");
}

TEST(Gguf, TensorsComeInTheOrderOfTheirBytes) {
  GgufBuilder b;
  b.row("second", {1}, 0, 64).row("first", {1}, 0, 0);
  b.data = floats({1}) + std::string(60, '\0') + floats({2});
  const std::string bytes = b.bytes();
  const GgufFile f = open(bytes);
  EXPECT_EQ(f.tensors()[0].name, "first");
  EXPECT_EQ(&f.at("first"), &f.tensors()[0]);
  EXPECT_THAT(f.at("second").to_f32(), ElementsAre(2));
}

TEST(Gguf, Version2AndAlignment) {
  for (const uint32_t alignment : {8u, 64u, 65536u}) {
    GgufBuilder b;
    b.version = u32(2);
    b.alignment = alignment;
    b.number("general.alignment", GgufType::u32, alignment).tensor("a", {1}, GgmlType::F32, floats({1})).tensor("b", {1}, GgmlType::F32, floats({2}));
    const std::string bytes = b.bytes();
    const GgufFile f = open(bytes);
    EXPECT_EQ(f.version(), 2);
    EXPECT_EQ(f.alignment(), alignment);
    EXPECT_THAT(f.at("b").to_f32(), ElementsAre(2));
    EXPECT_EQ(f.at("b").bytes.data() - f.at("a").bytes.data(), alignment);
  }
}

TEST(Gguf, MetadataOnly) {
  const std::string bytes = GgufBuilder().bytes();
  EXPECT_EQ(bytes.size(), 24u);
  EXPECT_TRUE(open(bytes).tensors().empty());
}

TEST(Gguf, FileOnDiskAndMove) {
  TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "a.gguf");
  GgufBuilder b;
  b.strings("t", {"x", "y"}).tensor("a", {2}, GgmlType::F32, floats({1, 2}));
  atomic_write(path, b.bytes());
  GgufFile first(path);
  const GgufFile f = std::move(first);
  EXPECT_THAT(f.metadata().strings("t"), ElementsAre("x", "y"));
  EXPECT_THAT(f.at("a").to_f32(), ElementsAre(1, 2));
  EXPECT_THAT(error_message([&] { GgufFile missing(path + "x"); }), HasSubstr("a.ggufx"));
}

TEST(Gguf, AVocabularyIsReadFast) {
  std::string tokens, merges;
  for (int i = 0; i < 150'000; ++i) tokens += text(str("token", i)), merges += text(str("a", i, " b", i));
  GgufBuilder b;
  b.array("tokens", GgufType::string, 150'000, tokens).array("merges", GgufType::string, 150'000, merges);
  const std::string bytes = b.bytes();
  const auto begin = std::chrono::steady_clock::now();
  const GgufFile f = open(bytes);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_EQ(f.metadata().strings("merges").back(), "a149999 b149999");
  EXPECT_LT(seconds, 0.5) << "about 5 ms; sanitizers and a busy machine cost more";
}

}  // namespace
}  // namespace fathom::formats
