#include <sys/mman.h>

#include "bounds.h"
#include "fixtures.h"
#include "text/bpe_train.h"

namespace fathom::text {
namespace {

using namespace limits;

void read(const Json& json) { Tokenizer::from_json(json.dump(), "tokenizer.json"); }
std::string letters(int64_t n) { return std::string(static_cast<size_t>(n), 'x'); }

void read_with(const char* pointer, const Json& value) {
  Json json = hello_json();
  json[Json::json_pointer(pointer)] = value;
  read(json);
}

void added(int64_t bytes) { read_with("/added_tokens/0/content", letters(bytes)); }
void token(int64_t bytes) { read_with(("/model/vocab/" + letters(bytes)).c_str(), 266); }
void zeros(const char* pointer, int64_t n) {  // refused one by one, if not for their number; millions of them go straight into the text
  Json json = hello_json();
  json[Json::json_pointer(pointer)] = "zeros";
  std::string text = json.dump(), list = "[0";
  list.reserve(static_cast<size_t>(2 * n + 1));
  for (int64_t i = 1; i < n; ++i) list += ",0";
  text.replace(text.find("\"zeros\""), 7, list += ']');
  list = std::string();
  Tokenizer::from_json(text, "tokenizer.json");
}
void pattern(int64_t bytes) {
  read_with("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", letters(bytes)}}}, {"behavior", "Isolated"}, {"invert", false}});
}
void stages(const char* part, const char* key, const Json& stage, int64_t n) {
  read_with(str("/", part).c_str(), {{"type", "Sequence"}, {key, Json(std::vector<Json>(static_cast<size_t>(n), stage))}});
}
void pieces(int64_t n) {
  Json single = Json::array({{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}});
  for (int64_t i = 1; i < n; ++i) single.push_back({{"SpecialToken", {{"id", "e"}, {"type_id", 0}}}});
  read_with("/post_processor", {{"type", "TemplateProcessing"}, {"single", single}, {"pair", single},
                                {"special_tokens", {{"e", {{"id", "e"}, {"ids", {3}}, {"tokens", {"e"}}}}}}});
}

TEST(Limits, TokenizerFile) {
  expect_bound("kTokenBytes", [] { token(kTokenBytes); }, [] { token(kTokenBytes + 1); }, "a token of 65537 bytes");
  expect_bound("kAddedTokenBytes", [] { added(kAddedTokenBytes); }, [] { added(kAddedTokenBytes + 1); }, "a text of 4097 bytes");
  expect_bound("kPatternBytes", [] { pattern(kPatternBytes); }, [] { pattern(kPatternBytes + 1); }, "a pattern of 16385 bytes");
  expect_bound("kTokenizerStages, normalizers", [] { stages("normalizer", "normalizers", {{"type", "NFC"}}, kTokenizerStages); },
               [] { stages("normalizer", "normalizers", {{"type", "NFC"}}, kTokenizerStages + 1); }, "at most 64");
  expect_bound("kTokenizerStages, decoders", [] { stages("decoder", "decoders", {{"type", "Fuse"}}, kTokenizerStages); },
               [] { stages("decoder", "decoders", {{"type", "Fuse"}}, kTokenizerStages + 1); }, "at most 64");
  expect_bound("kTokenizerStages, pre-tokenizers", [] { stages("pre_tokenizer", "pretokenizers", {{"type", "WhitespaceSplit"}}, kTokenizerStages); },
               [] { stages("pre_tokenizer", "pretokenizers", {{"type", "WhitespaceSplit"}}, kTokenizerStages + 1); }, "at most 64");
  expect_bound("kTemplateTokens", [] { pieces(kTemplateTokens); }, [] { pieces(kTemplateTokens + 1); }, "an array of at most 1024 pieces");
}

TEST(Limits, TokenizerLists) {
  expect_bound("kAddedTokens", [] { zeros("/added_tokens", kAddedTokens); }, [] { zeros("/added_tokens", kAddedTokens + 1); }, "an array of at most 1048576 objects");
  expect_bound("kMerges", [] { zeros("/model/merges", kMerges); }, [] { zeros("/model/merges", kMerges + 1); }, "an array of at most 4194304 pairs");
}

TEST(Limits, ATokenizerFileIsHeldAgainstItsBoundBeforeItIsRead) {  // kJsonBytes
  TemporaryFolder folder;
  const std::string path = hollow_file(join_path(folder.path(), "tokenizer.json"), kJsonBytes + 1);
  EXPECT_THAT(error_message([&] { Tokenizer::load(path); }), ::testing::HasSubstr(str("found ", kJsonBytes + 1, " bytes, expected at most ", kJsonBytes)));
}

TEST(Limits, WordsAndDocuments) {  // past the bounds only: work at them takes gigabytes and minutes
  Json json = hello_json();
  json["pre_tokenizer"]["use_regex"] = false;
  const Tokenizer whole = Tokenizer::from_json(json.dump(), "tokenizer.json");
  EXPECT_THAT(error_message([&] { whole.encode(letters(kWordBytes + 1)); }), ::testing::HasSubstr("at most 67108864")) << "kWordBytes";
  const size_t size = static_cast<size_t>(kDocumentBytes) + 1;
  void* pages = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  EXPECT_THAT(error_message([&] { whole.encode(std::string_view(static_cast<const char*>(pages), size)); }), ::testing::HasSubstr("at most 1073741824")) << "kDocumentBytes";
  ::munmap(pages, size);
}

}  // namespace
}  // namespace fathom::text
