// What the public engine writes is what the engine behind it writes, whoever makes the steps and whatever else is under way.
#include <atomic>
#include <cmath>
#include <thread>

#include "sample.h"

namespace fathom::test {
namespace {

using ::testing::HasSubstr;

std::string joined(Stream& stream) {
  std::string text;
  for (const Event& e : stream) text += e.text;
  return text;
}

TEST(Engine, WritesWhatGenerateWrites) {
  const TemporaryFolder folder;
  for (const bool routed : {true, false}) {
    const std::string path = sample_folder(folder, routed ? "mod" : "dense", routed);
    Plain plain(path);
    Engine engine(Model::open(path), {.threads = 1});
    for (const std::optional<double> dial : {std::optional<double>(), {1.0}, {0.65}}) {
      if (!routed && dial && *dial < 1) continue;
      for (uint64_t seed = 0; seed < 4; ++seed) {
        struct Told {
          int32_t id;
          int64_t position, depth;
          std::vector<uint8_t> run;
          bool operator==(const Told&) const = default;
        };
        std::vector<Told> expected, found;
        const infer::SamplerOptions sampling{.temperature = 0.9, .top_k = 40, .repetition_penalty = 1.1, .seed = seed};
        const infer::GenerateResult result = plain.generate("The sea", dial, sampling, [&](const infer::TokenEvent& e) {
          expected.push_back({e.id, e.position, e.depth, {e.run.begin(), e.run.end()}});
          return true;
        });
        Stream stream = engine.submit({.prompt = "The sea", .max_tokens = 24, .dial = dial,
                                       .sampling = Sampling{.temperature = 0.9, .top_k = 40, .repetition_penalty = 1.1}, .seed = seed});
        std::string text;
        std::vector<std::string> of_token(32);
        std::optional<Finish> finish;
        for (const Event& e : stream) {
          EXPECT_FALSE(finish) << "nothing comes after the end";
          EXPECT_NE(e.token.has_value(), e.finish.has_value());
          text += e.text;
          std::string parts;
          for (const TextPart& part : e.parts) parts += part.text, of_token.at(part.token) += part.text;
          EXPECT_EQ(parts, e.text);
          if (e.token) found.push_back({e.token->id, e.token->position, e.token->depth, e.token->run});
          finish = e.finish;
        }
        EXPECT_EQ(found, expected);
        EXPECT_EQ(text, result.texts[0].text);
        ASSERT_TRUE(finish);
        EXPECT_EQ(name(*finish), std::string(name_of(result.texts[0].finish, infer::kFinishNames)));
        EXPECT_TRUE(stream.done());

        const Text whole = stream.wait().at(0);
        EXPECT_EQ(whole.text, text);
        EXPECT_EQ(whole.ids(), result.texts[0].ids);
        EXPECT_EQ(whole.block_fraction, result.stats.block_fraction);
        EXPECT_EQ(whole.total_fraction, result.stats.total_fraction);
        EXPECT_EQ(whole.prompt_tokens, result.texts[0].prompt_tokens);
        EXPECT_EQ(whole.kv_bytes, result.texts[0].kv_slot_bytes);
        EXPECT_EQ(whole.kv_bytes_dense, result.texts[0].kv_slot_bytes_dense);
        EXPECT_EQ(routed && dial != 1.0, whole.kv_bytes < whole.kv_bytes_dense);
        EXPECT_GE(whole.seconds, whole.first_token_seconds);
        EXPECT_GT(whole.first_token_seconds, 0);
        // The decisions themselves, of the new tokens: events tell what the engine decided.
        const routing::Decisions& decided = result.texts[0].decisions;
        for (size_t t = 0; t < whole.tokens.size(); ++t)
          for (size_t r = 0; r < decided.run.size(); ++r)
            EXPECT_EQ(whole.tokens[t].run[r], decided.run[r][static_cast<size_t>(whole.prompt_tokens) + t]);
      }
    }
  }
}

TEST(Engine, AnyoneMayMakeTheSteps) {
  const TemporaryFolder folder;
  const Model model = Model::open(sample_folder(folder, "mod"));
  const Request request{.prompt = "The moon", .max_tokens = 20, .seed = 3};
  Engine lone(model, {.threads = 1});
  const Text expected = lone.generate(request);

  Engine stepped(model, {.threads = 2, .prefill_chunk = 1});
  Stream a = stepped.submit(request), b = stepped.submit({.prompt = "In 1867", .max_tokens = 40, .stop_at_end = false});
  EXPECT_FALSE(a.try_next());
  EXPECT_FALSE(a.done());
  std::string text;
  int64_t steps = 0;
  for (bool more = true; more; ++steps) {
    more = stepped.step();
    while (const std::optional<Event> e = a.try_next()) text += e->text;
  }
  EXPECT_EQ(text, expected.text);
  EXPECT_TRUE(a.done());
  EXPECT_FALSE(b.done()) << "its events are there";
  EXPECT_EQ(b.wait().at(0).tokens.size(), 40U);
  EXPECT_TRUE(b.done());
  EXPECT_EQ(stepped.stats().steps, steps);
  EXPECT_FALSE(stepped.step());

  Engine background(model, {.threads = 1});
  background.start();
  background.start();
  EXPECT_EQ(background.generate(request).text, expected.text);
  background.stop();
  background.stop();
  EXPECT_EQ(background.generate(request).text, expected.text) << "without its thread whoever waits goes on";
  background.start();
  EXPECT_EQ(background.generate(request).text, expected.text);
}

TEST(Engine, ThreadsSubmitAndReadAtOnce) {
  const TemporaryFolder folder;
  const Model model = Model::open(sample_folder(folder, "mod"));
  constexpr uint64_t kThreads = 4, kEach = 5;
  const auto request = [](uint64_t i) {
    return Request{.prompt = std::string(i % 2 ? "The sea" : "Come to the window"), .max_tokens = 6 + static_cast<int64_t>(i % 7),
                   .dial = i % 3 == 0 ? 1.0 : i % 3 == 1 ? 0.6 : 0.7, .seed = i};
  };
  std::vector<std::string> expected;
  for (uint64_t i = 0; i < kThreads * kEach; ++i) {
    Engine lone(model, {.threads = 1});
    expected.push_back(lone.generate(request(i)).text);
  }
  for (const bool background : {false, true}) {
    Engine engine(model, {.threads = 2, .max_texts = 6});
    if (background) engine.start();
    std::vector<std::string> found(expected.size());
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < kThreads; ++t)
      threads.emplace_back([&, t] {
        std::vector<std::pair<uint64_t, Stream>> mine;
        for (uint64_t k = 0; k < kEach; ++k) mine.emplace_back(t * kEach + k, engine.submit(request(t * kEach + k)));
        for (auto& [i, stream] : mine) found[i] = joined(stream);
      });
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(found, expected) << (background ? "with" : "without") << " a thread of the engine's own";
    const EngineStats stats = engine.stats();
    EXPECT_EQ(stats.submitted, static_cast<int64_t>(kThreads * kEach));
    EXPECT_EQ(stats.finished, stats.submitted);
    EXPECT_EQ(stats.running + stats.waiting, 0);
  }
}

// Everything at once, for whoever watches for races: who cancels, drops and steps changes no text that is let to its end.
TEST(Engine, NothingDisturbsATextThatIsLetToItsEnd) {
  const TemporaryFolder folder;
  const Model model = Model::open(sample_folder(folder, "mod"));
  const auto request = [](uint64_t i) { return Request{.prompt = "The sea", .max_tokens = 12, .dial = i % 2 ? 0.6 : 1.0, .seed = i % 5}; };
  std::vector<std::string> expected;
  for (uint64_t i = 0; i < 10; ++i) expected.push_back(Engine(model, {.threads = 1}).generate(request(i)).text);
  Engine engine(model, {.threads = 2, .kv_bytes = 400'000, .max_texts = 5, .step_rows = 32, .prefill_chunk = 3, .prefix_tokens = 128});
  std::atomic<bool> over = false;
  std::atomic<int> whole = 0;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (uint64_t i = t; i < 60; i += 3) {
        Stream stream = engine.submit(request(i % 10));
        if (i % 4 == 1) stream.next();
        if (i % 4 == 2) continue;  // dropped
        if (i % 4 == 3) stream.cancel();
        const Text text = stream.wait().at(0);
        if (text.finish == Finish::cancelled) continue;
        EXPECT_EQ(text.text, expected[i % 10]);
        ++whole;
      }
    });
  threads.emplace_back([&] {
    for (int i = 0; !over; ++i) {
      i % 3 == 0 ? engine.start() : i % 3 == 1 ? engine.stop() : static_cast<void>(engine.step());
      engine.stats();
      std::this_thread::yield();
    }
  });
  for (size_t t = 0; t < 3; ++t) threads[t].join();
  over = true;
  threads[3].join();
  EXPECT_GE(whole, 30);
  while (engine.step()) {
  }
  EXPECT_EQ(engine.stats().running + engine.stats().waiting, 0);
}

TEST(Engine, ACancelledTextEndsAndGivesItsMemoryBack) {
  const TemporaryFolder folder;
  const Model model = Model::open(sample_folder(folder, "mod"));
  const Request request{.prompt = "The sea", .max_tokens = 200, .stop_at_end = false};
  Engine engine(model, {.threads = 1, .prefix_tokens = 0});
  const std::string whole = engine.generate(request).text;

  Stream stream = engine.submit(request);
  std::string text;
  for (int i = 0; i < 5; ++i) text += stream.next()->text;
  EXPECT_GT(engine.stats().kv_bytes, 0);
  stream.cancel();
  EXPECT_EQ(engine.stats().kv_bytes, 0) << "at once, when nobody makes a step";
  text += joined(stream);
  const Text ended = stream.wait().at(0);
  EXPECT_EQ(ended.finish, Finish::cancelled);
  EXPECT_EQ(ended.text, text);
  EXPECT_EQ(ended.tokens.size(), 5U);
  EXPECT_THAT(whole, ::testing::StartsWith(text));
  stream.cancel();
  EXPECT_EQ(stream.wait().at(0).text, text);

  {
    Stream dropped = engine.submit(request);
    dropped.next();
  }
  EXPECT_EQ(engine.stats().kv_bytes, 0);
  EXPECT_EQ(engine.stats().running, 0);
  EXPECT_FALSE(engine.step());

  // Before it got its turn.
  Stream early = engine.submit(request);
  early.cancel();
  EXPECT_EQ(early.wait().at(0).finish, Finish::cancelled);
  EXPECT_TRUE(early.wait().at(0).tokens.empty());

  // A handle's new stream ends the one that it had.
  Stream replaced = engine.submit(request);
  replaced = engine.submit({.prompt = "The sea", .max_tokens = 2});
  EXPECT_EQ(engine.stats().waiting, 1);
  replaced.wait();

  // While another thread waits for it.
  engine.start();
  Stream waited = engine.submit(request);
  waited.next();
  std::thread canceller([&] { waited.cancel(); });
  const Text late = waited.wait().at(0);
  canceller.join();
  EXPECT_TRUE(late.finish == Finish::cancelled || late.finish == Finish::length);
}

TEST(Engine, AStreamOutlivesItsEngine) {
  const TemporaryFolder folder;
  std::optional<Engine> engine(std::in_place, Model::open(sample_folder(folder, "mod")), EngineOptions{.threads = 1});
  Stream running = engine->submit({.prompt = "The sea", .max_tokens = 100}), waiting = engine->submit({.prompt = "The sea"});
  const std::string begun = running.next()->text;
  EXPECT_FALSE(begun.empty());
  engine->start();
  engine.reset();
  EXPECT_EQ(running.wait().at(0).finish, Finish::cancelled);
  EXPECT_THAT(running.wait().at(0).text, ::testing::StartsWith(begun));
  while (waiting.next()) {
  }
  EXPECT_TRUE(waiting.done());
  running.cancel();
  running.set_dial(1);
}

TEST(Engine, KeysAndValuesAreHeldAsItIsTold) {
  const TemporaryFolder folder;
  const Model model = Model::open(sample_folder(folder, "mod"));
  const Request request{.prompt = kText.substr(0, 120), .max_tokens = 40, .dial = 1, .stop_at_end = false, .log_probs = 0};
  std::vector<float> exact;
  for (const auto& [type, bytes] : model.info().kv_bytes_per_token) {
    Engine engine(model, {.threads = 1, .kv_type = type});
    const Text text = engine.generate(request);
    EXPECT_EQ(text.kv_bytes, (text.prompt_tokens + 40) * bytes) << name(type);
    std::vector<float> found;
    for (const Token& token : text.tokens) found.push_back(token.log_probs->chosen);
    if (type == CacheType::f32) exact = found;
    else EXPECT_NE(found, exact) << name(type);
  }
  EXPECT_EQ(name(CacheType::bf16), std::string("bf16"));
  EXPECT_THAT(api_error_of([&] { Engine engine(model, {.kv_type = static_cast<CacheType>(4)}); }), HasSubstr("engine options: kv_type: found 4, expected a CacheType"));
}

TEST(Engine, SamplesAreTextsOfTheirOwn) {
  const TemporaryFolder folder;
  Engine engine(Model::open(sample_folder(folder, "mod")), {.threads = 1});
  Request request{.prompt = "The tide is", .max_tokens = 16, .seed = 2, .samples = 3, .stop_at_end = false};
  std::vector<std::string> texts(3);
  std::vector<int> ends(3);
  Stream stream = engine.submit(request);
  for (const Event& e : stream) texts.at(e.sample) += e.text, ends.at(e.sample) += e.finish.has_value();
  EXPECT_EQ(ends, (std::vector<int>{1, 1, 1}));
  const std::vector<Text> all = stream.wait();
  ASSERT_EQ(all.size(), 3U);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(all[i].text, texts[i]);
  EXPECT_TRUE(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2]);
  const int64_t prompt = all[0].prompt_tokens;
  EXPECT_EQ(engine.stats().prompt_rows, prompt) << "read once";
  request.samples = 1;
  EXPECT_EQ(engine.generate(request).text, texts[0]);
}

