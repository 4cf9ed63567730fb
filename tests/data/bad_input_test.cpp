// Hand-made bad files of the data room: each must give a message that names file, field, found and expected.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cstring>

#include "data/shards.h"
#include "helpers.h"

namespace fathom::data {
namespace {

using ::testing::HasSubstr;

struct BadFile {
  const char* name;
  std::string content;
  const char* message;  // after the path
};

void PrintTo(const BadFile& b, std::ostream* out) { *out << b.name; }

class BadDocuments : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadDocuments, IsNamed) {
  Files f;
  const std::string path = f.put(GetParam().name, GetParam().content);
  EXPECT_THAT(message([&] { documents_of({path}); }), HasSubstr(path + ": " + GetParam().message));
}

const std::string kFrame = zstd(std::string(5000, 'x') + "\n");
const std::string kBzip2 = bzip2(std::string(5000, 'x') + "\n");

std::string flipped(std::string bytes) {
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x10);
  return bytes;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadDocuments,
    ::testing::Values(
        BadFile{"a.txt", "ok \xc3", "byte 3: found \"\\xc3\", expected UTF-8 text"},
        BadFile{"surrogate.txt", "\xed\xa0\x80", "byte 0: found \"\\xed\\xa0\\x80\", expected UTF-8 text"},
        BadFile{"overlong.txt", "a\xc0\xaf", "byte 1: found \"\\xc0\\xaf\", expected UTF-8 text"},
        BadFile{"utf16.txt", std::string("\xff\xfeh\0i\0", 6), "byte 0: found \"\\xff\\xfeh\\x00…\", expected UTF-8 text; this is UTF-16: convert it"},
        BadFile{"a.txt.gz", "\x1f\x8b\x08rest", "byte 0: found gzip data, expected UTF-8 text, .jsonl, or either as .zst or .bz2; unpack it"},
        BadFile{"a.zip", "PK\x03\x04rest", "byte 0: found a zip archive"},
        BadFile{"a.xz", "\xfd" "7zXZrest", "byte 0: found xz data"},
        BadFile{"misnamed.txt", kFrame, "byte 0: found zstd data in a file not named .zst"},
        BadFile{"empty.txt.zst", "", "compressed byte 0: found the end of the file, expected the rest of a zstd frame; the file is cut off"},
        BadFile{"empty.txt.bz2", "", "compressed byte 0: found the end of the file, expected the rest of a bzip2 frame; the file is cut off"},
        BadFile{"cut.txt.bz2", kBzip2.substr(0, kBzip2.size() - 2), "compressed byte 47: found the end of the file, expected the rest of a bzip2 frame"},
        BadFile{"plain.txt.bz2", "not compressed", "compressed byte 0: found no bzip2 header, expected bzip2 data; the file is damaged, or no bzip2 file"},
        BadFile{"flipped.txt.bz2", flipped(kBzip2), "compressed byte 0: found damaged data (a checksum or a block), expected bzip2 data"},
        BadFile{"tail.txt.bz2", kBzip2 + "garbage after the stream", "compressed byte 49: found no bzip2 header, expected bzip2 data"},
        BadFile{"misnamed-too.txt", kBzip2, "byte 0: found bzip2 data in a file not named .bz2"},
        BadFile{"cut.txt.zst", kFrame.substr(0, kFrame.size() - 2), "compressed byte"},
        BadFile{"header.txt.zst", kFrame.substr(0, 3), "compressed byte 3: found the end of the file, expected the rest of a zstd frame"},
        BadFile{"plain.txt.zst", "not compressed", "compressed byte 0: found Unknown frame descriptor, expected zstd data"},
        BadFile{"tail.txt.zst", kFrame + "garbage after the frame", "compressed byte 20: found Unknown frame descriptor, expected zstd data"},
        BadFile{"huge-window.txt.zst", std::string("\x28\xb5\x2f\xfd\x00\xa8", 6) + std::string(10, '\0'), "compressed byte 0: found Frame requires too much memory for decoding, expected zstd data (window up to 128 MiB)"},
        BadFile{"cut.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b", "line 2, byte"},
        BadFile{"array.jsonl", "[\"text\"]", "line 1: found an array, expected a JSON object"},
        BadFile{"string.jsonl", "\"text\"", "line 1: found the string \"text\", expected a JSON object"},
        BadFile{"number.jsonl", "\n\n17", "line 3: found the number 17, expected a JSON object"},
        BadFile{"type.jsonl", "{\"text\": 3}", "line 1, text: found the number 3, expected a string"},
        BadFile{"list.jsonl", "{\"text\": [\"a\"]}", "line 1, text: found an array, expected a string"},
        BadFile{"null.jsonl", "{\"text\": null}", "line 1, text: found null, expected a string"},
        BadFile{"twice.jsonl", "{\"text\": \"a\", \"text\": \"b\"}", "line 1, text: found the key twice, expected once"},
        BadFile{"missing.jsonl", "{\"txt\": \"a\", \"nested\": {\"text\": \"b\"}}", "line 1, text: found no such key, expected the document's text; name the field with --field; here are: txt, nested"},
        BadFile{"utf8.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\xff\"}", "byte 24: found \"\\xff\"}\", expected UTF-8 text"},
        BadFile{"escape.jsonl", "{\"text\": \"\\ud800\"}", "line 1, byte 17: found syntax error"},
        BadFile{"deep.jsonl", "{\"a\": " + std::string(1000, '['), "line 1: found nesting deeper than 64, expected at most 64 levels"},
        BadFile{"deeper.jsonl", "{\"a\": " + std::string(5'000'000, '['), "line 1: found nesting deeper than 64"},
        BadFile{"two.jsonl", "{\"text\": \"a\"} {\"text\": \"b\"}", "line 1, byte 15: found syntax error"},
        BadFile{"nan.jsonl", "{\"a\": NaN, \"text\": \"b\"}", "line 1, byte 7: found syntax error"},
        BadFile{"overflow.jsonl", "{\"a\": 1e999, \"text\": \"b\"}", "line 1, byte 11: found"}),
    [](const auto& info) {
      std::string name = info.param.name;
      for (char& c : name)
        if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
      return name;
    });

