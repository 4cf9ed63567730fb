#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/random.h"
#include "data/shards.h"
#include "helpers.h"

namespace fathom::data {
namespace {

using ::testing::HasSubstr;

const std::string kIdentity = "0123456789abcdef0123456789abcdef";

std::vector<std::vector<int32_t>> random_documents(int count, int64_t vocab, uint64_t seed) {
  Random random(seed);
  std::vector<std::vector<int32_t>> all(static_cast<size_t>(count));
  for (auto& d : all) {
    d.resize(1 + random.below(40));
    for (int32_t& t : d) t = static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab)));
  }
  return all;
}

class Shards : public ::testing::TestWithParam<int64_t> {};

TEST_P(Shards, RoundTrip) {
  const int64_t vocab = GetParam();
  Files f;
  const auto documents = random_documents(100, vocab, 7);
  ShardWriter writer(vocab, kIdentity);
  std::vector<int32_t> all;
  for (const auto& d : documents) {
    writer.add(d, 3);
    all.insert(all.end(), d.begin(), d.end());
  }
  writer.add({}, 5);
  EXPECT_EQ(writer.documents(), 100);
  const ShardInfo info = writer.write(f.path(), "a.tokens");
  EXPECT_EQ(writer.tokens(), 0);
  EXPECT_EQ(info.text_bytes, 300);
  const ShardFile shard(f("a.tokens"));
  EXPECT_EQ(shard.tokens(), static_cast<int64_t>(all.size()));
  EXPECT_EQ(shard.documents(), 100);
  EXPECT_EQ(shard.vocab_size(), vocab);
  EXPECT_EQ(shard.dtype(), vocab <= 65536 ? TokenDtype::uint16 : TokenDtype::uint32);
  EXPECT_EQ(shard.tokenizer_identity(), kIdentity);
  EXPECT_EQ(shard.hash(), info.hash);
  EXPECT_EQ(file_size(shard.path()), info.file_bytes);
  std::vector<int32_t> got(all.size());
  shard.read(0, got);
  EXPECT_EQ(got, all);
  int64_t begin = 0;
  for (size_t d = 0; d < documents.size(); ++d) {
    EXPECT_EQ(shard.document_begin(static_cast<int64_t>(d)), begin);
    const int64_t end = begin + static_cast<int64_t>(documents[d].size());
    EXPECT_EQ(shard.document_of(begin), static_cast<int64_t>(d));
    EXPECT_EQ(shard.document_of(end - 1), static_cast<int64_t>(d));
    begin = end;
  }
  EXPECT_EQ(shard.document_begin(100), shard.tokens());
}
INSTANTIATE_TEST_SUITE_P(Widths, Shards, ::testing::Values(5, 4096, 65536, 65537, 200000));

class DatasetTest : public ::testing::Test {
 protected:
  // Shards of 3, 1 and 5 documents in train, one in validation.
  void SetUp() override {
    make_folders(f_("set"));
    Manifest m;
    m.tokenizer_identity = kIdentity;
    m.vocab_size = 50;
    m.eos_id = 0;
    m.options = {{"field", "text"}};
    const auto documents = random_documents(10, 50, 3);
    size_t next = 0;
    for (const int count : {3, 1, 5, 1}) {
      ShardWriter writer(50, kIdentity);
      for (int i = 0; i < count; ++i) writer.add(documents[next++], 10);
      auto& split = next == 10 ? m.validation : m.train;
      split.push_back(writer.write(f_("set"), str(next == 10 ? "validation-" : "train-", split.size(), ".tokens")));
    }
    for (size_t i = 0; i < 9; ++i) train_.insert(train_.end(), documents[i].begin(), documents[i].end()), begins_.push_back(static_cast<int64_t>(train_.size()));
    atomic_write(f_("set/manifest.json"), m.to_json().dump(1));
    manifest_ = m.to_json();
  }
  std::string open_with(const Json& manifest) {
    atomic_write(f_("set/manifest.json"), manifest.dump());
    return message([&] { Dataset::open(f_("set")); });
  }
  Files f_;
  Json manifest_;
  std::vector<int32_t> train_;
  std::vector<int64_t> begins_ = {0};
};