TEST(Engine, LogProbabilitiesAreTheModels) {
  const TemporaryFolder folder;
  const Model model = Model::open(sample_folder(folder, "mod"));
  Engine engine(model, {.threads = 1});
  const std::vector<TokenId> prompt = model.encode("Come to the");
  const Text text = engine.generate({.prompt = prompt, .max_tokens = 12, .dial = 0.65, .sampling = Sampling{.temperature = 1.5}, .seed = 4, .stop_at_end = false, .log_probs = 3});
  ASSERT_EQ(text.tokens.size(), 12U);
  std::vector<TokenId> ids = prompt;
  for (const TokenId id : text.ids()) ids.push_back(id);
  const TextScore scored = score(model, ids, {.dial = 0.65});
  bool other = false;
  for (size_t i = 0; i < text.tokens.size(); ++i) {
    ASSERT_TRUE(text.tokens[i].log_probs);
    const LogProbs& p = *text.tokens[i].log_probs;
    EXPECT_NEAR(p.chosen, scored.log_prob[prompt.size() + i - 1], 1e-5);
    ASSERT_EQ(p.top.size(), 3U);
    EXPECT_EQ(p.top[0].first, scored.best[prompt.size() + i - 1]);
    EXPECT_TRUE(p.top[0].second >= p.top[1].second && p.top[1].second >= p.top[2].second && p.top[0].second >= p.chosen);
    EXPECT_EQ(text.tokens[i].depth, scored.depth[prompt.size() + i]);
    other |= p.top[0].first != text.tokens[i].id;
  }
  EXPECT_TRUE(other);
  EXPECT_FALSE(engine.generate({.prompt = prompt, .max_tokens = 1}).tokens.at(0).log_probs);
}

