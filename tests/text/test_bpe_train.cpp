#include "text/bpe_train.h"

#include <algorithm>
#include <map>

#include "fixtures.h"
#include "text/word_count.h"

namespace fathom::text {
namespace {

BpeTrainResult train(const std::vector<std::string>& documents, BpeTrainOptions options) {
  size_t i = 0;
  return train_bpe(
      [&](std::string& d) {
        if (i == documents.size()) return false;
        d = documents[i++];
        return true;
      },
      options);
}

std::vector<std::string> some_documents(int count) {
  Random random(41);
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) {
    std::string d;
    for (int n = 0; n < 60; ++n) {
      static const char* const kWords[] = {"the", " the", " then", " than", "low", " lower", " lowest", " new", " newest", "\n", "123", " wide", "\nDef", "é"};
      d += kWords[random.below(std::size(kWords))];
    }
    out.push_back(d + random_text(random, 10));
  }
  return out;
}

TEST(BpeTrain, TakesTheMostFrequentPairAndBreaksTiesBySmallerIds) {
  BpeTrainOptions o;
  o.vocab_size = 1 + 256 + 3;
  const auto r = train({"ab ab ab cd cd cd ee"}, o);
  const Json model = parse_json(r.tokenizer_json, "t")["model"];
  // " a"? counts: ab 3, cd 3, " a" 2, " c" 3, " e" 1, ee 1. Of the threes the smallest ids go first: a before c before Ġ.
  EXPECT_EQ(model["merges"], Json::parse(R"([["a","b"],["c","d"],["Ġ","cd"]])"));
  EXPECT_EQ(r.vocab_size, 260);
  EXPECT_EQ(model["vocab"]["<|endoftext|>"], 0);
  EXPECT_EQ(model["vocab"]["!"], 1);
  EXPECT_EQ(model["vocab"]["ab"], 257);
  EXPECT_EQ(r.bytes, 20);
  EXPECT_EQ(r.words, 7);
}

TEST(BpeTrain, StopsWhenNoPairIsFrequentEnough) {
  BpeTrainOptions o;
  EXPECT_EQ(train({"abab abab"}, o).vocab_size, 257 + 2);  // ab, abab; " abab" is seen once
  o.min_frequency = 0;
  EXPECT_EQ(train({"abab abab"}, o).vocab_size, 257 + 3);
}

TEST(BpeTrain, RepeatedLettersAreCountedWithoutOverlap) {
  BpeTrainOptions o;
  o.vocab_size = 257 + 4;
  const auto r = train({std::string(7, 'a') + " " + std::string(7, 'a')}, o);
  const Json merges = parse_json(r.tokenizer_json, "t")["model"]["merges"];
  EXPECT_EQ(merges, Json::parse(R"([["a","a"],["aa","aa"],["aa","a"],["aaaa","aaa"]])"));
}

TEST(BpeTrain, NeitherThreadsNorGroupingChangeAByte) {
  const auto documents = some_documents(300);
  BpeTrainOptions o;
  o.vocab_size = 600;
  const std::string one = train(documents, o).tokenizer_json;
  o.threads = 3;
  EXPECT_EQ(train(documents, o).tokenizer_json, one);
  auto reversed = documents;
  std::reverse(reversed.begin(), reversed.end());
  EXPECT_EQ(train(reversed, o).tokenizer_json, one);
}

TEST(BpeTrain, LongDocumentsAreCutWhereWordsEnd) {
  std::string document;
  for (int i = 0; i < 4; ++i)
    for (const auto& d : some_documents(900)) document += d + "\n";
  ASSERT_GT(document.size(), size_t{3} << 18);
  for (const WordRule rule : {WordRule::gpt2, WordRule::llama3}) {
    WordCounter counter(rule, 2);
    counter.add(document);
    auto got = counter.finish();
    std::map<std::string, int64_t> expected;
    for_each_word(rule, document, [&](size_t b, size_t e) { ++expected[document.substr(b, e - b)]; });
    EXPECT_EQ((std::map<std::string, int64_t>(got.begin(), got.end())), expected);
  }
}

TEST(BpeTrain, CutTextsHaveTheWordsOfTheWhole) {
  Random random(43);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = random_text(random, 30);
    for (size_t cut = safe_cut(text, 0); cut < text.size(); cut = safe_cut(text, cut)) {
      for (const WordRule rule : {WordRule::gpt2, WordRule::llama3, WordRule::qwen2}) {
        std::vector<size_t> whole, parts;
        for_each_word(rule, text, [&](size_t, size_t end) { whole.push_back(end); });
        for_each_word(rule, text.substr(0, cut), [&](size_t, size_t end) { parts.push_back(end); });
        for_each_word(rule, text.substr(cut), [&](size_t, size_t end) { parts.push_back(cut + end); });
        ASSERT_EQ(parts, whole) << printable(text, 300) << " cut at " << cut;
      }
    }
  }
}

