// Tokenizers from GGUF metadata made in the test: what they encode to, what the file says, and every fault of the metadata.
// tests/oracle/test_gguf_tokenizer.py does the same with real ones.
#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <limits>

#include "fixtures.h"
#include "text/gguf_vocabulary.h"

namespace fathom::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

// Metadata that owns its strings.
struct Metadata {
  std::string model, pre;
  std::vector<std::string> tokens, merges;
  std::vector<int32_t> types;
  std::vector<float> scores;
  GgufVocabulary rest;

  Tokenizer tokenizer() const {
    const std::vector<std::string_view> t(tokens.begin(), tokens.end()), m(merges.begin(), merges.end());
    GgufVocabulary v = rest;
    v.model = model, v.pre = pre, v.tokens = t, v.merges = m, v.token_type = types, v.scores = scores;
    return Tokenizer::from_gguf(v, "model.gguf");
  }
};

// <|end|> and <|im|> (control), 256 bytes, <think> (user defined), the results of the merges.
Metadata byte_level(const std::string& pre = "gpt-2") {
  Metadata m;
  m.model = "gpt2", m.pre = pre;
  m.tokens = {"<|end|>", "<|im|>"};
  for (int b = 0; b < 256; ++b) m.tokens.push_back(byte_to_letter(static_cast<uint8_t>(b)));
  m.types.assign(258, 1);
  m.types[0] = m.types[1] = 3;
  m.tokens.push_back("<think>"), m.types.push_back(4);
  m.merges = {"h e", "l l", "he ll", "1 2", "12 3", "Ġ 1"};
  for (const auto& merge : m.merges) {
    const size_t space = merge.find(' ');
    m.tokens.push_back(merge.substr(0, space) + merge.substr(space + 1)), m.types.push_back(1);
  }
  return m;
}

// <unk> <s> </s>, 256 bytes, then pieces with scores.
Metadata pieces() {
  Metadata m;
  m.model = "llama";
  m.tokens = {"<unk>", "<s>", "</s>"};
  m.types = {2, 3, 3};
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    m.tokens.emplace_back(name), m.types.push_back(6);
  }
  m.scores.assign(m.tokens.size(), 0);
  float score = 0;
  for (const char* piece : {"▁a", "ab", "▁ab", "▁", "a", "b", "c", "<s", ">", "<", "s", "s>", "bc"})
    m.tokens.emplace_back(piece), m.types.push_back(1), m.scores.push_back(--score);
  return m;
}

int32_t id(const Metadata& m, const std::string& token) {
  for (size_t i = 0; i < m.tokens.size(); ++i)
    if (m.tokens[i] == token) return static_cast<int32_t>(i);
  ADD_FAILURE() << token;
  return -1;
}

TEST(GgufVocabulary, ByteLevel) {
  const Metadata m = byte_level();
  const Tokenizer t = m.tokenizer();
  EXPECT_EQ(t.vocab_size(), static_cast<int64_t>(m.tokens.size()));
  EXPECT_THAT(t.encode("hell123"), ElementsAre(id(m, "hell"), id(m, "123")));
  EXPECT_THAT(t.encode("a<think>b"), ElementsAre(id(m, "a"), id(m, "<think>"), id(m, "b")));
  EXPECT_EQ(t.encode("<|end|>", {.allow_special = true}), Ids{0});
  EXPECT_EQ(t.encode("<|end|>").size(), 7u);
  EXPECT_TRUE(t.is_special(0) && !t.is_special(id(m, "<think>")));
  EXPECT_EQ(t.decode(Ids{0, id(m, "hell"), id(m, "<think>")}), "hell<think>");
  EXPECT_EQ(Tokenizer::from_json(t.json(), "again").identity(), t.identity());
}

