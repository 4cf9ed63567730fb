// A tokenizer.json as GGUF metadata and back: the same ids on drawn text, and a refusal by name of what GGUF cannot say.
#include <gmock/gmock.h>

#include "core/json.h"
#include "core/random.h"
#include "fixtures.h"
#include "text/bpe_train.h"
#include "text/gguf_export.h"
#include "text/gguf_pre_tokenizer.h"
#include "text/gguf_vocabulary.h"

namespace fathom::text {
namespace {

using ::testing::HasSubstr;

const std::string kText = "The sea is calm tonight, the tide is full; in 1867 \xc3\xbcber caf\xc3\xa9s it's we'll 12345.\n\n  spaces\tand tabs";

Json trained(WordPattern pattern = WordPattern::gpt2) {
  BpeTrainOptions options;
  options.vocab_size = 330;
  options.pattern = pattern;
  int left = 20;
  return Json::parse(train_bpe([&](std::string& text) { return text = kText, left-- > 0; }, options).tokenizer_json);
}

Tokenizer back(const GgufTokenizer& t) {
  const std::vector<std::string_view> tokens(t.tokens.begin(), t.tokens.end()), merges(t.merges.begin(), t.merges.end());
  GgufVocabulary v;
  v.model = "gpt2", v.pre = t.pre, v.tokens = tokens, v.merges = merges, v.token_type = t.token_type;
  v.bos_id = t.bos_id, v.eos_id = t.eos_id, v.add_bos_token = t.add_bos, v.add_eos_token = t.add_eos;
  return Tokenizer::from_gguf(v, "file.gguf");
}

std::string drawn(Random& random) {
  static const char* kParts[] = {"the", " sea", "1867", " ", "\n", "\xc3\xbc", "it's", "<|endoftext|>", "<think>", ".", "\t", "caf", "x", "\xe6\x97\xa5", "'ll", "99", "T"};
  std::string out;
  for (uint64_t n = random.below(25); n-- > 0;) out += kParts[random.below(17)];
  return out;
}

void expect_same(const Json& json, int64_t more = 0) {
  const Tokenizer before = Tokenizer::from_json(json.dump(), "t.json");
  const GgufTokenizer exported = gguf_tokenizer_of(before, before.vocab_size() + more, "t.json");
  const Tokenizer after = back(exported);
  EXPECT_EQ(static_cast<int64_t>(exported.tokens.size()), before.vocab_size() + more);
  EXPECT_EQ(after.bos_id(), before.bos_id());
  EXPECT_EQ(after.eos_id(), before.eos_id());
  for (int32_t id = 0; id < before.vocab_size(); ++id) {
    if (before.token_text(id).empty()) continue;
    EXPECT_EQ(after.token_text(id), before.token_text(id));
    EXPECT_EQ(after.is_special(id), before.is_special(id)) << id;
  }
  Random random(5);
  for (int n = 0; n < 300; ++n) {
    const std::string text = drawn(random);
    for (const EncodeOptions options : {EncodeOptions{}, EncodeOptions{.add_special_tokens = true, .allow_special = true}}) {
      const auto ids = before.encode(text, options);
      EXPECT_EQ(after.encode(text, options), ids) << text;
      EXPECT_EQ(after.decode(ids), before.decode(ids));
    }
  }
}

Json post_processor(int bos, int eos) {
  Json single = Json::array(), special = Json::object();
  const auto end = [&](const char* token, int id) {
    single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
    special[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
  };
  if (bos >= 0) end("<|endoftext|>", bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (eos >= 0) end("<|endoftext|>", eos);
  Json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

TEST(GgufExport, OurOwnTokenizersComeBack) {
  expect_same(trained(WordPattern::gpt2));
  expect_same(trained(WordPattern::llama3));
  expect_same(trained(), 7);  // a model with more rows than its tokenizer has tokens
}

TEST(GgufExport, EndsAndAddedTokensComeBack) {
  Json json = trained();
  json["post_processor"] = post_processor(0, -1);
  expect_same(json);
  json["post_processor"] = post_processor(0, 0);
  expect_same(json);
  const int next = static_cast<int>(Tokenizer::from_json(json.dump(), "t").vocab_size());
  json["added_tokens"].push_back({{"id", next + 2}, {"content", "<think>"}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", false}});
  expect_same(json);  // with two ids that nothing has
  json["model"]["ignore_merges"] = true;
  json["pre_tokenizer"] = Json::parse(gguf_pre_tokenizer("llama-bpe", "t").json);
  expect_same(json);
  json["normalizer"] = {{"type", "NFC"}};
  json["model"]["ignore_merges"] = false;
  json["pre_tokenizer"] = Json::parse(gguf_pre_tokenizer("qwen2", "t").json);
  expect_same(json);
}

TEST(GgufExport, EveryKnownPreTokenizerHasItsName) {
  for (const char* name : {"gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "deepseek-r1-qwen", "tekken", "gpt-4o", "falcon", "deepseek-coder", "deepseek-v3", "qwen35", "default"}) {
    const GgufPreTokenizer p = gguf_pre_tokenizer(name, "t");
    EXPECT_EQ(gguf_pre_tokenizer_name(Json::parse(p.json), p.nfc, p.ignore_merges), name);
  }
  // As the Hugging Face files write it.
  EXPECT_EQ(gguf_pre_tokenizer_name(Json::parse(R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false})"), false, false), "gpt-2");
  EXPECT_EQ(gguf_pre_tokenizer_name(Json::parse(R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false})"), false, false), std::nullopt);
  EXPECT_EQ(gguf_pre_tokenizer_name(Json(), false, false), std::nullopt);
}

std::string refusal(Json json) {
  try {
    gguf_tokenizer_of(Tokenizer::from_json(json.dump(), "t.json"), 400, "t.json");
  } catch (const UserError& e) {
    return e.what();
  }
  return "none";
}

TEST(GgufExport, WhatGgufCannotSayIsRefusedByName) {
  const auto with = [](const std::function<void(Json&)>& change) {
    Json json = trained();
    change(json);
    return refusal(json);
  };
  EXPECT_THAT(with([](Json& j) { j["normalizer"] = {{"type", "Lowercase"}}; }), HasSubstr("t.json: normalizer: found the type \"Lowercase\", expected none, or NFC; GGUF cannot say it"));
  EXPECT_THAT(with([](Json& j) { j["decoder"] = nullptr; }), HasSubstr("t.json: decoder: found null, expected ByteLevel"));
  EXPECT_THAT(with([](Json& j) { j["pre_tokenizer"]["add_prefix_space"] = true; }), HasSubstr("t.json: pre_tokenizer: found a way to cut words that has no name in GGUF"));
  EXPECT_THAT(with([](Json& j) { j["model"]["byte_fallback"] = true; }), HasSubstr("t.json: model.byte_fallback: found true"));
  EXPECT_THAT(with([](Json& j) { j["added_tokens"][0]["lstrip"] = true; }), HasSubstr("t.json: added_tokens[0].lstrip: found true, expected false"));
  EXPECT_THAT(with([](Json& j) { j["model"]["merges"] = Json::array(); }), HasSubstr("t.json: model.merges: found none"));
  EXPECT_THAT(with([](Json& j) {
                j["normalizer"] = {{"type", "NFC"}};
                j["pre_tokenizer"] = Json::parse(gguf_pre_tokenizer("qwen2", "t").json);
                j["added_tokens"][0]["normalized"] = true;
              }), HasSubstr("t.json: added_tokens: found tokens that are looked for in normalised text"));
  EXPECT_THAT(with([](Json& j) {
                j["post_processor"] = post_processor(0, -1);
                j["post_processor"]["single"].insert(j["post_processor"]["single"].begin(), j["post_processor"]["single"][0]);
              }), HasSubstr("t.json: post_processor: found 2 tokens before a text"));
  EXPECT_THAT(with([](Json& j) {  // the letter of a byte is gone
                j["model"]["vocab"].erase("\xc4\xb0");
              }), HasSubstr("t.json: model.vocab: found no token for the byte"));
}

}  // namespace
}  // namespace fathom::text
