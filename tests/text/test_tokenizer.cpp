#include "text/tokenizer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "core/file.h"
#include "fixtures.h"

namespace fathom::text {
namespace {

using Ids = std::vector<int32_t>;

Ids ids_of(const Tokenizer& t, const std::vector<std::string>& tokens) {
  Ids out;
  for (const auto& token : tokens) out.push_back(t.token_to_id(token).value());
  return out;
}

TEST(Tokenizer, ByteLevel) {
  const Tokenizer t = make(hello_json());
  EXPECT_EQ(t.encode("hello world"), ids_of(t, {"hello", "Ġworld"}));
  EXPECT_EQ(t.encode("hell"), ids_of(t, {"hell"}));
  EXPECT_EQ(t.encode("é"), ids_of(t, {"Ã", "©"}));
  EXPECT_EQ(t.encode(""), Ids{});
  EXPECT_EQ(t.decode(t.encode("hello wörld\n")), "hello wörld\n");
  EXPECT_EQ(t.vocab_size(), 266);
}

TEST(Tokenizer, MergesGoByRankThenFromTheLeft) {
  const Tokenizer t = make(byte_level_json({"b c", "a b", "a a"}));
  EXPECT_EQ(t.encode("abc"), ids_of(t, {"a", "bc"}));
  EXPECT_EQ(t.encode("aaa"), ids_of(t, {"aa", "a"}));
  EXPECT_EQ(t.encode("aab"), ids_of(t, {"a", "ab"}));
}

TEST(Tokenizer, MergesAsPairsOrAsLines) {
  Json lines = hello_json(), pairs = hello_json();
  for (Json& m : pairs["model"]["merges"]) {
    const std::string s = m.get<std::string>();
    m = Json::array({s.substr(0, s.find(' ')), s.substr(s.find(' ') + 1)});
  }
  Json headed = lines;
  headed["model"]["merges"].insert(headed["model"]["merges"].begin(), "#version: 0.2");
  const Tokenizer a = make(lines), b = make(pairs), c = make(headed);
  EXPECT_EQ(a.encode("hello world"), b.encode("hello world"));
  EXPECT_EQ(a.encode("hello world"), c.encode("hello world"));
  EXPECT_EQ(a.identity(), b.identity());
}

TEST(Tokenizer, IdentityIsOfTheContentNotTheLayout) {
  const Json json = hello_json();
  const Tokenizer a = Tokenizer::from_json(json.dump(), "a"), b = Tokenizer::from_json(json.dump(3), "b");
  EXPECT_EQ(a.identity(), b.identity());
  EXPECT_EQ(a.identity().size(), 32u);
  EXPECT_EQ(b.json(), json.dump(3));
  Json other = json;
  other["added_tokens"][0]["lstrip"] = true;
  EXPECT_NE(make(other).identity(), a.identity());
}

TEST(Tokenizer, SpecialTokensOnlyWhereTheCallerAllowsThem) {
  const Tokenizer t = make(hello_json());
  const int32_t end = t.token_to_id("<|end|>").value();
  EXPECT_EQ(t.encode("hello<|end|>hello", {.allow_special = true}), (Ids{t.token_to_id("hello").value(), end, t.token_to_id("hello").value()}));
  const Ids plain = t.encode("hello<|end|>");
  EXPECT_EQ(std::count(plain.begin(), plain.end(), end), 0);
  EXPECT_EQ(t.decode(plain), "hello<|end|>");
  EXPECT_TRUE(t.is_special(end));
  EXPECT_FALSE(t.is_special(0));
  EXPECT_FALSE(t.is_special(-1));
  EXPECT_FALSE(t.is_special(1 << 30));
  EXPECT_EQ(t.decode(Ids{end, 'I'}), "I");
  EXPECT_EQ(t.decode(Ids{end, 'I'}, false), "<|end|>I");
}

TEST(Tokenizer, ByteFallback) {
  const Tokenizer t = make(spm_json());
  EXPECT_EQ(t.encode("hello"), ids_of(t, {"▁hello"}));
  EXPECT_EQ(t.encode("hello  w"), ids_of(t, {"▁hello", "▁", "▁w"}));
  EXPECT_EQ(t.encode("中"), ids_of(t, {"▁", "<0xE4>", "<0xB8>", "<0xAD>"}));
  EXPECT_EQ(t.encode("o", {.add_special_tokens = true}), ids_of(t, {"<s>", "▁", "o"}));
  EXPECT_EQ(t.encode("", {.add_special_tokens = true}), ids_of(t, {"<s>"}));
  EXPECT_EQ(t.decode(t.encode("hello 中 wé")), "hello 中 wé");
  EXPECT_EQ(t.bos_id(), 1);
  EXPECT_EQ(t.eos_id(), 2);
}

TEST(Tokenizer, BrokenByteRunsDecodeAsTheReferenceDoes) {
  const Tokenizer t = make(spm_json());
  const Ids ids = ids_of(t, {"<0xE4>", "<0xB8>", "o", "<0xE4>", "<0xB8>", "<0xAD>", "<0xFF>"});
  EXPECT_EQ(t.decode(ids), "��o����");  // one bad byte spoils its whole run
}

TEST(Tokenizer, UnknownTokensFuseVanishOrFail) {
  Json json = spm_json();
  json["model"]["byte_fallback"] = false;
  const Tokenizer fused = make(json);
  EXPECT_EQ(fused.encode("o中文o"), ids_of(fused, {"▁", "o", "<unk>", "o"}));
  json["model"]["fuse_unk"] = false;
  const Tokenizer apart = make(json);
  EXPECT_EQ(apart.encode("o中文o"), ids_of(apart, {"▁", "o", "<unk>", "<unk>", "o"}));
  json["model"]["unk_token"] = nullptr;
  const Tokenizer silent = make(json);
  EXPECT_EQ(silent.encode("o中文o"), ids_of(silent, {"▁", "o", "o"}));
  json["model"]["unk_token"] = "[UNK]";
  const Tokenizer missing = make(json);
  EXPECT_EQ(missing.encode("oo"), ids_of(missing, {"▁", "o", "o"}));
  const std::string error = error_of([&] { missing.encode("o中"); });
  EXPECT_NE(error.find("test.json: model.unk_token"), std::string::npos) << error;
  EXPECT_EQ(missing.encode("oo"), ids_of(missing, {"▁", "o", "o"}));  // and goes on
}

TEST(Tokenizer, IgnoreMergesTakesWholeWords) {
  Json json = byte_level_json({"a b"});
  json["model"]["vocab"]["xyz"] = 300;
  json["model"]["vocab"]["Ġxyz"] = 301;
  EXPECT_EQ(make(json).encode("xyz").size(), 3u);
  json["model"]["ignore_merges"] = true;
  const Tokenizer t = make(json);
  EXPECT_EQ(t.encode("xyz xyz ab"), (Ids{300, 301, *t.token_to_id("Ġ"), 256}));
}

TEST(Tokenizer, AddedTokensTakeTheLongestFromTheLeft) {
  Json json = hello_json();
  const auto add = [&](int id, const char* content, const Json& more = Json::object()) {
    Json t = {{"id", id}, {"content", content}, {"special", false}, {"normalized", false}};
    t.update(more);
    json["added_tokens"].push_back(t);
  };
  add(300, "ab");
  add(301, "abc");
  add(302, "bcd");
  add(303, "[L]", {{"lstrip", true}});
  add(304, "[R]", {{"rstrip", true}});
  add(305, "word", {{"single_word", true}});
  const Tokenizer t = make(json);
  EXPECT_EQ(t.encode("abcd"), (Ids{301, *t.token_to_id("d")}));
  EXPECT_EQ(t.encode("h \n [L]  h"), (Ids{*t.token_to_id("h"), 303, *t.token_to_id("Ġ"), *t.token_to_id("Ġ"), *t.token_to_id("h")}));
  EXPECT_EQ(t.encode("[R] \u3000 h"), (Ids{304, *t.token_to_id("h")}));
  EXPECT_EQ(t.encode("word words"), (Ids{305, *t.token_to_id("Ġwor"), *t.token_to_id("d"), *t.token_to_id("s")}));
  EXPECT_EQ(t.encode("[L] [L]"), (Ids{303, 303}));
}

TEST(Tokenizer, WhiteSpaceThatAnAddedTokenTookIsGone) {
  Json json = hello_json();
  json["added_tokens"].push_back({{"id", 300}, {"content", "\n"}, {"special", false}, {"normalized", false}, {"lstrip", true}, {"rstrip", true}});
  const Tokenizer t = make(json);
  EXPECT_EQ(t.encode("h \n \n\n o"), (Ids{*t.token_to_id("h"), 300, *t.token_to_id("o")}));
}

TEST(Tokenizer, NormalizedAddedTokensMatchNormalisedText) {
  Json json = hello_json();
  json["normalizer"] = {{"type", "Lowercase"}};
  json["added_tokens"].push_back({{"id", 300}, {"content", "Yes"}, {"normalized", true}, {"special", false}});
  json["added_tokens"].push_back({{"id", 301}, {"content", "No"}, {"normalized", false}, {"special", false}});
  const Tokenizer t = make(json);
  EXPECT_EQ(t.encode("YESyes"), (Ids{300, 300}));
  EXPECT_EQ(t.encode("Nono").front(), 301);
  EXPECT_EQ(t.encode("Nono").size(), 3u);
}

TEST(Tokenizer, MetaspaceFirstAsksForTheInputsFirstCharacter) {
  Json json = spm_json();
  json["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", true}};
  const auto begins = [&](const Json& normalizer, const std::string& text) {  // with the character, or without
    json["normalizer"] = normalizer;
    const Tokenizer t = make(json);
    return t.token_text(t.encode(text).at(0)).starts_with("▁");
  };
  const auto strip = [](bool left) { return Json{{"type", "Strip"}, {"strip_left", left}, {"strip_right", true}}; };
  EXPECT_TRUE(begins(nullptr, "hello "));
  EXPECT_TRUE(begins(strip(true), "hello "));
  EXPECT_FALSE(begins(strip(true), " hello"));
  EXPECT_FALSE(begins({{"type", "StripAccents"}}, "\u0301hello"));
  EXPECT_TRUE(begins({{"type", "Prepend"}, {"prepend", "w"}}, "hello"));
  EXPECT_TRUE(begins({{"type", "NFKD"}}, "\u00e9"));
  EXPECT_TRUE(begins({{"type", "Replace"}, {"pattern", {{"String", "h"}}}, {"content", "we"}}, "hello"));
  EXPECT_FALSE(begins({{"type", "Replace"}, {"pattern", {{"String", "he"}}}, {"content", "we"}}, "hello"));
}

TEST(Tokenizer, TimeGrowsWithTheWhiteSpaceThatAddedTokensTake) {
  const std::string spaces(100'000, ' ');
  for (int strips = 1; strips < 4; ++strips) {
    Json json = hello_json();
    json["added_tokens"].push_back({{"id", 266}, {"content", " "}, {"special", false}, {"normalized", false}, {"lstrip", (strips & 1) != 0}, {"rstrip", (strips & 2) != 0}});
    const Tokenizer t = make(json);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(t.encode(spaces).size(), strips == 3 ? 1 : spaces.size()) << strips;
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3)) << strips;
  }
}