TEST(GgufVocabulary, PreTokenizers) {
  const auto ids = [](const char* pre, const char* text) { return byte_level(pre).tokenizer().encode(text).size(); };
  EXPECT_EQ(ids("gpt-2", "123 1"), 2u);
  EXPECT_EQ(ids("smollm", "123 1"), 5u);     // single digits
  EXPECT_EQ(ids("llama-bpe", "1234"), 2u);   // by three
  EXPECT_EQ(ids("qwen2", "123"), 3u);
  EXPECT_EQ(ids("llama-bpe", "hell"), 1u);
  for (const char* pre : {"", "default", "phi-2", "mpt", "olmo", "starcoder", "refact", "codeshell", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "smaug-bpe",
                          "dbrx", "qwen35", "deepseek-r1-qwen", "megrez", "tekken", "gpt-4o", "llama4", "falcon", "deepseek-coder", "deepseek-v3"}) {
    const Tokenizer t = byte_level(pre).tokenizer();
    for (const char* text : {"", " ", "hell Hello, WORLD's 1234 \r\n\r\n  x", "中文 テスト 한국어 ²½ e\u0301", "a\tb !!?\n"}) {
      const std::string back = t.decode(t.encode(text));
      const bool nfc = std::string_view(pre) == "qwen35";
      EXPECT_EQ(back, nfc && std::string_view(text).find("\u0301") != std::string_view::npos ? "中文 テスト 한국어 ²½ \u00e9" : text) << pre;
    }
  }
}

TEST(GgufVocabulary, Pieces) {
  const Metadata m = pieces();
  const Tokenizer t = m.tokenizer();
  EXPECT_EQ(t.encode("ab"), Ids{id(m, "▁ab")});
  EXPECT_EQ(t.encode("cabc"), (Ids{id(m, "▁"), id(m, "c"), id(m, "ab"), id(m, "c")}));  // "ab" has a better score than "bc"
  EXPECT_EQ(t.encode("cab"), (Ids{id(m, "▁"), id(m, "c"), id(m, "ab")}));
  EXPECT_EQ(t.encode("\n"), (Ids{id(m, "▁"), id(m, "<0x0A>")}));
  EXPECT_EQ(t.encode("a", {.add_special_tokens = true}), (Ids{1, id(m, "▁a")}));
  EXPECT_EQ(t.encode("<s>", {.allow_special = true}), Ids{1});
  EXPECT_EQ(t.encode("<s>"), (Ids{id(m, "▁"), id(m, "<s"), id(m, ">")}));  // "<s" and ">" are pieces, and still no control token
  EXPECT_EQ(t.decode(t.encode("ab c\u00e9")), "ab c\u00e9");
}

TEST(GgufVocabulary, PiecesWithoutASpaceInFront) {
  Metadata m = pieces();
  m.rest.add_space_prefix = false;
  EXPECT_EQ(m.tokenizer().encode("ab"), Ids{id(m, "ab")});
  EXPECT_EQ(m.tokenizer().decode(m.tokenizer().encode(" ab")), " ab");
}

TEST(GgufVocabulary, PiecesWithoutExtraWhiteSpace) {
  Metadata m = pieces();
  m.rest.remove_extra_whitespaces = true;
  const Tokenizer t = m.tokenizer();
  EXPECT_EQ(t.encode("  a   b "), t.encode("a b"));
  EXPECT_NE(t.encode("a\n b"), t.encode("a\nb"));
}

TEST(GgufVocabulary, PiecesWithMergesAndNoScores) {
  Metadata m = pieces();
  m.scores.clear();
  m.merges = {"a b", "▁ ab"};
  EXPECT_EQ(m.tokenizer().encode("ab"), Ids{id(m, "▁ab")});
}

TEST(GgufVocabulary, OlderFilesWithoutTypes) {
  Metadata m = pieces();
  m.types.clear();
  const Tokenizer t = m.tokenizer();
  EXPECT_TRUE(t.is_special(0) && t.is_special(1) && t.is_special(2));
  EXPECT_EQ(t.encode("<s>"), pieces().tokenizer().encode("<s>"));
  EXPECT_EQ(t.encode("<s>a", {.allow_special = true}), (Ids{1, id(m, "▁a")}));
}