TEST(BpeTrain, WhatItWritesIsWhatItCounted) {
  for (const WordPattern pattern : {WordPattern::gpt2, WordPattern::llama3}) {
    BpeTrainOptions o;
    o.pattern = pattern;
    o.vocab_size = 400;
    o.special_tokens = {"<|endoftext|>", "<|im_start|>"};
    const auto r = train(some_documents(200), o);
    EXPECT_EQ(r.vocab_size, 400);
    const Tokenizer t = Tokenizer::from_json(r.tokenizer_json, "trained");
    EXPECT_EQ(t.vocab_size(), 400);
    EXPECT_TRUE(t.is_special(0));
    EXPECT_TRUE(t.is_special(1));
    EXPECT_EQ(t.eos_id(), 0);
    EXPECT_EQ(t.encode(" the then").size(), 2u);
    EXPECT_EQ(t.decode(t.encode("Ünï 中 \xF0\x9F\x98\x80")), "Ünï 中 \xF0\x9F\x98\x80");
  }
}

TEST(BpeTrain, InvalidBytesAreReadAsEncodeReadsThem) {
  BpeTrainOptions o;
  o.vocab_size = 300;
  EXPECT_EQ(train({"a\xff" "a a\xff" "a"}, o).tokenizer_json, train({"a\uFFFDa a\uFFFDa"}, o).tokenizer_json);
}

TEST(BpeTrain, ASpecialTokenIsNeverMadeByMerging) {
  BpeTrainOptions o;
  o.special_tokens = {"ab"};
  const auto r = train({"abab abab abc abc"}, o);
  const Json model = parse_json(r.tokenizer_json, "t")["model"];
  for (const Json& m : model["merges"]) EXPECT_NE(m[0].get<std::string>() + m[1].get<std::string>(), "ab");
  Tokenizer::from_json(r.tokenizer_json, "t");
}

TEST(BpeTrain, ReportsProgressAndStopsWhenTheCallbackThrows) {
  BpeTrainOptions o;
  o.vocab_size = 600;
  int64_t counted = 0, merged = 0;
  o.progress = [&](const std::string& stage, int64_t done, int64_t) { (stage == "count" ? counted : merged) = done; };
  const auto documents = some_documents(300);
  const auto r = train(documents, o);
  EXPECT_EQ(counted, r.bytes);
  EXPECT_EQ(merged, r.vocab_size - 257);
  o.progress = [](const std::string& stage, int64_t, int64_t) {
    if (stage == "merge") throw Interrupted("stop");
  };
  EXPECT_THROW(train(documents, o), Interrupted);
}

TEST(BpeTrain, RefusesOptionsThatMakeNoSense) {
  const auto refused = [](auto set, const char* field) {
    BpeTrainOptions o;
    set(o);
    EXPECT_NE(error_of([&] { train({"a"}, o); }).find(field), std::string::npos) << field;
  };
  refused([](auto& o) { o.vocab_size = 256; }, "vocab_size");
  refused([](auto& o) { o.vocab_size = int64_t{1} << 40; }, "vocab_size");
  refused([](auto& o) { o.threads = 0; }, "threads");
  refused([](auto& o) { o.min_frequency = -1; }, "min_frequency");
  refused([](auto& o) { o.special_tokens = {""}; }, "special_tokens");
  refused([](auto& o) { o.special_tokens = {"x", "<a>"}; }, "special_tokens");
  refused([](auto& o) { o.special_tokens = {"<a>", "<a>"}; }, "twice");
  refused([](auto& o) { o.special_tokens = {"\xff"}; }, "special_tokens");
}

TEST(BpeTrain, NoTextIsRefused) {
  for (const std::vector<std::string>& documents : {std::vector<std::string>{}, {"", ""}}) {
    try {
      train(documents, {});
      FAIL();
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("found no text"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace fathom::text