TEST(Tokenizer, InvalidUtf8IsReadAsReplacementCharacters) {
  const Tokenizer t = make(hello_json());
  EXPECT_EQ(t.encode("a\xff" "b\xe4\xb8"), t.encode("a\uFFFDb\uFFFD"));
  EXPECT_EQ(t.encode("\xed\xa0\x80"), t.encode("\uFFFD\uFFFD\uFFFD"));
}

TEST(Tokenizer, TokenTextsAndBytes) {
  const Tokenizer t = make(hello_json()), s = make(spm_json());
  EXPECT_EQ(t.token_text(*t.token_to_id("Ġworld")), "Ġworld");
  EXPECT_EQ(t.token_bytes(*t.token_to_id("Ġworld")), " world");
  EXPECT_EQ(t.token_bytes(0xc3), "\xc3");
  EXPECT_EQ(t.token_bytes(*t.token_to_id("<|end|>")), "<|end|>");
  EXPECT_EQ(s.token_bytes(*s.token_to_id("▁hello")), " hello");
  EXPECT_EQ(s.token_bytes(*s.token_to_id("<0xE4>")), "\xe4");
  EXPECT_EQ(t.token_text(-1), "");
  EXPECT_EQ(t.token_bytes(99999), "");
  EXPECT_EQ(t.token_to_id("nothing"), std::nullopt);
}