TEST(GgufVocabulary, AnEmptyTokenGetsAName) {
  Metadata m = byte_level();
  m.tokens.push_back(""), m.types.push_back(5);
  EXPECT_EQ(m.tokenizer().token_text(static_cast<int32_t>(m.tokens.size()) - 1), str("[EMPTY_", m.tokens.size() - 1, "]"));
}

TEST(GgufVocabulary, BeginningAndEnd) {
  const EncodeOptions special = {.add_special_tokens = true};
  {  // a file that says nothing has none, whatever its tokens are called
    Metadata m = byte_level();
    m.tokens[0] = "<s>", m.tokens[1] = "</s>";
    EXPECT_EQ(m.tokenizer().bos_id(), std::nullopt);
    EXPECT_EQ(m.tokenizer().eos_id(), std::nullopt);
    m.rest.bos_id = 1, m.rest.eos_id = 0;  // known, and not added
    EXPECT_EQ(m.tokenizer().bos_id(), 1);
    EXPECT_EQ(m.tokenizer().eos_id(), 0);
    EXPECT_EQ(m.tokenizer().encode("", special), Ids{});
    m.rest.add_bos_token = m.rest.add_eos_token = true;
    EXPECT_EQ(m.tokenizer().encode("", special), (Ids{1, 0}));
    EXPECT_EQ(m.tokenizer().bos_id(), 1);
  }
  {  // Llama-3 begins with bos unless the file says no
    Metadata m = byte_level("llama-bpe");
    EXPECT_EQ(m.tokenizer().encode("", special), Ids{});
    m.rest.bos_id = 0;
    EXPECT_EQ(m.tokenizer().encode("", special), Ids{0});
    m.rest.add_bos_token = false;
    EXPECT_EQ(m.tokenizer().encode("", special), Ids{});
  }
  {  // SentencePiece's own ids where a "llama" file does not say, if they are such tokens
    Metadata m = pieces();
    EXPECT_EQ(m.tokenizer().bos_id(), 1);
    EXPECT_EQ(m.tokenizer().eos_id(), 2);
    m.types[1] = 1;
    EXPECT_EQ(m.tokenizer().bos_id(), std::nullopt);
  }
}

TEST(GgufVocabulary, RolesOfATemplateThatMeanSomethingElse) {
  Json json = spm_json();
  json["post_processor"]["special_tokens"]["eos_token"] = {{"id", "eos_token"}, {"ids", {1, 2}}, {"tokens", {"<s>", "</s>"}}};
  EXPECT_EQ(make(json).eos_id(), 2);  // by its name
  json["post_processor"]["special_tokens"]["eos_token"] = {{"id", "eos_token"}, {"ids", {999}}, {"tokens", {"x"}}};
  EXPECT_THAT(error_of([&] { make(json); }), HasSubstr("post_processor.special_tokens.eos_token.ids: found the id 999"));
}

struct Fault {
  std::function<void(Metadata&)> damage;
  const char* says;
};

