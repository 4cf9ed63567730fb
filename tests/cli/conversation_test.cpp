#include "cli/conversation.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "text/bpe_train.h"

namespace fathom::cli {
namespace {

text::Tokenizer tokenizer() {
  bool more = true;
  text::BpeTrainOptions options;
  options.vocab_size = 280;
  return text::Tokenizer::from_json(
      text::train_bpe([&](std::string& document) { return document = "the cat sat on the mat", std::exchange(more, false); }, options).tokenizer_json, "a test");
}

Conversation made(const char* source) {
  return Conversation({.chat_template = text::ChatTemplate(source, "a test"), .bos_token = {}, .eos_token = {}}, tokenizer());
}

constexpr const char* kPlain = "{% for m in messages %}[{{ m.role }}]{{ m.content }}.{% endfor %}[assistant]";

infer::RoutingPolicy dial(float threshold) { return infer::RoutingPolicy::causal({threshold}); }

TEST(Conversation, KeepsTheIdsOfWhatWasSaid) {
  Conversation c = made(kPlain);
  const text::Tokenizer t = tokenizer();
  c.begin("the mat");
  c.ask("the cat", dial(0));
  EXPECT_EQ(t.decode(c.ids()), "[system]the mat.[user]the cat.[assistant]");
  EXPECT_EQ(c.ids(), t.encode("[system]the mat.[user]the cat.[assistant]"));
  // An answer in ids that its text would never be given: they stay.
  std::vector<int32_t> expected = c.ids();
  const std::vector<int32_t> answer = {*t.token_to_id("s"), *t.token_to_id("a"), *t.token_to_id("t")};
  expected.insert(expected.end(), answer.begin(), answer.end());
  c.answered("sat", answer);
  c.ask("on", dial(0));
  for (const int32_t id : t.encode(".[user]on.[assistant]")) expected.push_back(id);
  EXPECT_EQ(c.ids(), expected);
  ASSERT_EQ(c.policies().size(), 1u);
}

// A question of which the template makes nothing, behind an answer that is empty: its dial takes the place of the one before.
TEST(Conversation, AQuestionWithoutTokensHasOneDial) {
  Conversation c = made("{{ 'the mat' }}");
  c.begin("");
  for (const float threshold : {0.0f, 1.0f, 2.0f, 1.0f}) {
    c.ask("the cat", dial(threshold));
    c.answered("", {});
    ASSERT_FALSE(c.policies().empty());
    for (size_t i = 1; i < c.policies().size(); ++i) EXPECT_LT(c.policies()[i - 1].position, c.policies()[i].position);
    EXPECT_EQ(c.policies().back().policy, dial(threshold));
  }
}

TEST(Conversation, KeepsTheDialOfWhatWasRead) {
  Conversation c = made(kPlain);
  c.begin("");
  c.ask("the cat", dial(0));
  c.answered("sat", tokenizer().encode("sat"));
  const auto read = static_cast<int64_t>(c.ids().size());
  c.ask("on", dial(1));
  ASSERT_EQ(c.policies().size(), 2u);
  EXPECT_EQ(c.policies()[0].position, 0);
  EXPECT_EQ(c.policies()[0].policy, dial(0));
  EXPECT_EQ(c.policies()[1].position, read);
  EXPECT_EQ(c.policies()[1].policy, dial(1));
  EXPECT_EQ(c.take_back(), "on");
  EXPECT_EQ(static_cast<int64_t>(c.ids().size()), read);
  EXPECT_EQ(c.policies().size(), 1u);
  EXPECT_EQ(c.take_back(), "the cat");
  EXPECT_EQ(c.take_back(), "");
  EXPECT_TRUE(c.ids().empty() && c.messages().empty());
}

// Templates that leave out of the past what a model thought: what was read is not what is to be read.
TEST(Conversation, IsReadAnewWhenItsPastChanges) {
  Conversation c = made("{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content.split('|')[-1] }}{% else %}{{ m.content }}{% endif %}.{% endfor %}");
  const text::Tokenizer t = tokenizer();
  c.begin("");
  c.ask("the", dial(0));
  c.answered("mat|cat", t.encode("mat|cat"));
  c.ask("sat", dial(1));
  EXPECT_EQ(c.ids(), t.encode("the.cat.sat."));
  ASSERT_EQ(c.policies().size(), 2u);
  EXPECT_EQ(c.policies()[0].policy, dial(0));
  EXPECT_EQ(c.policies()[1].position, static_cast<int64_t>(t.encode("the.").size())) << "as far as it is the same";
  EXPECT_EQ(c.policies()[1].policy, dial(1));
}

TEST(Conversation, ComesBackFromAFile) {
  Conversation c = made(kPlain);
  const text::Tokenizer t = tokenizer();
  c.begin("the mat");
  c.ask("the cat", dial(0));
  c.answered("sat", t.encode("sat"));
  c.ask("on", dial(1));
  c.answered("the mat", t.encode("the mat"));
  const Json json = Json::parse(c.to_json().dump());
  const std::vector<int32_t> ids = c.ids();
  const std::vector<infer::PolicyFrom> policies = c.policies();
  Conversation d = made(kPlain);
  d.restore(json, "a file", c.ids(), c.policies());
  EXPECT_EQ(d.to_json(), json);
  for (Conversation* each : {&c, &d}) each->ask("sat", dial(1));
  EXPECT_EQ(d.ids(), c.ids());
  EXPECT_EQ(d.policies().size(), c.policies().size());
  for (const char* question : {"sat", "on", "the cat", ""}) {
    EXPECT_EQ(c.take_back(), question);
    EXPECT_EQ(d.take_back(), question);
    EXPECT_EQ(d.ids(), c.ids());
    EXPECT_EQ(d.messages().size(), c.messages().size());
  }
  Conversation empty = made(kPlain);
  empty.begin("");
  d.restore(empty.to_json(), "a file", {}, {});
  EXPECT_TRUE(d.ids().empty() && d.messages().empty());

  const auto refused = [&](const std::function<void(Json&)>& change, const std::string& words) {
    Json bad = json;
    change(bad);
    const auto before = d.to_json();
    try {
      d.restore(bad, "a file", ids, policies);
      ADD_FAILURE() << words << " was accepted";
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("a file: conversation"), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
    EXPECT_EQ(d.to_json(), before);
  };
  refused([](Json& j) { j["messages"] = 3; }, "messages");
  refused([](Json& j) { j["messages"][0].erase("role"); }, "messages[0].role");
  refused([](Json& j) { j["before"][1]["messages"] = 99; }, "before[1].messages");
  refused([](Json& j) { j["before"][1]["messages"] = j["before"][0]["messages"]; }, "before[1].messages");
  refused([](Json& j) { j["before"][0]["read"] = 1000; }, "before[0].read");
  refused([](Json& j) { j["before"][1]["ids"] = 10000; }, "before[1].ids");
  refused([](Json& j) { j["before"][1]["policies"] = -1; }, "before[1].policies");
  refused([](Json& j) { j["more"] = 1; }, "more");
}

// What a template wrote anew since cannot be taken back from a file.
TEST(Conversation, KeepsTheQuestionsThatStillStandAsTheyWere) {
  Conversation c = made("{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content.split('|')[-1] }}{% else %}{{ m.content }}{% endif %}.{% endfor %}");
  const text::Tokenizer t = tokenizer();
  c.begin("");
  c.ask("the", dial(0));
  c.answered("mat|cat", t.encode("mat|cat"));
  c.ask("sat", dial(0));
  c.answered("on", t.encode("on"));
  c.ask("cat", dial(0));
  Conversation d = made(kPlain);
  d.restore(c.to_json(), "a file", c.ids(), c.policies());
  EXPECT_EQ(d.take_back(), "cat");
  EXPECT_EQ(d.take_back(), "");
}

TEST(Conversation, IsAsBeforeWhenTheTemplateRefuses) {
  Conversation c = made("{% if messages | length > 1 %}{{ raise_exception('no more') }}{% endif %}{{ messages[0].content }}");
  c.begin("");
  c.ask("the", dial(0));
  const std::vector<int32_t> ids = c.ids();
  EXPECT_THROW(c.ask("cat", dial(0)), UserError);
  EXPECT_EQ(c.ids(), ids);
  EXPECT_EQ(c.messages().size(), 1u);
}

}  // namespace
}  // namespace fathom::cli
