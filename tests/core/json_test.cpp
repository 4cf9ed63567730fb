#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "core/file.h"
#include "core/json.h"

namespace fathom {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string message(const std::function<void()>& body) {
  try {
    body();
  } catch (const UserError& e) {
    return e.what();
  }
  return "no error";
}

struct Bad {
  std::string text;
  const char* message;
};

TEST(Json, RefusesBadTextByPlace) {
  const Bad cases[] = {
      {"", "c.json: line 1, column 1: found syntax error"},
      {"{", "c.json: line 1, column 2: found syntax error"},
      {"{\"a\": 1,}", "c.json: line 1, column 9: found syntax error"},
      {"{\n  \"a\": 01\n}", "c.json: line 2, column 9: found syntax error"},
      {"{\"a\": 1} x", "c.json: line 1, column 10: found syntax error"},
      {"{\"a\": NaN}", "c.json: line 1, column 7: found syntax error"},
      {"{\"a\": Infinity}", "c.json: line 1, column 7: found syntax error"},
      {"{\"a\": 'x'}", "c.json: line 1, column 7: found syntax error"},
      {"{\"a\": \"\xff\"}", "c.json: line 1, column 8: found syntax error"},
      {"{\"a\": \"\\ud800\"}", "found syntax error"},
      {"{\"a\": 1e400}", "c.json: line 1, column 11: found "},
      {"// comment\n{}", "c.json: line 1, column 1: found syntax error"},
      {"{\"a\": 1, \"b\": {\"c\": 1, \"c\": 2}}", "c.json: found the key \"c\" twice in one object, expected each key once"},
      {"{\"a\": 1, \"\\u0061\": 2}", "c.json: found the key \"a\" twice"},
      {std::string(65, '[') + std::string(65, ']'), "c.json: found nesting deeper than 64, expected at most 64 levels"},
      {std::string(3'000'000, '['), "c.json: found nesting deeper than 64"},
      {"[" + std::string(static_cast<size_t>(limits::kConfigBytes), ' ') + "]", "c.json: found 4194306 bytes of JSON, expected at most 4194304"},
  };
  for (const Bad& c : cases) EXPECT_THAT(message([&] { parse_json(c.text, "c.json"); }), HasSubstr(c.message)) << c.text.substr(0, 40);
  parse_json(std::string(64, '[') + std::string(64, ']'), "at the bound");
  parse_json("[" + std::string(static_cast<size_t>(limits::kConfigBytes) - 2, ' ') + "]", "at the bound");
  EXPECT_EQ(parse_json("// yes\n{\"a\": /* 1 */ 2}", "c.json", {.comments = true})["a"], 2);
}

TEST(Json, BoundsValues) {
  const JsonOptions options{.max_values = 5};
  parse_json("[1, 2, [3]]", "c.json", options);
  EXPECT_THAT(message([&] { parse_json("[1, 2, [3], {}]", "c.json", options); }), HasSubstr("c.json: found more than 5 values, expected fewer"));
  std::string many = "[";
  while (many.size() < 30'000'000) many += "{},";
  EXPECT_THAT(message([&] { parse_json(many, "c.json", {.max_bytes = limits::kJsonBytes}); }), HasSubstr("found more than 8388608 values"));
}

TEST(Json, ReadsFilesWithABound) {
  TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "c.json");
  atomic_write(path, "{\"a\": 1}");
  EXPECT_EQ(read_json(path)["a"], 1);
  EXPECT_THAT(message([&] { read_json(path, {.max_bytes = 7}); }), HasSubstr("c.json: found 8 bytes, expected at most 7"));
  EXPECT_THAT(message([&] { read_json(join_path(folder.path(), "no.json")); }), HasSubstr("no.json: cannot open: No such file or directory; check the path"));
}

const char* kText = R"({"i": 3, "whole": 4096.0, "f": 0.5, "b": true, "s": "x", "null": null, "list": [1, 2], "numbers": [0.5, 1],
                        "strings": ["a", "b"], "o": {"inner": 7}, "big": 1e300, "huge": 18446744073709551615, "mixed": [1, "a"]})";

class FieldsTest : public ::testing::Test {
 protected:
  Json json_ = parse_json(kText, "c.json");
  Fields f_{json_, "c.json"};
};

TEST_F(FieldsTest, Reads) {
  EXPECT_EQ(f_.integer("i", 0, 10), 3);
  EXPECT_EQ(f_.integer("whole", 0, 5000), 4096);
  EXPECT_EQ(f_.integer("absent", 0, 10, 5), 5);
  EXPECT_EQ(f_.integer("null", 0, 10, 6), 6) << "null is absent";
  EXPECT_EQ(f_.number("f", 0, 1), 0.5);
  EXPECT_EQ(f_.number("i", 0, 5), 3.0);
  EXPECT_EQ(f_.boolean("b"), true);
  EXPECT_EQ(f_.boolean("absent", false), false);
  EXPECT_EQ(f_.string("s"), "x");
  EXPECT_THAT(f_.integers("list", 0, 2), ElementsAre(1, 2));
  EXPECT_THAT(f_.numbers("numbers", 0, 1), ElementsAre(0.5, 1));
  EXPECT_THAT(f_.strings("strings"), ElementsAre("a", "b"));
  EXPECT_EQ(f_.object("o").integer("inner", 0, 10), 7);
  EXPECT_FALSE(f_.has("null"));
  enum class E { x, y };
  EXPECT_EQ(f_.choice<E>("s", {{"x", E::x}, {"y", E::y}}), E::x);
  EXPECT_EQ(f_.choice<E>("absent", {{"x", E::x}, {"y", E::y}}, E::y), E::y);
}