TEST(Engine, ADialMayChange) {
  const TemporaryFolder folder;
  const Model model = Model::open(sample_folder(folder, "mod"));
  Engine engine(model, {.threads = 1});
  const Request low{.prompt = "The sea is calm", .max_tokens = 30, .dial = 0.6, .stop_at_end = false};
  Stream stream = engine.submit(low);
  std::vector<Token> tokens;
  for (const Event& e : stream) {
    if (!e.token) continue;
    tokens.push_back(*e.token);
    if (tokens.size() == 10) stream.set_dial(1);
  }
  const int64_t shallow = std::count_if(tokens.begin(), tokens.begin() + 10, [](const Token& t) { return t.depth < 4; });
  EXPECT_GT(shallow, 4);
  for (size_t i = 10; i < tokens.size(); ++i) EXPECT_EQ(tokens[i].depth, 4);

  // The same text from a request that knew it before.
  Request both = low;
  both.dial.reset();
  both.dials = {{0, 0.6}, {tokens[10].position, 1.0}};
  const Text again = engine.generate(both);
  ASSERT_EQ(again.tokens.size(), tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) EXPECT_EQ(again.tokens[i].id, tokens[i].id);
}

TEST(Engine, WhatWasReadBeforeIsNotReadAgain) {
  const TemporaryFolder folder;
  const Model model = Model::open(sample_folder(folder, "mod"));
  const Request request{.prompt = kText.substr(0, 200), .max_tokens = 8};
  Engine with(model, {.threads = 1}), without(model, {.threads = 1, .prefix_tokens = 0});
  const std::string text = without.generate(request).text;
  EXPECT_EQ(without.generate(request).cached_tokens, 0);
  EXPECT_EQ(with.generate(request).cached_tokens, 0);
  const Text second = with.generate(request);
  EXPECT_GE(second.cached_tokens, 64);
  EXPECT_EQ(second.text, text);
  EXPECT_EQ(with.stats().cached_tokens, second.cached_tokens);
  EXPECT_GT(with.stats().kv_bytes, 0) << "what is kept";
}