// ---- Shards: a good file of two documents, [1 2] and [3 4 5], with one thing changed.

struct BadShard {
  const char* name;
  std::function<void(std::string&)> change;
  const char* message;
};
void PrintTo(const BadShard& b, std::ostream* out) { *out << b.name; }

template <class T>
std::function<void(std::string&)> put(size_t at, T value) {
  return [=](std::string& bytes) { std::memcpy(bytes.data() + at, &value, sizeof value); };
}

class BadShards : public ::testing::TestWithParam<BadShard> {};

TEST_P(BadShards, IsNamed) {
  Files f;
  ShardWriter writer(100, std::string(32, 'a'));
  writer.add(std::vector<int32_t>{1, 2}, 2);
  writer.add(std::vector<int32_t>{3, 4, 5}, 3);
  writer.write(f.path(), "good");
  std::string bytes = read_file(f("good"), 1 << 20);
  ASSERT_EQ(bytes.size(), 128u + 16 + 24) << "10 bytes of tokens, padded, and three boundaries";
  GetParam().change(bytes);
  const std::string path = f.put("bad.tokens", bytes);
  EXPECT_THAT(message([&] { ShardFile{path}; }), HasSubstr(path + ": " + GetParam().message));
}

constexpr uint64_t kHuge = 0xffff'ffff'ffff'fff0ULL;