TEST(Tokenizer, EndsAreFoundByTheirUsualNames) {
  Json json = hello_json();
  EXPECT_EQ(make(json).eos_id(), std::nullopt);
  json["added_tokens"][0]["content"] = "<|endoftext|>";
  EXPECT_EQ(make(json).eos_id(), 265);
  EXPECT_EQ(make(json).bos_id(), std::nullopt);
  json["post_processor"] = {{"type", "RobertaProcessing"}, {"cls", {"a", 65}}, {"sep", {"b", 66}}, {"trim_offsets", true}, {"add_prefix_space", false}};
  const Tokenizer t = make(json);
  EXPECT_EQ(t.encode("C", {.add_special_tokens = true}), (Ids{65, *t.token_to_id("C"), 66}));
  EXPECT_EQ(t.bos_id(), 65);
  EXPECT_EQ(t.eos_id(), 66);
}

TEST(Tokenizer, TemplatesGoAroundTheText) {
  Json json = spm_json();
  json["post_processor"]["single"].push_back({{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}});
  json["post_processor"]["special_tokens"]["</s>"] = {{"id", "</s>"}, {"ids", {2, 0}}, {"tokens", {"</s>", "<unk>"}}};
  const Tokenizer t = make(json);
  EXPECT_EQ(t.encode("o", {.add_special_tokens = true}), ids_of(t, {"<s>", "▁", "o", "</s>", "<unk>"}));
  EXPECT_EQ(t.encode("o"), ids_of(t, {"▁", "o"}));
}

