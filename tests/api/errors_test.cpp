// What the engine refuses, and what a step that fails means for whom.
#include <cmath>
#include <limits>

#include "sample.h"

namespace fathom::test {
namespace {

using ::testing::HasSubstr;

TEST(Engine, WhatIsBadIsRefusedByNameAndDisturbsNobody) {
  const TemporaryFolder folder;
  const std::string mod = sample_folder(folder, "mod"), dense = sample_folder(folder, "dense", false);
  Engine engine(Model::open(mod), {.threads = 1, .kv_bytes = 50'000}), plain(Model::open(dense), {.threads = 1});
  const Request good{.prompt = "The sea", .max_tokens = 10, .seed = 9};
  const std::string expected = engine.generate(good).text;
  Stream under_way = engine.submit(good);
  under_way.next();
  const auto refused = [&](const std::function<void(Request&)>& change, Engine* by = nullptr) {
    Request request = good;
    change(request);
    return api_error_of([&] { (by ? by : &engine)->submit(request); });
  };
  for (const double dial : {0.0, -1.0, 1.5, std::nan("")}) EXPECT_THAT(refused([&](Request& r) { r.dial = dial; }), HasSubstr("expected"));
  EXPECT_EQ(refused([](Request& r) { r.dial = 0.5; }, &plain), dense + ": dial: found 0.5, expected 1; this model has no routed block; fathom convert makes one of it that has");
  EXPECT_THAT(refused([](Request& r) { r.dial = 1, r.dials = {{0, 1}}; }), HasSubstr("one of the two"));
  EXPECT_THAT(refused([](Request& r) { r.dials = {{1, 0.7}}; }), HasSubstr("request: dials: found position 1, expected 0 first"));
  EXPECT_THAT(refused([](Request& r) { r.dials = {{0, 0.7}, {3, 1}, {3, 0.6}}; }), HasSubstr("found position 3, expected more than 3"));
  EXPECT_THAT(refused([](Request& r) { r.dials = {{0, 0.7}, {3, 2}}; }), HasSubstr("found 2, expected"));
  EXPECT_THAT(refused([](Request& r) { r.prompt = std::vector<TokenId>{}; }), HasSubstr("prompt: found no token"));
  EXPECT_THAT(refused([](Request& r) { r.prompt = std::vector<TokenId>{5, -1}; }), HasSubstr("prompt: found id -1"));
  EXPECT_THAT(refused([](Request& r) { r.prompt = std::vector<TokenId>(241, 5); }), HasSubstr("prompt: found 241 tokens, expected at most 240"));
  EXPECT_THAT(refused([](Request& r) { r.prompt = std::vector<TokenId>(239, 5); }), HasSubstr("KV cache: found a text of 240 tokens"));
  EXPECT_THAT(refused([](Request& r) { r.max_tokens = 0; }), ::testing::StartsWith("request: max_tokens: found 0, expected 1 to "));
  EXPECT_THAT(refused([](Request& r) { r.prompt = std::vector<TokenId>(239, 5); }), HasSubstr("; give EngineOptions::kv_bytes "));
  EXPECT_THAT(refused([](Request& r) { r.sampling = Sampling{.temperature = -1}; }), HasSubstr("sampling: temperature: found -1"));
  EXPECT_THAT(refused([](Request& r) { r.samples = 0; }), HasSubstr("samples: found 0"));
  EXPECT_THAT(refused([](Request& r) { r.samples = 65; }), HasSubstr("samples: found 65"));
  EXPECT_THAT(refused([](Request& r) { r.stop = {""}; }), HasSubstr("stop: found 0 bytes"));
  EXPECT_THAT(refused([](Request& r) { r.log_probs = 129; }), HasSubstr("log_probs: found 129"));
  EXPECT_THAT(refused([](Request& r) { r.speculation = Speculation{.most = 65}; }), HasSubstr("speculation.most: found 65"));
  EXPECT_THAT(refused([](Request& r) { r.speculation = Speculation{.draft_dial = 7}; }), HasSubstr("found 7"));
  EXPECT_THAT(refused([](Request& r) { r.speculation = Speculation{.repeats = false}; }), HasSubstr("speculation: found neither repeats nor a draft dial"));
  for (const TokenId id : {-1, 320}) {
    EXPECT_THAT(refused([&](Request& r) { r.stop_ids = {319, id}; }), HasSubstr(str("request: stop_ids: found id ", id, ", expected 0 to 319")));
    EXPECT_THAT(refused([&](Request& r) { r.sampling = Sampling{.logit_bias = {{319, 1.0F}, {id, 1.0F}}}; }), HasSubstr(str("request: sampling.logit_bias: found id ", id, ", expected 0 to 319")));
  }
  EXPECT_EQ(refused([](Request& r) { r.stop_ids = {319}, r.sampling = Sampling{.logit_bias = {{319, 1.0F}}}; }), "no error");
  for (const double timeout : {-1.0, std::nan("")}) EXPECT_THAT(refused([&](Request& r) { r.timeout = timeout; }), HasSubstr("request: timeout: found"));
  EXPECT_THAT(api_error_of([&] { engine.generate({.prompt = "The sea", .samples = 2}); }), HasSubstr("request: samples: found 2, expected 1"));
  EXPECT_THAT(api_error_of([&] { under_way.set_dial(0); }), HasSubstr("expected"));

  // The parts of the message.
  try {
    plain.submit({.prompt = "The sea", .dial = 0.5});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ((std::vector{e.where(), e.field(), e.found(), e.expected(), e.hint()}), (std::vector<std::string>{dense, "dial", "0.5", "1", "this model has no routed block; fathom convert makes one of it that has"}));
  }
  EXPECT_EQ(under_way.wait().at(0).text, expected);
  EXPECT_EQ(engine.stats().submitted, 3);
}

TEST(Engine, ATextThatFailsIsAnErrorOfItsRequestAlone) {
  const TemporaryFolder folder;
  // Finite weights, of which a router's score comes that is none.
  const auto damage = [](model::Weights& w) { for (float& x : w.at("model.layers.0.mlp.down_proj.weight")) x = 3e38F; };
  Engine engine(Model::open(sample_folder(folder, "damaged", true, 5, {}, damage)), {.threads = 1});
  for (const bool background : {false, true}) {
    if (background) engine.start();
    Stream a = engine.submit({.prompt = "The sea"}), b = engine.submit({.prompt = "The moon"});
    EXPECT_THAT(api_error_of([&] { a.next(); }), HasSubstr("are its weights damaged?"));
    EXPECT_THAT(api_error_of([&] { a.next(); }), HasSubstr("are its weights damaged?"));
    EXPECT_THAT(api_error_of([&] { b.wait(); }), HasSubstr("are its weights damaged?"));
    EXPECT_TRUE(a.done());
    EXPECT_FALSE(engine.step());
    EXPECT_EQ(engine.stats().kv_bytes, 0);

    // Who only polls hears of it too: until then the stream is not done.
    Stream polled = engine.submit({.prompt = "The tide"});
    EXPECT_THAT(api_error_of([&] {
                  while (!polled.done()) {
                    if (!polled.try_next() && !background) engine.step();
                  }
                }), HasSubstr("are its weights damaged?"));
    EXPECT_TRUE(polled.done());
  }
  EXPECT_EQ(engine.stats().submitted, 6);

  // Those beside it go on: token 7's scores are sums of +∞ and −∞.
  const auto one_token = [](model::Weights& w) {
    for (size_t i = 0; i < 24; ++i) w.at("model.embed_tokens.weight")[7 * 24 + i] = 3e38F;
    for (auto& [name, values] : w)
      if (name.ends_with("router.weight")) for (size_t i = 0; i < 24; ++i) values[i] = i % 2 ? 10.0F : -10.0F;
  };
  const Model mostly = Model::open(sample_folder(folder, "mostly", true, 5, {}, one_token));
  Engine shared(mostly, {.threads = 1});
  const Request sound{.prompt = std::vector<TokenId>{5, 6, 9}, .max_tokens = 6, .sampling = Sampling{.logit_bias = {{7, -std::numeric_limits<float>::infinity()}}}, .stop_at_end = false};
  const std::string text = shared.generate(sound).text;
  Stream beside = shared.submit(sound);
  beside.next();
  EXPECT_THAT(api_error_of([&] { shared.generate({.prompt = std::vector<TokenId>{7}}); }), HasSubstr("NaN"));
  Stream samples = shared.submit({.prompt = std::vector<TokenId>{7}, .samples = 3});
  EXPECT_THAT(api_error_of([&] { samples.wait(); }), HasSubstr("NaN"));
  EXPECT_EQ(beside.wait().at(0).text, text);
}

}  // namespace
}  // namespace fathom::test
