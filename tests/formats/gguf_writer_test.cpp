// The GGUF writer: whatever metadata and tensors go in come out of the reader, to the bit, and nothing stands under the name before
// commit(). tests/oracle/test_quantize.py reads our files with the `gguf` package.
#include "formats/gguf_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "core/file.h"
#include "core/random.h"
#include "formats/gguf.h"
#include "in_memory.h"

namespace fathom::formats {
namespace {

constexpr GgmlType kTypes[] = {GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q4_1,
                               GgmlType::Q5_0, GgmlType::Q5_1, GgmlType::Q4_K, GgmlType::Q5_K, GgmlType::Q6_K};

std::vector<std::byte> drawn_bytes(Random& random, int64_t count) {
  std::vector<std::byte> out(static_cast<size_t>(count));
  for (std::byte& b : out) b = static_cast<std::byte>(random.below(256));
  return out;
}
std::string drawn_text(Random& random) {
  static const char* kParts[] = {"a", "ü", " ", "\n", "\"", "▁", "the", "\xff", ""};
  std::string out;
  for (uint64_t i = random.below(6); i-- > 0;) out += kParts[random.below(9)];
  return out;
}

struct Tensor {
  GgufTensorEntry entry;
  std::vector<std::byte> bytes;
};

std::vector<Tensor> drawn_tensors(Random& random) {
  std::vector<Tensor> out;
  for (uint64_t i = random.below(8); i-- > 0;) {
    Tensor t;
    t.entry = {str("tensor.", i), kTypes[random.below(std::size(kTypes))], {}};
    for (uint64_t d = random.below(4); d-- > 0;) t.entry.shape.push_back(1 + static_cast<int64_t>(random.below(5)));
    t.entry.shape.push_back(ggml_block_elements(t.entry.type) * (1 + static_cast<int64_t>(random.below(7))));
    t.bytes = drawn_bytes(random, t.entry.bytes());
    out.push_back(std::move(t));
  }
  return out;
}

void write(const std::string& path, const GgufEntries& entries, const std::vector<Tensor>& tensors, Random& random) {
  std::vector<GgufTensorEntry> table;
  for (const Tensor& t : tensors) table.push_back(t.entry);
  GgufWriter writer(path, entries, table);
  for (const Tensor& t : tensors) {
    EXPECT_EQ(writer.current().name, t.entry.name);
    for (size_t at = 0; at < t.bytes.size();) {  // in pieces
      const size_t count = std::min<size_t>(t.bytes.size() - at, 1 + random.below(300));
      writer.append(std::span(t.bytes).subspan(at, count));
      at += count;
    }
  }
  EXPECT_TRUE(writer.finished());
  EXPECT_FALSE(exists(path));
  writer.commit();
}

TEST(GgufWriter, WhatGoesInComesOut) {
  const TemporaryFolder folder;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const std::string path = join_path(folder.path(), str(seed, ".gguf"));
    GgufEntries entries;
    std::vector<std::string> texts;
    std::vector<int32_t> whole;
    std::vector<float> real;
    for (uint64_t i = random.below(20); i-- > 0;) {
      texts.push_back(drawn_text(random));
      whole.push_back(static_cast<int32_t>(random.bits()));
      real.push_back(static_cast<float>(random.normal()));
    }
    const uint32_t u = static_cast<uint32_t>(random.bits());
    const float f = static_cast<float>(random.normal());
    const bool b = random.below(2) == 1;
    const std::string text = drawn_text(random);
    entries.u32("a.u32", u);
    entries.f32("a.f32", f);
    entries.boolean("a.boolean", b);
    entries.string("a.string", text);
    entries.strings("a.strings", texts);
    entries.i32s("a.i32s", whole);
    entries.f32s("a.f32s", real);
    const std::vector<Tensor> tensors = drawn_tensors(random);
    write(path, entries, tensors, random);

    const GgufFile file(path);
    const GgufMetadata& m = file.metadata();
    EXPECT_EQ(file.version(), 3);
    EXPECT_EQ(file.alignment(), 32);
    EXPECT_EQ(file_size(path) % 32, 0) << "the last tensor is padded too";
    EXPECT_EQ(m.values().size(), 7u);
    EXPECT_EQ(m.integer("a.u32", 0, UINT32_MAX), static_cast<int64_t>(u));
    EXPECT_EQ(m.number("a.f32", -1e9, 1e9), static_cast<double>(f));
    EXPECT_EQ(m.boolean("a.boolean"), b);
    EXPECT_EQ(m.string("a.string"), text);
    const auto& strings = m.strings("a.strings");
    EXPECT_TRUE(std::equal(strings.begin(), strings.end(), texts.begin(), texts.end()));
    const auto integers = m.integers("a.i32s", INT32_MIN, INT32_MAX);
    EXPECT_TRUE(std::equal(integers.begin(), integers.end(), whole.begin(), whole.end()));
    EXPECT_EQ(m.floats("a.f32s"), real);
    ASSERT_EQ(file.tensors().size(), tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      const GgufTensor& t = file.tensors()[i];
      EXPECT_EQ(t.name, tensors[i].entry.name);
      EXPECT_EQ(t.type, tensors[i].entry.type);
      EXPECT_EQ(t.shape, tensors[i].entry.shape);
      EXPECT_TRUE(std::ranges::equal(t.bytes, tensors[i].bytes)) << t.name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(t.bytes.data()) % 32, 0u);
    }
  }
}

