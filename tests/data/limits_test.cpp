#include <cstring>

#include "bounds.h"
#include "helpers.h"
#include "data/prepare.h"
#include "data/shards.h"

namespace fathom::data {
namespace {

using namespace limits;

Json manifest() {
  Manifest m;
  m.tokenizer_identity = std::string(32, 'a');
  m.vocab_size = 50;
  m.options = Json::object();
  return m.to_json();
}

void read(const char* pointer, const Json& value) {
  Json json = manifest();
  json[Json::json_pointer(pointer)] = value;
  Manifest::from_json(json, "manifest.json");
}

Json shard(int64_t tokens, int64_t documents) {
  const Json one = {{"file", "train-00000.tokens"}, {"tokens", tokens}, {"documents", documents}, {"text_bytes", 1}, {"file_bytes", 1}, {"hash", std::string(32, 'a')}};
  return {{"tokens", tokens}, {"documents", documents}, {"text_bytes", 1}, {"shards", Json::array({one})}};
}

void zeros(const char* pointer, int64_t n) { read(pointer, Json(std::vector<int>(static_cast<size_t>(n), 0))); }  // refused one by one, if not for their number

TEST(Limits, Manifest) {
  expect_bound("kShardTokens", [] { read("/splits/train", shard(kShardTokens, 1)); }, [] { read("/splits/train", shard(kShardTokens + 1, 1)); },
               "shards[0].tokens: found the number 68719476737");
  expect_bound("kShardDocuments", [] { read("/splits/train", shard(kShardTokens, kShardDocuments)); }, [] { read("/splits/train", shard(kShardTokens, kShardDocuments + 1)); },
               "shards[0].documents: found the number 4294967297");
  expect_bound("kShards", [] { zeros("/splits/train/shards", kShards); }, [] { zeros("/splits/train/shards", kShards + 1); }, "at most 1048576");
  expect_bound("kSourceFiles", [] { read("/sources/count", kSourceFiles); }, [] { read("/sources/count", kSourceFiles + 1); }, "sources.count: found the number 16777217");
  expect_bound("kManifestSources", [] { zeros("/sources/files", kManifestSources); }, [] { zeros("/sources/files", kManifestSources + 1); }, "an array of at most 4096");
}

TEST(Limits, AManifestIsHeldAgainstItsBoundBeforeItIsRead) {  // kManifestBytes
  Files f;
  f.put("set/x", "");
  hollow_file(f("set/manifest.json"), kManifestBytes + 1);
  EXPECT_THAT(error_message([&] { Dataset::open(f("set")); }), ::testing::HasSubstr(str("found ", kManifestBytes + 1, " bytes, expected at most ", kManifestBytes)));
}

TEST(Limits, ShardFile) {  // "at" is a file shorter than it claims
  Files f;
  ShardWriter writer(100, std::string(32, 'a'));
  writer.add(std::vector<int32_t>{1, 2}, 2);
  writer.write(f.path(), "good");
  const std::string good = read_file(f("good"), 1 << 20);
  const auto claim = [&](int64_t tokens, int64_t documents) {
    std::string bytes = good;
    std::memcpy(bytes.data() + 16, &tokens, 8);
    std::memcpy(bytes.data() + 24, &documents, 8);
    ShardFile{f.put("bad.tokens", bytes)};
  };
  expect_bound("kShardTokens", [&] { claim(kShardTokens, 1); }, [&] { claim(kShardTokens + 1, 1); }, "tokens: found 68719476737");
  expect_bound("kShardDocuments", [&] { claim(kShardTokens, kShardDocuments); }, [&] { claim(kShardTokens, kShardDocuments + 1); }, "documents: found 4294967297");
}

// A frame of one raw block, written by hand: zstd itself shrinks the window of a small text.
std::string frame(int window_log) {
  std::string out = "\x28\xb5\x2f\xfd";
  out += '\0';                                       // no content size, no checksum, a window descriptor follows
  out += static_cast<char>((window_log - 10) << 3);  // 2^(10 + exponent)
  const std::string text = "hello";
  const uint32_t block = 1 | static_cast<uint32_t>(text.size()) << 3;  // the last one, raw
  for (int i = 0; i < 3; ++i) out += static_cast<char>(block >> (8 * i));
  return out + text;
}

TEST(Limits, ZstdWindow) {
  Files f;
  const auto read_frame = [&](int window_log) { EXPECT_EQ(documents_of({f.put("x.txt.zst", frame(window_log))}), std::vector<std::string>{"hello"}); };
  expect_bound("kZstdWindowLog", [&] { read_frame(kZstdWindowLog); }, [&] { read_frame(kZstdWindowLog + 1); }, "x.txt.zst");
}

TEST(Limits, Defaults) {
  EXPECT_EQ(DocumentOptions{}.max_line_bytes, kLineBytes) << "documents_test.cpp tries a line at a lower bound and past it";
}

}  // namespace
}  // namespace fathom::data
