#include "fixtures.h"

namespace fathom::text {
namespace {

using Ids = std::vector<int32_t>;

// Pushes ids one by one; every step must be whole characters, and all together decode().
void check_stream(const Tokenizer& t, const Ids& ids) {
  for (const bool skip : {true, false}) {
    StreamDecoder stream(t, skip);
    std::string all;
    for (const int32_t id : ids) {
      const std::string step = stream.push(id);
      EXPECT_TRUE(is_utf8(step)) << printable(step);
      all += step;
    }
    all += stream.finish();
    EXPECT_EQ(all, t.decode(ids, skip));
  }
}

TEST(StreamDecoder, HoldsBackHalfCharacters) {
  const Tokenizer t = make(hello_json());
  StreamDecoder s(t);
  const Ids e = t.encode("é");
  EXPECT_EQ(s.push(e[0]), "");
  EXPECT_EQ(s.push(e[1]), "é");
  const Ids face = t.encode("😀!");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(s.push(face[static_cast<size_t>(i)]), "");
  EXPECT_EQ(s.push(face[3]), "😀");
  EXPECT_EQ(s.push(face[4]), "!");
  EXPECT_EQ(s.finish(), "");
}

TEST(StreamDecoder, ABrokenCharacterComesOutWhenItIsCertain) {
  const Tokenizer t = make(hello_json());
  StreamDecoder s(t);
  EXPECT_EQ(s.push(*t.token_to_id("Ã")), "");
  EXPECT_EQ(s.push(*t.token_to_id("h")), "\uFFFDh");
  EXPECT_EQ(s.push(*t.token_to_id("Ã")), "");
  EXPECT_EQ(s.finish(), "\uFFFD");
  EXPECT_EQ(s.push(*t.token_to_id("h")), "h");  // as new
}

TEST(StreamDecoder, ByteFallbackAndTheLeadingSpace) {
  const Tokenizer t = make(spm_json());
  StreamDecoder s(t);
  const Ids ids = t.encode("hello 中o");
  std::string all;
  for (const int32_t id : ids) all += s.push(id);
  EXPECT_EQ(all + s.finish(), "hello 中o");
  EXPECT_EQ(s.push(*t.token_to_id("▁hello")), "hello");  // a new text loses its first space again
  EXPECT_EQ(s.push(*t.token_to_id("▁hello")), " hello");
}

TEST(StreamDecoder, StripTakesFromTheEndsOfTheWholeTextOnly) {
  Json json = hello_json();
  json["decoder"] = {{"type", "Sequence"},
                     {"decoders", Json::array({{{"type", "Fuse"}}, {{"type", "Strip"}, {"content", "h"}, {"start", 2}, {"stop", 3}}})}};
  const Tokenizer t = make(json);
  const int32_t h = *t.token_to_id("h"), o = *t.token_to_id("o");
  EXPECT_EQ(t.decode(Ids{h, h, h, o, h, h, o, h, h, h, h}), "hohhoh");
  EXPECT_EQ(t.decode(Ids{o, h, o, h}), "oho");
  EXPECT_EQ(t.decode(Ids{h, o, h, h, o}), "ohho");
  EXPECT_EQ(t.decode(Ids{h, h, h}), "");
  StreamDecoder s(t);
  EXPECT_EQ(s.push(h), "");
  EXPECT_EQ(s.push(o), "o");
  EXPECT_EQ(s.push(h), "");
  EXPECT_EQ(s.push(o), "ho");
  EXPECT_EQ(s.push(h), "");
  EXPECT_EQ(s.finish(), "");
}

TEST(StreamDecoder, GoesOnFromATextThatIsKnown) {
  const Tokenizer t = make(spm_json());
  StreamDecoder s(t);
  s.begin_after(t.encode("hello"));
  EXPECT_EQ(s.push(*t.token_to_id("▁hello")), " hello");  // not the first of a text
  EXPECT_EQ(s.finish(), "");
  EXPECT_EQ(s.push(*t.token_to_id("▁hello")), "hello");  // as new
  // A run of byte tokens at the end is held back until it ends; the reader has its text already.
  StreamDecoder run(t);
  run.begin_after(t.encode("o 中"));
  EXPECT_EQ(run.push(*t.token_to_id("▁w")), " w");
  StreamDecoder longer(t);
  longer.begin_after(t.encode("o 中"));
  for (const int32_t id : t.encode("中")) EXPECT_EQ(longer.push(id), id == *t.token_to_id("▁") ? " " : "");
  EXPECT_EQ(longer.finish(), "中");
  // Half a character was shown as U+FFFD, and is whole now.
  const Tokenizer bytes = make(hello_json());
  const Ids e = bytes.encode("é");
  StreamDecoder half(bytes);
  half.begin_after(Ids{e[0]});
  EXPECT_EQ(half.push(e[1]), "é");
  StreamDecoder broken(bytes);
  broken.begin_after(Ids{e[0]});
  EXPECT_EQ(broken.push(*bytes.token_to_id("h")), "h");
}

std::vector<Json> decoders() {
  Json odd = hello_json();
  odd["decoder"] = {{"type", "Sequence"},
                    {"decoders", Json::array({{{"type", "Fuse"}}, {{"type", "Strip"}, {"content", "h"}, {"start", 2}, {"stop", 3}},
                                              {{"type", "Replace"}, {"pattern", {{"Regex", "l+"}}}, {"content", "L"}}, {{"type", "ByteLevel"}}})}};
  Json meta = spm_json();
  meta["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", true}};
  Json none = hello_json();
  none["decoder"] = nullptr;
  return {hello_json(), spm_json(), odd, meta, none};
}

TEST(StreamDecoder, EqualsDecodeOnRandomIds) {
  Random random(17);
  for (const Json& json : decoders()) {
    const Tokenizer t = make(json);
    for (int i = 0; i < 1500; ++i) {
      Ids ids(random.below(20));
      for (auto& id : ids) id = static_cast<int32_t>(random.below(random.below(2) ? 60 : static_cast<uint64_t>(t.vocab_size()) + 2));
      check_stream(t, ids);
    }
  }
}

TEST(StreamDecoder, WhatItAddsToAKnownTextIsTheRestOfDecode) {
  Random random(23);
  for (const Json& json : decoders()) {
    const Tokenizer t = make(json);
    int rests = 0;
    for (int i = 0; i < 1500; ++i) {
      Ids ids(random.below(20));
      for (auto& id : ids) id = static_cast<int32_t>(random.below(random.below(2) ? 60 : static_cast<uint64_t>(t.vocab_size()) + 2));
      const auto cut = static_cast<std::ptrdiff_t>(random.below(ids.size() + 1));
      StreamDecoder stream(t);
      stream.begin_after(std::span(ids).subspan(0, static_cast<size_t>(cut)));
      std::string added;
      for (auto id = ids.begin() + cut; id != ids.end(); ++id) {
        const std::string step = stream.push(*id);
        EXPECT_TRUE(is_utf8(step)) << printable(step);
        added += step;
      }
      added += stream.finish();
      const std::string before = t.decode(Ids(ids.begin(), ids.begin() + cut)), all = t.decode(ids);
      if (all.starts_with(before)) {
        EXPECT_EQ(before + added, all);
        ++rests;
      } else {  // what follows has changed the end of what was known: a character is whole now, a run of bytes is broken
        EXPECT_TRUE(all.ends_with(added)) << printable(all) << " / " << printable(added);
      }
    }
    EXPECT_GT(rests, 1000);
  }
}

TEST(StreamDecoder, EqualsDecodeOnText) {
  Random random(19);
  for (const Json& json : {hello_json(), spm_json()}) {
    const Tokenizer t = make(json);
    for (int i = 0; i < 500; ++i) check_stream(t, t.encode(random_text(random, 30), {.allow_special = true}));
  }
}

TEST(StreamDecoder, MovesAndOutlivesItsTokenizer) {
  std::unique_ptr<StreamDecoder> s;
  {
    const Tokenizer t = make(hello_json());
    s = std::make_unique<StreamDecoder>(t);
    s->push(*t.token_to_id("Ã"));
  }
  StreamDecoder moved = std::move(*s);
  EXPECT_EQ(moved.push(static_cast<int32_t>(0xa9)), "é");
}

}  // namespace
}  // namespace fathom::text