TEST(GgufWriter, EntriesOfAnotherFileAreCopiedWhateverTheirType) {
  const TemporaryFolder folder;
  // One of every type, by hand: the writer itself makes only those that a model needs.
  std::string all;
  const auto put = [&](auto value) { all.append(reinterpret_cast<const char*>(&value), sizeof value); };
  const auto key = [&](const std::string& name, GgufType type) { put(static_cast<uint64_t>(name.size())), all += name, put(static_cast<uint32_t>(type)); };
  all = "GGUF";
  put(uint32_t{3}), put(uint64_t{0}), put(uint64_t{12});
  key("u8", GgufType::u8), put(uint8_t{200});
  key("i8", GgufType::i8), put(int8_t{-3});
  key("u16", GgufType::u16), put(uint16_t{60000});
  key("i16", GgufType::i16), put(int16_t{-30000});
  key("i32", GgufType::i32), put(int32_t{-7});
  key("u64", GgufType::u64), put(uint64_t{1} << 60);
  key("i64", GgufType::i64), put(-(int64_t{1} << 60));
  key("f64", GgufType::f64), put(0.1);
  key("boolean", GgufType::boolean), put(uint8_t{1});
  key("string", GgufType::string), put(uint64_t{3}), all += "ab\n";
  key("numbers", GgufType::array), put(static_cast<uint32_t>(GgufType::u16)), put(uint64_t{3}), put(uint16_t{1}), put(uint16_t{2}), put(uint16_t{3});
  key("words", GgufType::array), put(static_cast<uint32_t>(GgufType::string)), put(uint64_t{2}), put(uint64_t{1}), all += "x", put(uint64_t{0});
  const GgufFile source(std::as_bytes(std::span(all)), "source");
  GgufEntries entries;
  for (const GgufValue& value : source.metadata().values()) entries.copy(value);
  EXPECT_EQ(entries.count(), 12u);
  EXPECT_EQ(entries.bytes(), all.substr(24)) << "byte for byte";
  Random random(1);
  write(join_path(folder.path(), "copy.gguf"), entries, {}, random);
  EXPECT_EQ(read_file(join_path(folder.path(), "copy.gguf"), 1 << 20).substr(0, all.size()), all);
}

TEST(GgufWriter, NothingStaysOfAFileThatIsNotFinished) {
  const TemporaryFolder folder;
  {
    GgufWriter writer(join_path(folder.path(), "a.gguf"), {}, {{"t", GgmlType::F32, {2, 32}}});
    writer.append(std::vector<std::byte>(100));
    EXPECT_THROW(writer.commit(), std::logic_error);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(GgufWriter, AFullDiskIsSaidAndLeavesNothing) {
  const TemporaryFolder folder;
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 4096;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string said;
  try {
    GgufWriter writer(join_path(folder.path(), "a.gguf"), {}, {{"t", GgmlType::F32, {64, 32}}});
    writer.append(std::vector<std::byte>(64 * 32 * 4));
    writer.commit();
  } catch (const UserError& e) {
    said = e.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_NE(said.find("a.gguf: cannot write: "), std::string::npos) << said;
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(GgufWriter, WhatTheReaderWouldRefuseIsAnAssertion) {
  const TemporaryFolder folder;
  const auto refused = [&](const GgufEntries& entries, std::vector<GgufTensorEntry> tensors) {
    EXPECT_THROW(GgufWriter(join_path(folder.path(), "a.gguf"), entries, std::move(tensors)), std::logic_error);
  };
  refused({}, {{"", GgmlType::F32, {1}}});
  refused({}, {{"a\n", GgmlType::F32, {1}}});
  refused({}, {{"a", GgmlType::F32, {}}});
  refused({}, {{"a", GgmlType::F32, {1, 1, 1, 1, 1}}});
  refused({}, {{"a", GgmlType::F32, {0, 32}}});
  refused({}, {{"a", GgmlType::Q8_0, {2, 31}}});
  refused({}, {{"a", GgmlType::F32, {1}}, {"a", GgmlType::F32, {1}}});
  GgufEntries alignment;
  alignment.u32("general.alignment", 64);
  refused(alignment, {});
  GgufEntries twice;
  twice.u32("a", 1);
  EXPECT_THROW(twice.u32("a", 1), std::logic_error);
  EXPECT_THROW(twice.u32("", 1), std::logic_error);
}

}  // namespace
}  // namespace fathom::formats
