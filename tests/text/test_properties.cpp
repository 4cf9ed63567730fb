// Properties on generated input.
#include <rapidcheck.h>

#include <cstdlib>

#include "fixtures.h"
#include "text/bpe_train.h"

namespace fathom::text {
namespace {

// The same cases in every run, unless the caller says otherwise.
const bool kConfigured = setenv("RC_PARAMS", "seed=20240601 max_success=300", 0) == 0;

rc::Gen<std::string> texts() {
  const auto scalar = rc::gen::map(rc::gen::oneOf(rc::gen::inRange<uint32_t>(0, 0x80), rc::gen::inRange<uint32_t>(0, 0x3000), rc::gen::inRange<uint32_t>(0, 0x110000),
                                                  rc::gen::element<uint32_t>(' ', '\n', '\'', 's', 0x301, 0x200d, 0x2581)),
                                   [](uint32_t c) -> char32_t { return c >= 0xd800 && c <= 0xdfff ? 'x' : c; });
  return rc::gen::map(rc::gen::container<std::vector<char32_t>>(scalar), [](const std::vector<char32_t>& chars) {
    std::string out;
    for (const char32_t c : chars) utf8_append(out, c);
    return out;
  });
}

const Tokenizer& trained() {
  static const Tokenizer t = [] {
    bool given = false;
    BpeTrainOptions o;
    o.vocab_size = 400;
    const auto result = train_bpe(
        [&](std::string& d) {
          d = "the quick brown fox, the quicker fox.\n\n    the lazy dog's 123 456 bones; the fox isn't the dog\n    the end\n";
          return !std::exchange(given, true);
        },
        o);
    return Tokenizer::from_json(result.tokenizer_json, "trained");
  }();
  return t;
}

TEST(TokenizerProperties, ByteLevelRoundTrip) {
  ASSERT_TRUE(kConfigured);
  EXPECT_TRUE(rc::check("decode(encode(x)) == x", [] {
    const std::string x = *texts();
    for (const Tokenizer& t : {trained(), make(hello_json())}) {
      RC_ASSERT(t.decode(t.encode(x), false) == x);
      RC_ASSERT(t.decode(t.encode(x, {.allow_special = true}), false) == x);
    }
  }));
}

TEST(TokenizerProperties, AnyBytesDecodeToTheirRepair) {
  EXPECT_TRUE(rc::check("decode(encode(x)) == repair(x)", [] {
    const auto x = *rc::gen::container<std::string>(rc::gen::arbitrary<char>());
    RC_ASSERT(trained().decode(trained().encode(x), false) == utf8_repair(x));
  }));
}

TEST(TokenizerProperties, TokenBytesSpellTheText) {
  EXPECT_TRUE(rc::check("token_bytes, joined, are the text", [] {
    const std::string x = *texts();
    std::string joined;
    for (const int32_t id : trained().encode(x, {.allow_special = true})) joined += trained().token_bytes(id);
    RC_ASSERT(joined == x);
  }));
}

TEST(TokenizerProperties, StreamEqualsBatch) {
  EXPECT_TRUE(rc::check("stream == batch on any ids", [] {
    const Tokenizer t = *rc::gen::element(trained(), make(spm_json()));
    const auto ids = *rc::gen::container<std::vector<int32_t>>(rc::gen::inRange<int32_t>(-2, 420));
    StreamDecoder s(t);
    std::string all;
    for (const int32_t id : ids) {
      const std::string step = s.push(id);
      RC_ASSERT(is_utf8(step));
      all += step;
    }
    RC_ASSERT(all + s.finish() == t.decode(ids));
  }));
}

}  // namespace
}  // namespace fathom::text