TEST_F(DatasetTest, ReadsAcrossShards) {
  const auto set = Dataset::open(f_("set"));
  EXPECT_EQ(set->tokens(), static_cast<int64_t>(train_.size()));
  EXPECT_EQ(set->documents(), 9);
  EXPECT_EQ(set->text_bytes(), 90);
  EXPECT_EQ(set->manifest().eos_id, 0);
  EXPECT_FALSE(set->manifest().bos_id);
  EXPECT_EQ(set->tokenizer_path(), f_("set/tokenizer.json"));
  for (int64_t begin = 0; begin < set->tokens(); begin += 3)
    for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{17}, set->tokens() - begin}) {
      n = std::min(n, set->tokens() - begin);
      std::vector<int32_t> got(static_cast<size_t>(n));
      set->read(begin, got);
      EXPECT_TRUE(std::equal(got.begin(), got.end(), train_.begin() + begin)) << begin << " " << n;
    }
  for (int64_t d = 0; d <= 9; ++d) EXPECT_EQ(set->document_begin(d), begins_[static_cast<size_t>(d)]);
  for (int64_t t = 0; t < set->tokens(); ++t) {
    const int64_t d = set->document_of(t);
    EXPECT_TRUE(set->document_begin(d) <= t && t < set->document_begin(d + 1)) << t;
  }
  set->verify();
  EXPECT_EQ(Dataset::open(f_("set"), "validation")->documents(), 1);
  EXPECT_TRUE(is_dataset(f_("set")));
  EXPECT_FALSE(is_dataset(f_.path()));
}

TEST_F(DatasetTest, RefusesAnotherTokenizerByName) {
  const auto set = Dataset::open(f_("set"));
  set->require_tokenizer(kIdentity, "the model");
  const std::string m = message([&] { set->require_tokenizer(std::string(32, 'f'), "the model at m"); });
  EXPECT_THAT(m, HasSubstr("tokenizer: found " + kIdentity));
  EXPECT_THAT(m, HasSubstr("expected " + std::string(32, 'f') + ", the tokenizer of the model at m; prepare the data with that tokenizer"));
}

TEST_F(DatasetTest, VerifyFindsADamagedShard) {
  std::string bytes = read_file(f_("set/train-1.tokens"), 1 << 20);
  bytes[128] ^= 1;  // the first token; still below the vocabulary
  atomic_write(f_("set/train-1.tokens"), bytes);
  const auto set = Dataset::open(f_("set"));
  EXPECT_THAT(message([&] { set->verify(); }), HasSubstr("train-1.tokens: hash: found "));
}

TEST_F(DatasetTest, RefusesATokenPastTheVocabulary) {
  std::string bytes = read_file(f_("set/train-0.tokens"), 1 << 20);
  bytes[128 + 4] = 50;
  atomic_write(f_("set/train-0.tokens"), bytes);
  const auto set = Dataset::open(f_("set"));
  std::vector<int32_t> out(4);
  EXPECT_THAT(message([&] { set->read(0, out); }), HasSubstr("train-0.tokens: token 2: found 50, expected less than the vocabulary's 50"));
  set->read(3, std::span(out).first(1));
}

