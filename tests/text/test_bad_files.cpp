// Files that are broken or made to harm: each an error that names file, field, what was found and what was expected.
#include <functional>

#include "core/limits.h"
#include "fixtures.h"

namespace fathom::text {
namespace {

struct Case {
  const char* name;
  std::function<void(Json&)> damage;
  std::vector<std::string> says;
};

Json split(const std::string& regex) { return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}}; }

Json nested(const char* type, const char* key, int depth) {
  Json inner = {{"type", type}};
  inner[key] = Json::array();
  for (int i = 0; i < depth; ++i) {
    Json outer = {{"type", type}};
    outer[key] = Json::array({inner});
    inner = outer;
  }
  return inner;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"no model", [](Json& j) { j.erase("model"); }, {"model"}},
      {"model is a string", [](Json& j) { j["model"] = "BPE"; }, {"model", "the string \"BPE\"", "an object"}},
      {"Unigram", [](Json& j) { j["model"]["type"] = "Unigram"; }, {"model.type", "Unigram", "BPE"}},
      {"no type, no merges", [](Json& j) { j["model"].erase("type"), j["model"].erase("merges"); }, {"model.type"}},
      {"no merges", [](Json& j) { j["model"].erase("merges"); }, {"model.merges", "no such key"}},
      {"no vocab", [](Json& j) { j["model"].erase("vocab"); }, {"model.vocab", "no such key"}},
      {"vocab is a list", [](Json& j) { j["model"]["vocab"] = {"a", "b"}; }, {"model.vocab", "an array of 2"}},
      {"empty vocab", [](Json& j) { j["model"]["vocab"] = Json::object(), j["model"]["merges"] = Json::array(), j["added_tokens"] = Json::array(); }, {"model.vocab", "no tokens"}},
      {"id is a string", [](Json& j) { j["model"]["vocab"]["h"] = "1"; }, {"model.vocab[\"h\"]", "the string \"1\"", "a whole number"}},
      {"id is negative", [](Json& j) { j["model"]["vocab"]["h"] = -1; }, {"model.vocab[\"h\"]", "-1"}},
      {"id is a fraction", [](Json& j) { j["model"]["vocab"]["h"] = 1.5; }, {"model.vocab[\"h\"]", "1.5"}},
      {"id is huge", [](Json& j) { j["model"]["vocab"]["h"] = 4'000'000'000u; }, {"model.vocab[\"h\"]", "4000000000", "below"}},
      {"id is past 64 bits", [](Json& j) { j["model"]["vocab"]["h"] = 18446744073709551615u; }, {"model.vocab[\"h\"]", "below"}},
      {"id far above the number of tokens", [](Json& j) { j["model"]["vocab"]["h"] = 10'000'000; }, {"model.vocab[\"h\"]", "10000000", "below"}},
      {"two tokens with one id", [](Json& j) { j["model"]["vocab"]["h"] = 70; }, {"the id 70", "which is also that of", "each id once"}},
      {"a token of 100 kB", [](Json& j) { j["model"]["vocab"][std::string(100'000, 'x')] = 400; }, {"model.vocab", "100000 bytes", "65536"}},
      {"merge of unknown tokens", [](Json& j) { j["model"]["merges"].push_back("q qq"); }, {"model.merges[9]", "\"qq\"", "which the vocabulary lacks"}},
      {"merge whose result is no token", [](Json& j) { j["model"]["merges"].push_back("q x"); }, {"model.merges[9]", "\"qx\""}},
      {"merge of three", [](Json& j) { j["model"]["merges"].push_back("h e l"); }, {"model.merges[9]", "one space"}},
      {"merge of one", [](Json& j) { j["model"]["merges"].push_back("he"); }, {"model.merges[9]", "one space"}},
      {"merge is a number", [](Json& j) { j["model"]["merges"].push_back(3); }, {"model.merges[9]", "the number 3"}},
      {"merge pair of numbers", [](Json& j) { j["model"]["merges"].push_back({1, 2}); }, {"model.merges[9]", "an array of 2"}},
      {"merges is an object", [](Json& j) { j["model"]["merges"] = Json::object(); }, {"model.merges", "an object"}},
      {"dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }, {"model.dropout", "0.1"}},
      {"suffix", [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, {"model.end_of_word_suffix", "</w>"}},
      {"unknown key in the model", [](Json& j) { j["model"]["byte_falback"] = true; }, {"model.byte_falback", "unknown key"}},
      {"unknown key at the top", [](Json& j) { j["pretokenizer"] = nullptr; }, {"pretokenizer", "unknown key", "pre_tokenizer"}},
      {"version", [](Json& j) { j["version"] = "2.0"; }, {"version", "2.0", "1.0"}},
      {"unknown normalizer", [](Json& j) { j["normalizer"] = {{"type", "Precompiled"}}; }, {"normalizer.type", "Precompiled", "NFC"}},
      {"unknown pre-tokenizer", [](Json& j) { j["pre_tokenizer"] = {{"type", "UnicodeScripts"}}; }, {"pre_tokenizer.type", "UnicodeScripts", "ByteLevel"}},
      {"unknown decoder", [](Json& j) { j["decoder"] = {{"type", "WordPiece"}}; }, {"decoder.type", "WordPiece", "ByteFallback"}},
      {"unknown post-processor", [](Json& j) { j["post_processor"] = {{"type", "Magic"}}; }, {"post_processor.type", "Magic", "TemplateProcessing"}},
      {"unknown in a sequence", [](Json& j) { j["decoder"] = {{"type", "Sequence"}, {"decoders", {{{"type", "Fuse"}}, {{"type", "CTC"}}}}}; }, {"decoder.decoders[1].type", "CTC"}},
      {"component without type", [](Json& j) { j["normalizer"] = {{"normalizers", Json::array()}}; }, {"normalizer.type", "no such key"}},
      {"component is a list", [](Json& j) { j["normalizer"] = Json::array(); }, {"normalizer", "an array of 0", "an object"}},
      {"unknown key in a component", [](Json& j) { j["pre_tokenizer"]["use_regexp"] = true; }, {"pre_tokenizer.use_regexp", "unknown key"}},
      {"wrong type in a component", [](Json& j) { j["pre_tokenizer"]["use_regex"] = "yes"; }, {"pre_tokenizer.use_regex", "true or false"}},
      {"sequence is no list", [](Json& j) { j["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", 3}}; }, {"pre_tokenizer.pretokenizers", "the number 3"}},
      {"sequence of thousands", [](Json& j) { j["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json(std::vector<Json>(5000, {{"type", "NFC"}}))}}; }, {"normalizer.normalizers", "at most 64"}},
      {"sequences nested deep", [](Json& j) { j["normalizer"] = nested("Sequence", "normalizers", 20); }, {"nested deeper than 8"}},
      {"pre-tokenizers nested deep", [](Json& j) { j["pre_tokenizer"] = nested("Sequence", "pretokenizers", 20); }, {"nested deeper than 8"}},
      {"decoders nested deep", [](Json& j) { j["decoder"] = nested("Sequence", "decoders", 20); }, {"nested deeper than 8"}},
      {"post-processors nested deep", [](Json& j) { j["post_processor"] = nested("Sequence", "processors", 20); }, {"nested deeper than 8"}},
      {"bad regex", [](Json& j) { j["pre_tokenizer"] = split("[a"); }, {"pre_tokenizer.pattern.Regex", "without its ]"}},
      {"regex of another engine", [](Json& j) { j["pre_tokenizer"] = split("(?<x>a)\\k<x>"); }, {"pre_tokenizer.pattern.Regex"}},
      {"regex too big", [](Json& j) { j["pre_tokenizer"] = split(std::string(20'000, 'a')); }, {"pre_tokenizer.pattern.Regex", "at most 16384"}},
      {"pattern both ways", [](Json& j) { j["pre_tokenizer"] = split("a"), j["pre_tokenizer"]["pattern"]["String"] = "a"; }, {"pre_tokenizer.pattern", "\"String\" or \"Regex\""}},
      {"behaviour unknown", [](Json& j) { j["pre_tokenizer"] = split("a"), j["pre_tokenizer"]["behavior"] = "Dropped"; }, {"pre_tokenizer.behavior", "Dropped", "Isolated"}},
      {"metaspace of two characters", [](Json& j) { j["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "ab"}}; }, {"pre_tokenizer.replacement", "one character"}},
      {"metaspace of two minds", [](Json& j) { j["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", false}, {"prepend_scheme", "always"}}; }, {"pre_tokenizer.add_prefix_space"}},
      {"length zero", [](Json& j) { j["pre_tokenizer"] = {{"type", "FixedLength"}, {"length", 0}}; }, {"pre_tokenizer.length", "the number 0"}},
      {"replace nothing", [](Json& j) { j["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", "x"}}; }, {"normalizer.pattern", "an empty pattern"}},
      {"replace what may be nothing", [](Json& j) { j["normalizer"] = {{"type", "Replace"}, {"pattern", {{"Regex", "^|x*"}}}, {"content", "x"}}; }, {"normalizer.pattern", "matches nothing too"}},
      {"prepend nothing", [](Json& j) { j["normalizer"] = {{"type", "Prepend"}, {"prepend", ""}}; }, {"normalizer.prepend", "an empty text"}},
      {"decoder replaces nothing", [](Json& j) { j["decoder"] = {{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", "x"}}; }, {"decoder.pattern", "an empty pattern"}},
      {"strip of nothing", [](Json& j) { j["decoder"] = {{"type", "Strip"}, {"content", ""}, {"start", 1}, {"stop", 0}}; }, {"decoder.content", "one character"}},
      {"strip without end", [](Json& j) { j["decoder"] = {{"type", "Strip"}, {"content", "a"}, {"start", 1'000'000'000}, {"stop", 0}}; }, {"decoder.start"}},
      {"decoder scheme", [](Json& j) { j["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "last"}}; }, {"decoder.prepend_scheme", "last"}},
      {"added tokens is an object", [](Json& j) { j["added_tokens"] = Json::object(); }, {"added_tokens", "an object"}},
      {"added token without id", [](Json& j) { j["added_tokens"][0].erase("id"); }, {"added_tokens[0].id", "no such key"}},
      {"added token id huge", [](Json& j) { j["added_tokens"][0]["id"] = 16'000'000; }, {"added_tokens", "16000000", "below"}},
      {"added token id negative", [](Json& j) { j["added_tokens"][0]["id"] = -3; }, {"added_tokens[0].id", "-3"}},
      {"added token empty", [](Json& j) { j["added_tokens"][0]["content"] = ""; }, {"added_tokens[0].content", "0 bytes"}},
      {"added token of 10 kB", [](Json& j) { j["added_tokens"][0]["content"] = std::string(10'000, 'x'); }, {"added_tokens[0].content", "4096"}},
      {"added token on another's id", [](Json& j) { j["added_tokens"][0]["id"] = 3; }, {"added_tokens[0]", "the id 3", "which is that of"}},
      {"added token under a second id", [](Json& j) { j["added_tokens"][0]["content"] = "hello"; }, {"added_tokens[0]", "which has the id 259"}},
      {"added token twice", [](Json& j) { j["added_tokens"].push_back(j["added_tokens"][0]); }, {"added_tokens[1]", "twice"}},
      {"added token flag", [](Json& j) { j["added_tokens"][0]["lstrip"] = 1; }, {"added_tokens[0].lstrip", "the number 1"}},
      {"template without text", [](Json& j) { j["post_processor"] = {{"type", "TemplateProcessing"}, {"single", Json::array()}, {"special_tokens", Json::object()}}; }, {"post_processor.single", "no place for the text"}},
      {"template with unknown token", [](Json& j) { j["post_processor"] = {{"type", "TemplateProcessing"}, {"single", {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}}}, {"special_tokens", Json::object()}}; }, {"post_processor.special_tokens.<s>", "no such key"}},
      {"template id out of range", [](Json& j) { j["post_processor"] = {{"type", "TemplateProcessing"}, {"single", {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}}}, {"special_tokens", {{"<s>", {{"ids", {5000}}}}}}}; }, {"post_processor.special_tokens.<s>.ids", "5000"}},
      {"template with $B", [](Json& j) { j["post_processor"] = {{"type", "TemplateProcessing"}, {"single", {{{"Sequence", {{"id", "B"}, {"type_id", 0}}}}}}, {"special_tokens", Json::object()}}; }, {"id", "\"B\""}},
      {"template twice", [](Json& j) { const Json t = {{"type", "TemplateProcessing"}, {"single", {{{"Sequence", {{"id", "A"}}}}}}}; j["post_processor"] = {{"type", "Sequence"}, {"processors", {t, t}}}; }, {"post_processor.processors[1]", "a second template"}},
      {"cls of the wrong form", [](Json& j) { j["post_processor"] = {{"type", "BertProcessing"}, {"cls", "a"}, {"sep", {"b", 66}}}; }, {"post_processor.cls"}},
      {"cls out of range", [](Json& j) { j["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"a", 9999}}, {"sep", {"b", 66}}}; }, {"post_processor.cls", "9999"}},
  };
  return all;
}

TEST(BadTokenizerFile, EachIsAnErrorThatNamesThePlace) {
  for (const Case& c : cases()) {
    Json json = hello_json();
    c.damage(json);
    const std::string message = error_of([&] { Tokenizer::from_json(json.dump(), "dir/tokenizer.json"); });
    EXPECT_NE(message.find("dir/tokenizer.json"), std::string::npos) << c.name << ": " << message;
    for (const std::string& word : c.says) EXPECT_NE(message.find(word), std::string::npos) << c.name << ": " << message << " lacks " << word;
    EXPECT_LT(message.size(), 2000u) << c.name;
  }
}

TEST(BadTokenizerFile, TruncatedAnywhere) {
  const std::string whole = hello_json().dump();
  for (size_t n = 0; n < whole.size(); n += 1 + n / 40) error_of([&] { Tokenizer::from_json(whole.substr(0, n), "cut.json"); });
}

TEST(BadTokenizerFile, NotJsonAtAll) {
  for (const std::string& bytes : {std::string(), std::string("\0\0\0\0", 4), std::string("\xff\xfe"), std::string("{\"a\": \"\xc3\x28\"}"),
                                   std::string(100'000, '['), std::string("{\"a\":") + std::string(50'000, '{'), std::string("{\"model\": 1e999}"),
                                   std::string("{\"a\": 1, \"a\": 2}"), std::string("{\"s\": \"\\ud800\"}"), std::string("[]"), std::string("null"), std::string("3")})
    EXPECT_NE(error_of([&] { Tokenizer::from_json(bytes, "bad.json"); }).find("bad.json"), std::string::npos);
}

TEST(BadTokenizerFile, DuplicateTokensInTheVocabulary) {
  std::string text = hello_json().dump();
  const size_t at = text.find("\"hello\":");
  ASSERT_NE(at, std::string::npos);
  text.insert(at, "\"hello\":261,");
  EXPECT_NE(error_of([&] { Tokenizer::from_json(text, "bad.json"); }).find("twice"), std::string::npos);
}

TEST(BadTokenizerFile, ACatastrophicPatternIsAnErrorWhenItBites) {
  Json json = hello_json();
  json["pre_tokenizer"] = split("(a+)+b");
  const Tokenizer t = make(json);
  EXPECT_EQ(t.encode("aab").size(), 3u);
  const std::string message = error_of([&] { t.encode(std::string(80, 'a') + "cb"); });
  EXPECT_NE(message.find("test.json: pre_tokenizer.pattern.Regex"), std::string::npos) << message;
  EXPECT_EQ(t.encode("aab").size(), 3u);  // the tokenizer goes on
}

TEST(BadTokenizerFile, TruncationAndPaddingAreLeftAside) {
  Json json = hello_json();
  json["truncation"] = {{"max_length", 2}};
  json["padding"] = {{"strategy", "BatchLongest"}};
  EXPECT_EQ(make(json).encode("a b c d e").size(), 9u);
}

}  // namespace
}  // namespace fathom::text
