#include <cstring>

#include "bounds.h"
#include "data/shards.h"
#include "sample.h"
#include "study/held_out.h"

namespace fathom::study {
namespace {

// A dataset whose validation claims `tokens` tokens, in a file that takes no room on disk: zero is a token of any vocabulary.
void dataset(const std::string& folder, const text::Tokenizer& tokenizer, int64_t tokens) {
  make_folders(folder);
  data::Manifest m;
  m.tokenizer_identity = tokenizer.identity();
  m.vocab_size = tokenizer.vocab_size();
  m.options = Json::object();
  data::ShardWriter writer(m.vocab_size, m.tokenizer_identity);
  writer.add(std::vector<int32_t>{0, 0, 0, 0}, 4);
  data::ShardInfo info = writer.write(folder, "validation-00000.tokens");
  const std::string path = join_path(folder, info.file);
  std::string header = read_file(path, 1 << 20).substr(0, 128);
  std::memcpy(header.data() + 16, &tokens, 8);
  info.tokens = tokens;
  info.file_bytes = 128 + (tokens * 2 + 7) / 8 * 8 + 16;
  hollow_file(path, info.file_bytes);
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "r+b"), &std::fclose);
  ASSERT_EQ(std::fwrite(header.data(), 1, header.size(), file.get()), header.size());
  ASSERT_EQ(std::fseek(file.get(), info.file_bytes - 8, SEEK_SET), 0);
  ASSERT_EQ(std::fwrite(&tokens, 8, 1, file.get()), 1u);
  m.validation.push_back(info);
  atomic_write(join_path(folder, "manifest.json"), m.to_json().dump());
}

TEST(Limits, HeldOutTokens) {  // past the bound only: at it lie a gigabyte of tokens
  TemporaryFolder folder;
  const text::Tokenizer tokenizer = text::Tokenizer::from_json(sample_tokenizer(), "sample");
  const auto load = [&](int64_t tokens) {
    const std::string path = join_path(folder.path(), str(tokens));
    dataset(path, tokenizer, tokens);
    load_held_out({path}, tokenizer, {}, {});
  };
  expect_bound("kEvaluationTokens", [&] { load(1000); }, [&] { load(limits::kEvaluationTokens + 1); }, "more than 268435456 tokens");
}

}  // namespace
}  // namespace fathom::study