TEST_F(DatasetTest, RefusesBadManifests) {
  const auto with = [&](const std::string& pointer, Json value) {
    Json m = manifest_;
    m[Json::json_pointer(pointer)] = std::move(value);
    return open_with(m);
  };
  struct Case {
    const char* pointer;
    Json value;
    const char* message;
  };
  const Case cases[] = {
      {"/format", "other", "manifest.json: format: found \"other\", expected \"fathom-dataset\""},
      {"/version", 2, "manifest.json: version: found 2, expected 1; a newer program wrote it"},
      {"/version", "1", "manifest.json: version: found the string \"1\", expected a whole number"},
      {"/extra", 1, "manifest.json: extra: found an unknown key"},
      {"/tokenizer/identity", "xyz", "manifest.json: tokenizer.identity: found \"xyz\", expected 32 hexadecimal digits"},
      {"/tokenizer/vocab_size", 0, "manifest.json: tokenizer.vocab_size: found the number 0, expected a whole number from 1"},
      {"/tokenizer/vocab_size", 1e18, "manifest.json: tokenizer.vocab_size: found the number 1e+18"},
      {"/tokenizer/vocab_size", 51, "train-0.tokens: vocab_size: found 50, expected 51 as the manifest says"},
      {"/tokenizer/eos_id", 50, "manifest.json: tokenizer.eos_id: found the number 50, expected a whole number from 0 to 49"},
      {"/tokenizer/identity", std::string(32, 'a'), "train-0.tokens: tokenizer identity: found 0123456789abcdef0123456789abcdef, expected aaaa"},
      {"/splits/train", Json::array(), "manifest.json: splits.train: found an array of 0, expected an object"},
      {"/splits/train/shards", 3, "manifest.json: splits.train.shards: found the number 3, expected an array"},
      {"/splits/train/shards/0/file", "\x1b[2Jtrain-0.tokens", "manifest.json: splits.train.shards[0].file: found \"\\x1b[2Jtrain-0.tokens\", expected the name of a file"},
      {"/splits/train/tokens", 1, "manifest.json: splits.train.tokens: found 1, expected"},
      {"/splits/train/shards/0/file", "../x", "manifest.json: splits.train.shards[0].file: found \"../x\", expected the name of a file in the dataset's folder"},
      {"/splits/train/shards/0/file", "absent", "absent: cannot open: No such file"},
      {"/splits/train/shards/0/hash", 1, "manifest.json: splits.train.shards[0].hash: found the number 1, expected a string"},
      {"/splits/train/shards/1/tokens", -1, "manifest.json: splits.train.shards[1].tokens: found the number -1, expected a whole number from 1"},
      {"/splits/train/shards/1/file_bytes", 7, "train-1.tokens: size: found"},
      {"/sources/count", -1, "manifest.json: sources.count: found the number -1"},
      {"/sources/files", {{"name", 1}}, "manifest.json: sources.files: found an object of 1 key"},
  };
  for (const Case& c : cases) EXPECT_THAT(with(c.pointer, c.value), HasSubstr(c.message)) << c.pointer;
  EXPECT_THAT(message([&] { Dataset::open(f_("nowhere")); }), HasSubstr("nowhere: found no such folder, expected a dataset; make one with: fathom data prepare"));
  EXPECT_THAT(message([&] { Dataset::open(f_.path()); }), HasSubstr("found no manifest.json, expected a dataset"));
  atomic_write(f_("set/manifest.json"), "{\"format\": \"fathom-dataset\", \"format\": 1}");
  EXPECT_THAT(message([&] { Dataset::open(f_("set")); }), HasSubstr("the key \"format\" twice"));
}

// Every byte of the header and of the boundaries, changed in turn, gives an error or a file whose reads stay inside.
TEST(ShardFileFuzz, EveryChangedByteIsCaughtOrHarmless) {
  Files f;
  ShardWriter writer(300, kIdentity);
  for (const auto& d : random_documents(4, 300, 9)) writer.add(d, 1);
  writer.write(f.path(), "a.tokens");
  const std::string good = read_file(f("a.tokens"), 1 << 20);
  int refused = 0, accepted = 0;
  for (size_t i = 0; i < good.size(); ++i)
    for (const int change : {1, 0x80, 0xff}) {
      std::string bytes = good;
      bytes[i] = static_cast<char>(bytes[i] ^ change);
      atomic_write(f("b.tokens"), bytes);
      try {
        const ShardFile shard(f("b.tokens"));
        std::vector<int32_t> out(static_cast<size_t>(shard.tokens()));
        shard.read(0, out);
        for (int64_t t = 0; t < shard.tokens(); ++t) {
          const int64_t d = shard.document_of(t);
          ASSERT_TRUE(d >= 0 && d < shard.documents());
        }
        ++accepted;
      } catch (const UserError& e) {
        EXPECT_THAT(e.what(), HasSubstr("b.tokens: "));
        ++refused;
      }
    }
  EXPECT_GT(refused, 300);
  EXPECT_GT(accepted, 50);
  for (size_t n = 0; n < good.size(); n += 3) {
    atomic_write(f("b.tokens"), std::string_view(good).substr(0, n));
    EXPECT_THROW(ShardFile{f("b.tokens")}, UserError) << n;
  }
}

}  // namespace
}  // namespace fathom::data