// Long words that differ in their last bytes only, many more of them than the cache has places, each of few ids.
TEST(Tokenizer, TheCacheConfusesNoWords) {
  const Tokenizer t = make(byte_level_json({"x x", "xx xx", "xxxx xxxx", "xxxxxxxx xxxxxxxx"}));
  for (size_t length = 20; length <= 33; ++length)
    for (int i = 0; i < 23 * 23 * 23; ++i) {
      std::string word(length, 'x');
      for (int k = 0, n = i; k < 3; ++k, n /= 23) word[length - 1 - static_cast<size_t>(k)] = static_cast<char>('a' + n % 23);
      ASSERT_EQ(t.decode(t.encode(word)), word);
    }
}

TEST(Tokenizer, HolesInTheIdsAreNoTokens) {
  Json json = hello_json();
  json["added_tokens"][0]["id"] = 1000;
  const Tokenizer t = make(json);
  EXPECT_EQ(t.vocab_size(), 1001);
  EXPECT_EQ(t.token_text(500), "");
  EXPECT_EQ(t.decode(Ids{40, 500, 40}), t.decode(Ids{40, 40}));
  EXPECT_EQ(t.decode(Ids{-5, 2000000}), "");
}

TEST(Tokenizer, LoadsAFileOrAFolder) {
  const TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "tokenizer.json");
  error_of([&] { Tokenizer::load(folder.path()); });
  atomic_write(path, hello_json().dump());
  EXPECT_EQ(Tokenizer::load(path).identity(), Tokenizer::load(folder.path()).identity());
  EXPECT_NE(error_of([&] { Tokenizer::load(join_path(folder.path(), "no.json")); }).find("no.json"), std::string::npos);
}