TEST(GgufVocabulary, Faults) {
  for (const auto& [damage, says] : std::vector<Fault>{
           {[](Metadata& m) { m.model = ""; }, "model.gguf: tokenizer.ggml.model: found no such key"},
           {[](Metadata& m) { m.model = "bert"; }, "tokenizer.ggml.model: found \"bert\" (WordPiece), expected \"gpt2\""},
           {[](Metadata& m) { m.model = "t5"; }, "\"t5\" (Unigram)"},
           {[](Metadata& m) { m.model = "\x01"; }, "found \"\\x01\", expected"},
           {[](Metadata& m) { m.pre = "gpt-5"; }, "tokenizer.ggml.pre: found the pre-tokenizer \"gpt-5\", expected one of default, gpt-2"},
           {[](Metadata& m) { m.tokens.clear(); }, "tokenizer.ggml.tokens: found no tokens"},
           {[](Metadata& m) { m.types.pop_back(); }, "tokenizer.ggml.token_type: found 264 entries, expected 265"},
           {[](Metadata& m) { m.scores = {1}; }, "tokenizer.ggml.scores: found 1 entries, expected 265"},
           {[](Metadata& m) { m.types[3] = 7; }, "tokenizer.ggml.token_type[3]: found 7"},
           {[](Metadata& m) { m.types[3] = -1; }, "tokenizer.ggml.token_type[3]: found -1"},
           {[](Metadata& m) { m.tokens[9] = m.tokens[8]; }, "tokenizer.ggml.tokens[9]: found \"\u0106\", which is also token 8, expected each token once"},
           {[](Metadata& m) { m.tokens[9] = "\xff"; }, "tokenizer.ggml.tokens[9]: found \"\\xff\", expected UTF-8"},
           {[](Metadata& m) { m.tokens[0] = std::string(5000, 'x'); }, "tokenizer.ggml.tokens[0]: found a control or user-defined token of 5000 bytes"},
           {[](Metadata& m) { m.merges.clear(); }, "tokenizer.ggml.merges: found no merges"},
           {[](Metadata& m) { m.merges[1] = "l  l"; }, "tokenizer.ggml.merges[1]: found \"l  l\", expected two tokens with one space"},
           {[](Metadata& m) { m.merges[1] = "ll"; }, "tokenizer.ggml.merges[1]: found \"ll\""},
           {[](Metadata& m) { m.merges[1] = " l"; }, "tokenizer.ggml.merges[1]: found \" l\""},
           {[](Metadata& m) { m.merges[1] = "l m"; }, "tokenizer.ggml.merges[1]: found \"lm\", which the vocabulary lacks"},
           {[](Metadata& m) { m.merges[1] = "zz l"; }, "tokenizer.ggml.merges[1]: found \"zz\", which the vocabulary lacks"},
           {[](Metadata& m) { m.rest.bos_id = 265; }, "tokenizer.ggml.bos_token_id: found 265, expected the id of a token, 0 to 264"},
           {[](Metadata& m) { m.rest.eos_id = -1; }, "tokenizer.ggml.eos_token_id: found -1"},
           {[](Metadata& m) { m.rest.unknown_id = int64_t{1} << 40; }, "tokenizer.ggml.unknown_token_id: found 1099511627776"},
           {[](Metadata& m) { m.rest.padding_id = 4294967295; }, "tokenizer.ggml.padding_token_id: found 4294967295"},
           {[](Metadata& m) { m.rest.add_bos_token = true; }, "tokenizer.ggml.bos_token_id: found no such key, expected the token that add_bos_token"},
           {[](Metadata& m) { m.rest.add_eos_token = true; }, "tokenizer.ggml.eos_token_id: found no such key"},
           {[](Metadata& m) { m.rest.remove_extra_whitespaces = true; }, "tokenizer.ggml.remove_extra_whitespaces: found true for a \"gpt2\" model"},
       }) {
    Metadata m = byte_level();
    damage(m);
    EXPECT_THAT(error_of([&] { m.tokenizer(); }), HasSubstr(says));
  }
  for (const auto& [damage, says] : std::vector<Fault>{
           {[](Metadata& m) { m.scores.clear(); }, "tokenizer.ggml.scores: found no such key"},
           {[](Metadata& m) { m.scores[260] = std::numeric_limits<float>::quiet_NaN(); }, "tokenizer.ggml.scores[260]: found not a number"},
           {[](Metadata& m) { m.tokens[5] = "<0xZZ>"; }, "tokenizer.ggml.tokens[5]: found \"<0xZZ>\" for a byte"},
           {[](Metadata& m) { m.rest.bos_id = 999; }, "tokenizer.ggml.bos_token_id: found 999"},
       }) {
    Metadata m = pieces();
    damage(m);
    EXPECT_THAT(error_of([&] { m.tokenizer(); }), HasSubstr(says));
  }
}

}  // namespace
}  // namespace fathom::text
