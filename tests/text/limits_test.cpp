#include <sys/mman.h>

#include "bounds.h"
#include "fixtures.h"
#include "text/bpe_train.h"
#include "text/chat_template.h"
#include "text/gguf_vocabulary.h"

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

// A "gpt2" model of one long token, or a "llama" one whose long piece is cut in all ways.
void vocabulary(const char* model, int64_t token_bytes) {
  const std::string token = letters(token_bytes);
  const std::vector<std::string_view> tokens = {"x", token, "xx"}, merges = {"x x"};
  const std::vector<float> scores = {0, -1, -2};
  const std::vector<int32_t> types = {1, 1, 1};
  GgufVocabulary v;
  v.model = model, v.pre = "gpt-2", v.tokens = tokens, v.token_type = types;
  if (v.model == "llama") v.scores = scores;
  else v.merges = merges;
  Tokenizer::from_gguf(v, "model.gguf");
}
void vocabulary_merges(int64_t n) {
  const std::vector<std::string_view> tokens = {"x", "xx"}, merges(static_cast<size_t>(n), "x");  // refused one by one, if not for their number
  GgufVocabulary v;
  v.model = "gpt2", v.pre = "gpt-2", v.tokens = tokens, v.merges = merges;
  Tokenizer::from_gguf(v, "model.gguf");
}

TEST(Limits, GgufVocabulary) {
  expect_bound("kTokenBytes", [] { vocabulary("gpt2", kTokenBytes); }, [] { vocabulary("gpt2", kTokenBytes + 1); }, "a token of 65537 bytes");
  expect_bound("kPieceBytes", [] { vocabulary("llama", kPieceBytes); }, [] { vocabulary("llama", kPieceBytes + 1); }, "a piece of 1025 bytes");
  expect_bound("kMerges", [] { vocabulary_merges(kMerges); }, [] { vocabulary_merges(kMerges + 1); }, "4194305 merges");
  const std::vector<std::string_view> many(static_cast<size_t>(kVocabulary) + 1);
  GgufVocabulary v;
  v.model = "gpt2", v.tokens = many;
  EXPECT_THAT(error_message([&] { Tokenizer::from_gguf(v, "model.gguf"); }), ::testing::HasSubstr("16777217 tokens")) << "kVocabulary";
}

std::string repeated(const std::string& text, int64_t n) {
  std::string out;
  for (int64_t i = 0; i < n; ++i) out += text;
  return out;
}
std::string rendered(const std::string& source, int64_t content_bytes = 1) {
  const std::vector<ChatMessage> messages = {{"user", letters(content_bytes)}};
  return ChatTemplate(source, "template").render(messages);
}
void brackets(int64_t n) { rendered("{{ " + repeated("(", n - 1) + "1" + repeated(")", n - 1) + " }}"); }
void minuses(int64_t n) { rendered("{{ " + repeated("- ", n - 1) + "1 }}"); }
void sums(int64_t n) { rendered("{{ 1" + repeated(" + 1", n - 1) + " }}"); }
void blocks(int64_t n) { rendered(repeated("{% if 1 %}", n - 1) + repeated("{% endif %}", n - 1)); }  // the template itself is one
void values(int64_t n) { rendered("{% set ns = namespace(v=[]) %}{% for i in range(" + str(n - 1) + ") %}{% set ns.v = [ns.v] %}{% endfor %}{{ ns.v | length }}"); }

TEST(Limits, ChatTemplate) {
  expect_bound("kChatTemplateBytes", [] { rendered(letters(kChatTemplateBytes)); }, [] { rendered(letters(kChatTemplateBytes + 1)); }, "a chat template of 262145 bytes");
  const char* deep = "nesting deeper than 128";
  // The template's body is the first level, an expression in it the second.
  expect_bound("kChatTemplateDepth, brackets", [] { brackets(kChatTemplateDepth - 1); }, [] { brackets(kChatTemplateDepth); }, deep);
  expect_bound("kChatTemplateDepth, signs", [] { minuses(kChatTemplateDepth - 1); }, [] { minuses(kChatTemplateDepth); }, deep);
  expect_bound("kChatTemplateDepth, operators", [] { sums(kChatTemplateDepth); }, [] { sums(kChatTemplateDepth + 1); }, deep);
  expect_bound("kChatTemplateDepth, blocks", [] { blocks(kChatTemplateDepth); }, [] { blocks(kChatTemplateDepth + 1); }, deep);
  expect_bound("kChatTemplateDepth, values", [] { values(kChatTemplateDepth); }, [] { values(kChatTemplateDepth + 1); }, "values nested deeper than 128");
  expect_bound("kChatBytes, output", [] { rendered("{{ messages[0].content }}", kChatBytes); }, [] { rendered("{{ messages[0].content }}", kChatBytes + 1); }, "more than 67108864 bytes of output");
  expect_bound("kChatBytes, a text", [] { rendered("{% set x = 'x' * 67108864 %}"); }, [] { rendered("{% set x = 'x' * 67108865 %}"); }, "at most 67108864");
}

// Text costs steps, 16 bytes each, and little time: three texts as large as may be, and a fourth of n KiB.
void text_steps(int64_t n) {
  const std::string kib = letters(kKiB), most = str("{% if '", kib, "' * ", kChatBytes / kKiB, " %}{% endif %}");
  rendered(most + most + most + str("{% if '", kib, "' * ", n, " %}{% endif %}"));
}

TEST(Limits, ChatTemplateSteps) {
  static_assert(kChatTemplateSteps == 4 * (kChatBytes / 16));  // so the fourth is nearly as large
  const auto fits = [](int64_t n) { return error_message([&] { text_steps(n); }) == "no error"; };
  int64_t n = kChatBytes / kKiB;
  while (n > 0 && !fits(n)) --n;
  EXPECT_GT(n, kChatBytes / kKiB - 10);
  expect_bound("kChatTemplateSteps", [&] { text_steps(n); }, [&] { text_steps(n + 1); }, "more than 16777216 steps");
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