TEST(Tokenizer, TextsThatAreTooLongAreRefused) {
  Json json = hello_json();
  json["pre_tokenizer"]["use_regex"] = false;
  const Tokenizer t = make(json);
  const std::string text((64 << 20) + 1, 'x');
  EXPECT_NE(error_of([&] { t.encode(text); }).find("between two cuts"), std::string::npos);
}

// The plainest BPE there is.
Ids reference_bpe(const Tokenizer& t, const std::vector<std::string>& merges, std::vector<std::string> symbols) {
  while (true) {
    size_t best = merges.size(), where = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const size_t rank = static_cast<size_t>(std::find(merges.begin(), merges.end(), symbols[i] + " " + symbols[i + 1]) - merges.begin());
      if (rank < best) best = rank, where = i;
    }
    if (best == merges.size()) break;
    symbols[where] += symbols[where + 1];
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(where) + 1);
  }
  return ids_of(t, symbols);
}

TEST(Tokenizer, MergesEqualThePlainestBpeOnWordsOfEveryLength) {
  Random random(3);
  for (int round = 0; round < 30; ++round) {
    std::vector<std::string> tokens = {"a", "b", "c"}, merges;
    while (merges.size() < 25) {
      const std::string left = tokens[random.below(tokens.size())], right = tokens[random.below(tokens.size())];
      if (std::find(tokens.begin(), tokens.end(), left + right) != tokens.end()) continue;
      tokens.push_back(left + right);
      merges.push_back(left + " " + right);
    }
    for (size_t i = merges.size(); i > 1; --i) std::swap(merges[i - 1], merges[random.below(i)]);
    const Tokenizer t = make(byte_level_json(merges));
    for (int i = 0; i < 60; ++i) {
      std::vector<std::string> symbols;
      std::string word;
      for (uint64_t n = 1 + random.below(i % 3 == 0 ? 200 : 40); n > 0; --n) word += symbols.emplace_back(1, static_cast<char>('a' + random.below(3)));
      const Ids expected = reference_bpe(t, merges, symbols);
      EXPECT_EQ(t.encode(word), expected) << word;
      EXPECT_EQ(t.encode(word), expected) << "from the cache: " << word;
    }
  }
}

TEST(Tokenizer, WordsAreCutBeforeMetaspaceOnlyWhereNoMergeCrosses) {
  // "o▁" is a token here, so the text must stay one word.
  const Json crossing = fallback_json("▁helowrd", {"o ▁", "h e", "l l"});
  const Tokenizer t = make(crossing);
  EXPECT_EQ(t.encode("hello w"), ids_of(t, {"▁", "he", "ll", "o▁", "w"}));
}

TEST(Tokenizer, ManyThreadsAgree) {
  const Tokenizer t = make(hello_json());
  Random random(9);
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  for (int i = 0; i < 200; ++i) texts.push_back(random_text(random, 80)), expected.push_back(t.encode(texts.back()));
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int k = 0; k < 4; ++k)
    threads.emplace_back([&, k] {
      for (size_t i = 0; i < texts.size() * 5; ++i) {
        const size_t at = (i * 7 + static_cast<size_t>(k) * 13) % texts.size();
        wrong += t.encode(texts[at]) != expected[at];
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// Texts that end at the end of their memory: the word cache loads 32 bytes at a time.
TEST(Tokenizer, NothingIsReadBehindTheText) {
  const Tokenizer t = make(hello_json());
  for (size_t n = 0; n < 70; ++n) {
    const std::unique_ptr<char[]> exact(new char[n]);
    std::fill(exact.get(), exact.get() + n, 'h');
    EXPECT_EQ(t.encode({exact.get(), n}).size(), n);
  }
}

}  // namespace
}  // namespace fathom::text
