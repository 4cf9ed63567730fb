// The flag table: what it accepts, every way in which it refuses, and that the message says where, what and what instead.
#include "cli/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fathom::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

Command sample() {
  Command c{.name = "write", .summary = "Write"};
  c.positional("MODEL", "the model folder");
  c.positionals.push_back({"FILES", "files", false, true});
  c.flag(text_flag("prompt", "TEXT", "how it begins"));
  c.flag(number_flag("temperature", "X", "how random").range(0, 100).otherwise("1"));
  c.flag(integer_flag("top-k", "N", "the best N").range(0, 1000));
  c.flag(count_flag("tokens", "N", "how many").range(1, 1e12).otherwise("64"));
  c.flag(text_flag("rule", "RULE", "which rule").one_of({"causal", "topk", "random"}).otherwise("causal"));
  c.flag(text_flag("stop", "TEXT", "where to stop").many());
  c.flag(path_flag("out", "FILE", "where to"));
  c.flag(boolean_flag("json", "as JSON"));
  c.flag(boolean_flag("stream", "as it comes").otherwise("true"));
  return c;
}

Arguments parse(const std::vector<std::string>& words, const Command& c = sample()) { return parse_arguments(c, "fathom write", words); }

std::string refusal(const std::vector<std::string>& words, const Command& c = sample()) {
  try {
    parse(words, c);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Flags, ValuesInBothSpellings) {
  const Arguments a = parse({"model", "--prompt", "Once upon", "--temperature=0.25", "--top-k", "40", "--tokens=2k", "--json"});
  EXPECT_EQ(a.positional("MODEL"), "model");
  EXPECT_EQ(a.text("prompt"), "Once upon");
  EXPECT_DOUBLE_EQ(a.number("temperature"), 0.25);
  EXPECT_EQ(a.integer("top-k"), 40);
  EXPECT_EQ(a.integer("tokens"), 2000);
  EXPECT_TRUE(a.boolean("json"));
  EXPECT_TRUE(a.given("json"));
}

TEST(Flags, DefaultsAndAbsence) {
  const Arguments a = parse({"model"});
  EXPECT_FALSE(a.given("temperature"));
  EXPECT_TRUE(a.has("temperature"));
  EXPECT_DOUBLE_EQ(a.number("temperature"), 1);
  EXPECT_EQ(a.text("rule"), "causal");
  EXPECT_FALSE(a.has("top-k"));
  EXPECT_EQ(a.maybe_integer("top-k"), std::nullopt);
  EXPECT_EQ(a.text("prompt"), "");
  EXPECT_EQ(a.maybe_text("prompt"), std::nullopt);
  EXPECT_FALSE(a.boolean("json"));
  EXPECT_TRUE(a.boolean("stream"));
  EXPECT_TRUE(a.rest().empty());
}

TEST(Flags, AnEmptyWordIsGiven) {
  const Arguments without = parse({"m"}), empty = parse({"m", ""});
  EXPECT_TRUE(without.given_positional("MODEL"));
  EXPECT_FALSE(without.given_positional("FILES"));
  EXPECT_TRUE(empty.given_positional("FILES"));
  EXPECT_EQ(empty.positional("FILES"), "");
  EXPECT_THROW(without.given_positional("WORD"), std::logic_error);
}

TEST(Flags, SwitchesTurnOnAndOff) {
  EXPECT_FALSE(parse({"m", "--no-stream"}).boolean("stream"));
  EXPECT_FALSE(parse({"m", "--stream=false"}).boolean("stream"));
  EXPECT_TRUE(parse({"m", "--no-stream=false"}).boolean("stream"));
  EXPECT_TRUE(parse({"m", "--no-stream", "--stream"}).boolean("stream"));
  EXPECT_EQ(refusal({"m", "--stream=yes"}), "fathom write: --stream: found \"yes\", expected true, false or no value");
}

TEST(Flags, RepeatedFlagsKeepTheirOrder) {
  const Arguments a = parse({"m", "--stop", "b", "--stop=a", "--stop", ""});
  EXPECT_THAT(a.texts("stop"), ElementsAre("b", "a", ""));
  EXPECT_TRUE(parse({"m"}).texts("stop").empty());
}

TEST(Flags, PositionalsAndTheDoubleDash) {
  const Arguments a = parse({"m", "one", "--json", "two", "--", "--prompt", "-"});
  EXPECT_EQ(a.positional("MODEL"), "m");
  EXPECT_THAT(a.rest(), ElementsAre("one", "two", "--prompt", "-"));
  EXPECT_EQ(parse({"-"}).positional("MODEL"), "-");
}

TEST(Flags, AValueMayBeginWithADash) {
  EXPECT_EQ(parse({"m", "--prompt", "-5"}).text("prompt"), "-5");
  EXPECT_EQ(parse({"m", "--prompt", "-"}).text("prompt"), "-");
  EXPECT_EQ(parse({"m", "--prompt=--json"}).text("prompt"), "--json");
  EXPECT_EQ(parse({"m", "--prompt", "--"}).text("prompt"), "--");
  EXPECT_EQ(parse({"m", "--prompt=a=b"}).text("prompt"), "a=b");
  EXPECT_EQ(parse({"m", "--prompt="}).text("prompt"), "");
}

struct Wrong {
  std::vector<std::string> words;
  std::string message;
};

TEST(Flags, EveryRefusalSaysWhatToDo) {
  const std::vector<Wrong> table = {
      {{}, "fathom write: MODEL: found nothing, expected the model folder; see fathom write --help"},
      {{"m", "--temprature", "1"}, "fathom write: found the flag --temprature, expected a flag of this command; did you mean --temperature?"},
      {{"m", "--no-jso"}, "fathom write: found the flag --no-jso, expected a flag of this command; did you mean --no-json?"},
      {{"m", "--zebra-crossing"}, "fathom write: found the flag --zebra-crossing, expected a flag of this command; see fathom write --help"},
      {{"m", "--no-top-k"}, "fathom write: found the flag --no-top-k, expected a flag of this command; did you mean --top-k?"},
      {{"m", "-json"}, "fathom write: found \"-json\", expected a flag that begins with two dashes; did you mean --json?"},
      {{"m", "-j"}, "fathom write: found \"-j\", expected a flag that begins with two dashes; see fathom write --help"},
      {{"m", "--prompt"}, "fathom write: --prompt: found no value, expected a text; see fathom write --help"},
      {{"m", "--prompt", "--json"},
       "fathom write: --prompt: found the flag \"--json\" where a value should be, expected a text; write --prompt=--json if that is the value"},
      {{"m", "--temperature", "hot"}, "fathom write: --temperature: found \"hot\", expected a number from 0 to 100"},
      {{"m", "--temperature", "-0.1"}, "fathom write: --temperature: found \"-0.1\", expected a number from 0 to 100"},
      {{"m", "--temperature", "101"}, "fathom write: --temperature: found \"101\", expected a number from 0 to 100"},
      {{"m", "--temperature", "nan"}, "fathom write: --temperature: found \"nan\", expected a number from 0 to 100"},
      {{"m", "--temperature", "inf"}, "fathom write: --temperature: found \"inf\", expected a number from 0 to 100"},
      {{"m", "--temperature", "1e999"}, "fathom write: --temperature: found \"1e999\", expected a number from 0 to 100"},
      {{"m", "--temperature", ""}, "fathom write: --temperature: found \"\", expected a number from 0 to 100"},
      {{"m", "--temperature", "1 2"}, "fathom write: --temperature: found \"1 2\", expected a number from 0 to 100"},
      {{"m", "--top-k", "1.5"}, "fathom write: --top-k: found \"1.5\", expected an integer from 0 to 1000"},
      {{"m", "--top-k", "1k"}, "fathom write: --top-k: found \"1k\", expected an integer from 0 to 1000"},
      {{"m", "--top-k", "99999999999999999999"}, "fathom write: --top-k: found \"99999999999999999999\", expected an integer from 0 to 1000"},
      {{"m", "--tokens", "0"}, "fathom write: --tokens: found \"0\", expected an integer from 1 to 1000000000000 (10k, 1e6 and 3M are understood)"},
      {{"m", "--tokens", "1.5"}, "fathom write: --tokens: found \"1.5\", expected an integer from 1 to 1000000000000 (10k, 1e6 and 3M are understood)"},
      {{"m", "--rule", "topkk"}, "fathom write: --rule: found \"topkk\", expected one of causal, topk, random; did you mean topk?"},
      {{"m", "--rule", "x\ny"}, "fathom write: --rule: found \"x\\x0ay\", expected one of causal, topk, random"},
      {{"m", "--out", ""}, "fathom write: --out: found \"\", expected a path"},
      {{"m", "--prompt", "a", "--prompt", "b"}, "fathom write: --prompt: found a second value \"b\", expected the flag once"},
  };
  for (const Wrong& w : table) EXPECT_EQ(refusal(w.words), w.message);
}

TEST(Flags, BoundsOfIntegersAreExact) {  // as doubles, 2^53 and 2^53 + 1 are one number, and INT64_MAX is 2^63
  Command c{.name = "write"};
  constexpr int64_t kWhole = int64_t{1} << 53;
  c.flag(integer_flag("low", "N", "").range(kWhole + 1, INT64_MAX));
  c.flag(count_flag("high", "N", "").range(0, INT64_MAX - 1));
  c.flag(integer_flag("from-zero", "N", "").range(0, 9e18));
  EXPECT_EQ(parse({"--low", "9007199254740993"}, c).integer("low"), kWhole + 1);
  EXPECT_EQ(parse({"--low", "9223372036854775807"}, c).integer("low"), INT64_MAX);
  EXPECT_EQ(parse({"--high", "9223372036854775806"}, c).integer("high"), INT64_MAX - 1);
  EXPECT_EQ(parse({"--from-zero", "9000000000000000000"}, c).integer("from-zero"), 9'000'000'000'000'000'000);
  EXPECT_EQ(refusal({"--low", "9007199254740992"}, c),
            "fathom write: --low: found \"9007199254740992\", expected an integer from 9007199254740993 to 9223372036854775807");
  EXPECT_THAT(refusal({"--high", "9223372036854775807"}, c), HasSubstr("expected an integer from 0 to 9223372036854775806 ("));
  EXPECT_THAT(refusal({"--from-zero", "9000000000000000001"}, c), HasSubstr("expected an integer from 0 to 9000000000000000000"));
  EXPECT_THROW(integer_flag("half", "N", "").range(0.5, 2), std::logic_error);
}

TEST(Flags, TooManyWords) {
  Command c{.name = "info"};
  c.positional("MODEL", "the model folder");
  EXPECT_EQ(refusal({"a", "b"}, c), "fathom write: found a further word \"b\", expected at most 1 word besides the flags; see fathom write --help");
  c.positionals.clear();
  EXPECT_EQ(refusal({"a"}, c), "fathom write: found a further word \"a\", expected flags only; see fathom write --help");
}

TEST(Flags, RequiredFlagsAndPositionals) {
  Command c{.name = "prepare"};
  c.positionals.push_back({"FILES", "files to read", true, true});
  c.flag(path_flag("out", "FOLDER", "where to").needed());
  EXPECT_EQ(refusal({"a"}, c), "fathom write: --out: found nothing, expected a path (where to); see fathom write --help");
  EXPECT_EQ(refusal({"--out", "x"}, c), "fathom write: FILES: found nothing, expected files to read; see fathom write --help");
  EXPECT_THAT(parse({"a", "b", "--out", "x"}, c).rest(), ElementsAre("a", "b"));
}

TEST(Flags, OverridesAreCollectedWhenTheCommandTakesThem) {
  Command c{.name = "train", .overrides = true};
  c.positional("CONFIG", "a configuration");
  c.flag(count_flag("steps", "N", "steps"));
  const Arguments a = parse({"c.json", "--optimizer.lr", "3e-3", "--steps", "10", "--model.hidden_size=64", "--x", "-1"}, c);
  EXPECT_THAT(a.overrides(), ElementsAre(Pair("optimizer.lr", "3e-3"), Pair("model.hidden_size", "64"), Pair("x", "-1")));
  EXPECT_EQ(a.integer("steps"), 10);
  EXPECT_EQ(refusal({"c.json", "--step"}, c), "fathom write: --step: found no value, expected a value for this field of the configuration; did you mean --steps?");
}

TEST(Flags, RawWordsAreHandedOn) {
  Command c{.name = "train", .raw = true};
  EXPECT_THAT(parse({"--anything", "-x", "--", "y"}, c).raw(), ElementsAre("--anything", "-x", "--", "y"));
}

TEST(Flags, UnknownNamesAreTheProgrammersFault) {
  const Arguments a = parse({"m"});
  EXPECT_THROW(a.text("nothing"), std::logic_error);
  EXPECT_THROW(a.integer("top-k"), std::logic_error);  // no value and no default
  EXPECT_THROW(a.positional("WORD"), std::logic_error);
}

TEST(Flags, WrongNamesTheFlag) {
  const Arguments a = parse({"m"});
  try {
    a.wrong("out", "an existing file", "a new one", "choose another name");
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_STREQ(e.what(), "fathom write: --out: found an existing file, expected a new one; choose another name");
  }
}

TEST(Numbers, Suffixes) {
  EXPECT_EQ(parse_integer("10k", true), 10000);
  EXPECT_EQ(parse_integer("1e6", true), 1000000);
  EXPECT_EQ(parse_integer("2.5M", true), 2500000);
  EXPECT_EQ(parse_integer("-3", true), -3);
  EXPECT_EQ(parse_integer("9223372036854775807", true), INT64_MAX);
  EXPECT_EQ(parse_integer("1e17", true), std::nullopt);
  EXPECT_EQ(parse_integer("0.5", true), std::nullopt);
  EXPECT_EQ(parse_integer("", true), std::nullopt);
  EXPECT_EQ(parse_integer("10k", false), std::nullopt);
  EXPECT_EQ(parse_number("1.5T"), 1.5e12);
  EXPECT_EQ(parse_number("2P"), 2e15);
  EXPECT_EQ(parse_number("+3"), 3);
  EXPECT_EQ(parse_number("k"), std::nullopt);
  EXPECT_EQ(parse_number("+"), std::nullopt);
  EXPECT_EQ(parse_number("0x10"), std::nullopt);
}

}  // namespace
}  // namespace fathom::cli