TEST_F(FieldsTest, RefusesWithPathFoundAndExpected) {
  enum class E { p };
  const std::pair<std::function<void()>, const char*> cases[] = {
      {[&] { f_.integer("i", 4, 10); }, "c.json: i: found the number 3, expected a whole number from 4 to 10"},
      {[&] { f_.integer("i", 0, 2); }, "c.json: i: found the number 3, expected a whole number from 0 to 2"},
      {[&] { f_.integer("f", 0, 2); }, "c.json: f: found the number 0.5, expected a whole number"},
      {[&] { f_.integer("s", 0, 2); }, "c.json: s: found the string \"x\", expected a whole number"},
      {[&] { f_.integer("b", 0, 2); }, "c.json: b: found true, expected a whole number"},
      {[&] { f_.integer("big", 0, INT64_MAX); }, "c.json: big: found the number 1e+300"},
      {[&] { f_.integer("huge", 0, INT64_MAX); }, "c.json: huge: found the number 18446744073709551615"},
      {[&] { f_.integer("absent", 0, 2); }, "c.json: absent: found no such key, expected a whole number from 0 to 2"},
      {[&] { f_.number("f", 1, 2); }, "c.json: f: found the number 0.5, expected a number from 1 to 2"},
      {[&] { f_.number("s", 1, 2); }, "c.json: s: found the string \"x\""},
      {[&] { f_.boolean("i"); }, "c.json: i: found the number 3, expected true or false"},
      {[&] { f_.string("i"); }, "c.json: i: found the number 3, expected a string"},
      {[&] { f_.string("null"); }, "c.json: null: found no such key, expected a string"},
      {[&] { f_.integers("i", 0, 2); }, "c.json: i: found the number 3, expected an array"},
      {[&] { f_.integers("list", 0, 1); }, "c.json: list[1]: found the number 2, expected a whole number from 0 to 1"},
      {[&] { f_.numbers("mixed", 0, 9); }, "c.json: mixed[1]: found the string \"a\", expected a number from 0 to 9"},
      {[&] { f_.strings("mixed"); }, "c.json: mixed[0]: found the number 1, expected a string"},
      {[&] { f_.object("list"); }, "c.json: list: found an array of 2, expected an object { … }"},
      {[&] { f_.object("o").integer("inner", 0, 1); }, "c.json: o.inner: found the number 7, expected a whole number from 0 to 1"},
      {[&] { f_.raw("absent"); }, "c.json: absent: found no such key"},
      {[&] { f_.choice<E>("s", {{"p", E::p}}); }, "c.json: s: found \"x\", expected one of p"},
      {[&] { f_.choice<E>("absent", {{"p", E::p}}); }, "c.json: absent: found no such key, expected one of p"},
  };
  for (const auto& [body, expected] : cases) EXPECT_THAT(message(body), HasSubstr(expected));
}

TEST(Fields, RefusesUnknownKeysWithTheNearest) {
  const Json json = parse_json(R"({"capacity": 1, "patern": 2})", "c.json");
  const Fields f(json, "c.json", "routing");
  f.has("capacity");
  f.has("pattern");
  EXPECT_THAT(message([&] { f.done(); }), HasSubstr("c.json: routing.patern: found an unknown key, expected \"pattern\" perhaps; remove it or correct its name"));
  f.ignore("patern");
  f.done();
}

TEST(Fields, AKeyOfTheFileIsPrintableInThePath) {
  const std::string key = "\x1b]0;x\x07\n" + std::string(5000, 'k');
  const Json json = {{key, {{"a", {{"b", 1}}}}}};
  const std::string found = message([&] { Fields(json, "c.json").object(key).object("a").string("b"); });
  EXPECT_THAT(found, HasSubstr("c.json: \\x1b]0;x\\x07\\x0akk"));
  EXPECT_THAT(found, HasSubstr("k….a.b: found the number 1, expected a string"));
  EXPECT_LT(found.size(), 200u);
  const Fields fields(json, "c.json");
  EXPECT_LT(message([&] { fields.done(); }).size(), 200u);
}

TEST(Json, NearestOfALongWordIsNone) {  // 60 MB of one took seconds
  const std::string word(64, 'a'), longer(65, 'a');
  EXPECT_EQ(nearest(word, {word + "a"}), word + "a");
  EXPECT_EQ(nearest(longer, {longer}), "");
}

TEST(Json, NearestWord) {
  EXPECT_EQ(nearest("capcity", {"pattern", "capacity"}), "capacity");
  EXPECT_EQ(nearest("zzzz", {"pattern", "capacity"}), "");
  EXPECT_EQ(nearest("x", {}), "");
}

TEST(Json, Describe) {
  EXPECT_EQ(describe(Json::parse("[1, 2]")), "an array of 2");
  EXPECT_EQ(describe(Json::parse("{\"a\": 1}")), "an object of 1 key");
  EXPECT_EQ(describe(Json::parse("\"a\\nb\"")), "the string \"a\\x0ab\"");
  EXPECT_EQ(describe(Json::parse("-2.5")), "the number -2.5");
}

}  // namespace
}  // namespace fathom