TEST(Engine, GuessesAndPreemptionsChangeNothing) {
  const TemporaryFolder folder;
  const Model model = Model::open(sample_folder(folder, "mod"));
  const Request request{.prompt = "The sea", .max_tokens = 40, .dial = 1, .seed = 6, .stop_at_end = false};
  Request guessing = request;
  guessing.speculation = Speculation{.repeats = false, .draft_dial = 1, .always = true};
  Engine engine(model, {.threads = 1});
  const Text plain = engine.generate(request), guessed = engine.generate(guessing);
  EXPECT_EQ(guessed.text, plain.text);
  EXPECT_GT(guessed.guessed_right, 20);
  EXPECT_EQ(plain.guessed, 0);
  guessing.speculation = Speculation{.draft_dial = 0.6, .always = true};
  EXPECT_EQ(engine.generate(guessing).text, plain.text);
  EXPECT_EQ(engine.stats().guessed_right > 20, true);

  // Little memory: texts lose it and are read again, unless only what surely fits is let in.
  for (const bool worst_case : {false, true}) {
    Engine tight(model, {.threads = 1, .kv_bytes = 80'000, .prefix_tokens = 0, .admit_worst_case = worst_case});
    tight.generate({.prompt = "The sea", .max_tokens = 100, .stop = {" "}});  // few of the tokens that are asked for are expected from then on
    std::vector<Stream> streams;
    for (int i = 0; i < 6; ++i) streams.push_back(tight.submit(request));
    for (Stream& s : streams) EXPECT_EQ(s.wait().at(0).text, plain.text);
    EXPECT_LE(tight.stats().kv_peak_bytes, 80'000);
    if (worst_case) EXPECT_EQ(tight.stats().preemptions, 0);
  }
}

TEST(Engine, ATextEndsWhereItIsTold) {
  const TemporaryFolder folder;
  const Model model = Model::open(sample_folder(folder, "mod"));
  Engine engine(model, {.threads = 1});
  const Request request{.prompt = "The sea", .max_tokens = 300, .seed = 1, .stop_at_end = false};
  const Text whole = engine.generate(request);
  EXPECT_EQ(whole.finish, Finish::context_full);
  EXPECT_EQ(whole.prompt_tokens + std::ssize(whole.tokens), 240);

  Request stopped = request;
  stopped.stop = {whole.text.substr(10, 4)};
  const Text cut = engine.generate(stopped);
  EXPECT_EQ(cut.finish, Finish::stop_string);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(stopped.stop[0])));

  stopped = request;
  stopped.stop_ids = {whole.tokens[7].id};
  EXPECT_EQ(engine.generate(stopped).finish, Finish::stop_id);
  EXPECT_LE(engine.generate(stopped).tokens.size(), 7U);

  // What may yet become a stop string comes with the end.
  Request held = request;
  held.max_tokens = 20;
  const std::string text = engine.generate(held).text;
  held.stop = {text.substr(text.size() - 3) + "and no more"};
  Stream stream = engine.submit(held);
  EXPECT_EQ(joined(stream), text);

  stopped = request;
  stopped.timeout = 0;
  EXPECT_EQ(engine.generate(stopped).finish, Finish::deadline);
  stopped.timeout = 1e9;
  EXPECT_EQ(engine.generate(stopped).finish, Finish::context_full);

  // Of two that wait for one place the greater priority goes first.
  Engine one(model, {.threads = 1, .max_texts = 1});
  Request small{.prompt = "The sea", .max_tokens = 2};
  Stream first = one.submit(small), second = one.submit(small);
  small.priority = 1;
  Stream urgent = one.submit(small);
  urgent.wait();
  EXPECT_FALSE(first.try_next());
  first.wait();
  EXPECT_FALSE(second.try_next());
  second.wait();

  // Forbidden ids do not come.
  Sampling sampling;
  sampling.logit_bias[whole.tokens[0].id] = -INFINITY;
  EXPECT_NE(engine.generate({.prompt = "The sea", .max_tokens = 1, .sampling = sampling, .seed = 1, .stop_at_end = false}).tokens.at(0).id, whole.tokens[0].id);
}

}  // namespace
}  // namespace fathom::test