INSTANTIATE_TEST_SUITE_P(
    All, BadShards,
    ::testing::Values(
        BadShard{"empty", [](std::string& b) { b.clear(); }, "header: found a file of 0 bytes, expected at least 128; the file is cut off"},
        BadShard{"cut_header", [](std::string& b) { b.resize(127); }, "header: found a file of 127 bytes"},
        BadShard{"magic", put(0, 'X'), "magic: found \"XATHOMTK\", expected \"FATHOMTK\"; this is not a token shard"},
        BadShard{"newer", put(8, uint32_t{2}), "version: found 2, expected 1; a newer program wrote it"},
        BadShard{"older", put(8, uint32_t{0}), "version: found 0, expected 1; prepare the data again"},
        BadShard{"width", put(12, uint32_t{3}), "token_bytes: found 3, expected 2 or 4"},
        BadShard{"width_and_vocabulary", put(12, uint32_t{4}), "token_bytes: found 4, expected 2 for a vocabulary of 100"},
        BadShard{"no_tokens", put(16, uint64_t{0}), "tokens: found 0, expected a whole number from 1 to 68719476736"},
        BadShard{"huge_tokens", put(16, kHuge), "tokens: found 18446744073709551600, expected a whole number from 1 to"},
        BadShard{"past_the_bound", put(16, (uint64_t{1} << 36) + 1), "tokens: found 68719476737, expected"},
        BadShard{"more_tokens", put(16, uint64_t{1} << 36), "size: found 168 bytes, expected 137438953624 for 68719476736 tokens of 2 bytes and 2 documents; the file is cut off"},
        BadShard{"no_documents", put(24, uint64_t{0}), "documents: found 0, expected a whole number from 1 to 5"},
        BadShard{"more_documents_than_tokens", put(24, uint64_t{6}), "documents: found 6, expected a whole number from 1 to 5"},
        BadShard{"huge_documents", put(24, kHuge), "documents: found 18446744073709551600"},
        BadShard{"no_vocabulary", put(32, uint64_t{0}), "vocab_size: found 0, expected"},
        BadShard{"huge_vocabulary", put(32, kHuge), "vocab_size: found 18446744073709551600"},
        BadShard{"identity", put(40, '\n'), "tokenizer identity: found \"\\x0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\", expected 32 hexadecimal digits"},
        BadShard{"reserved", put(100, '\1'), "reserved bytes: found other than zero, expected zero"},
        BadShard{"cut", [](std::string& b) { b.resize(b.size() - 8); }, "size: found 160 bytes, expected 168 for 5 tokens of 2 bytes and 2 documents; the file is cut off"},
        BadShard{"longer", [](std::string& b) { b += "x"; }, "size: found 169 bytes, expected 168"},
        BadShard{"first_start", put(144, int64_t{1}), "document 0: found a start at 1, expected 0"},
        BadShard{"empty_document", put(152, int64_t{0}), "document 1: found a start at 0, expected more than 0, where the document before starts"},
        BadShard{"backwards", put(152, int64_t{-5}), "document 1: found a start at -5, expected more than 0"},
        BadShard{"past_the_end", put(152, int64_t{9}), "document 2: found a start at 5, expected more than 9"},
        BadShard{"last", put(160, int64_t{4}), "document boundaries: found an end at 4, expected 5, the number of tokens"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(BadInput, WrongKindsOfPaths) {
  Files f;
  EXPECT_THAT(message([&] { ShardFile{f("absent")}; }), HasSubstr("absent: cannot open: No such file or directory; check the path"));
  EXPECT_THAT(message([&] { ShardFile{f.path()}; }), HasSubstr("found a folder, expected a file"));
  EXPECT_THAT(message([&] { documents_of({f("absent.txt")}); }), HasSubstr("absent.txt: found No such file or directory, expected a file or a folder"));
}

TEST(BadInput, AFullDiskIsNamed) {
  Files f;
  ShardWriter writer(100, std::string(32, 'a'));
  writer.add(std::vector<int32_t>(70'000, 1), 1);
  // RLIMIT_FSIZE stands for the full disk: the temporary file may not grow past 1 kB.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string m = message([&] { writer.write(f.path(), "a.tokens"); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, old);
  EXPECT_THAT(m, HasSubstr("a.tokens: cannot write: File too large"));
  EXPECT_EQ(list_folder(f.path()), std::vector<std::string>{});
  EXPECT_EQ(writer.write(f.path(), "a.tokens").tokens, 70'000) << "what was gathered is not lost";
}

}  // namespace
}  // namespace fathom::data
