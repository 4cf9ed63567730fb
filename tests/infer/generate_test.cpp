#include "infer/generate.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <set>
#include <stdexcept>

#include "core/error.h"
#include "core/json.h"
#include "infer/stop_text.h"
#include "support.h"
#include "text/bpe_train.h"

namespace fathom::infer::test {
namespace {

const text::Tokenizer& tokenizer() {
  static const text::Tokenizer made = [] {
    bool more = true;
    text::BpeTrainOptions options;
    options.vocab_size = 300;
    const auto result = text::train_bpe(
        [&](std::string& document) {
          document = "the cat sat on the mat; the dog sat on the log. Wörter mit ümlauten, naïve café, größe. the end of the story";
          return std::exchange(more, false);
        },
        options);
    return text::Tokenizer::from_json(result.tokenizer_json, "a test");
  }();
  return made;
}

Model talker(uint64_t seed) {
  Random random(seed);
  model::ModelConfig config = model::random_config(random, {.paths = true});
  config.vocab_size = tokenizer().vocab_size();
  config.eos_token_ids.clear(), config.bos_token_id.reset(), config.pad_token_id.reset();
  return Model(config, seed);
}

GenerateOptions options_for(const Model& model, Random& random) {
  GenerateOptions o;
  o.policy = RoutingPolicy::causal(model::random_thresholds(model.config, random));
  o.max_new_tokens = 30;
  o.sampling.seed = 5;
  o.prefill_chunk = 1 + static_cast<int64_t>(random.below(20));
  return o;
}

TEST(Generate, GreedyTextIsThatOfFullRecompute) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const Model model = talker(seed);
    Random random(seed);
    Engine engine(model.weights, {.threads = 1});
    GenerateOptions o = options_for(model, random);
    o.sampling.temperature = 0;
    const std::vector<int32_t> prompt = model::random_tokens(model.config, 17, random);
    const GenerateResult result = generate(engine, nullptr, {&prompt, 1}, o);
    std::vector<int32_t> all = prompt;
    for (int i = 0; i < 30; ++i) {
      const Reading reading = read(engine, all, o.policy);
      const auto last = std::span(reading.logits).last(model.config.vocab_size);
      all.push_back(static_cast<int32_t>(std::max_element(last.begin(), last.end()) - last.begin()));
    }
    EXPECT_EQ(result.texts[0].ids, std::vector<int32_t>(all.begin() + 17, all.end()));
    EXPECT_EQ(result.texts[0].finish, Finish::length);
    EXPECT_EQ(result.texts[0].decisions.run, read(engine, all, o.policy).decisions.run);
    EXPECT_EQ(engine.pool().pages_in_use(), 0);
    EXPECT_EQ(result.stats.prompt_tokens, 17);
    EXPECT_EQ(result.stats.new_tokens, 30);
  }
}

TEST(Generate, SeveralPromptsAreEachAsAlone) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const Model model = talker(seed + 50);
    Random random(seed);
    Engine engine(model.weights, {.threads = 1});
    GenerateOptions o = options_for(model, random);
    std::vector<std::vector<int32_t>> prompts;
    for (int i = 0; i < 5; ++i) prompts.push_back(model::random_tokens(model.config, 1 + static_cast<int64_t>(random.below(30)), random));
    const GenerateResult together = generate(engine, &tokenizer(), prompts, o);
    // The same stream of draws: the prompt stands at its index among empty-handed others.
    for (size_t i = 0; i < prompts.size(); ++i) {
      std::vector<std::vector<int32_t>> others(i + 1, std::vector<int32_t>{1});
      others[i] = prompts[i];
      o.prefill_chunk = 3;
      const GenerateResult alone = generate(engine, &tokenizer(), others, o);
      EXPECT_EQ(alone.texts[i].ids, together.texts[i].ids);
      EXPECT_EQ(alone.texts[i].text, together.texts[i].text);
      EXPECT_EQ(alone.texts[i].decisions.run, together.texts[i].decisions.run);
    }
  }
}

TEST(Generate, EqualPromptsDrawDifferentTexts) {
  const Model model = talker(9);
  Random random(9);
  Engine engine(model.weights, {.threads = 1});
  const GenerateOptions o = options_for(model, random);
  const std::vector<std::vector<int32_t>> prompts(4, tokenizer().encode("the cat"));
  const GenerateResult result = generate(engine, &tokenizer(), prompts, o);
  for (size_t i = 0; i < prompts.size(); ++i)
    for (size_t j = 0; j < i; ++j) EXPECT_NE(result.texts[i].ids, result.texts[j].ids) << i << " and " << j;
}

TEST(Generate, EventsTellTextAndDepth) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const Model model = talker(seed + 100);
    Random random(seed);
    Engine engine(model.weights, {.threads = 1});
    const GenerateOptions o = options_for(model, random);
    const std::vector<int32_t> prompt = tokenizer().encode("the cat");
    std::string text;
    std::vector<int32_t> ids;
    std::vector<std::vector<uint8_t>> runs;
    const GenerateResult result = generate(engine, &tokenizer(), {&prompt, 1}, o, [&](const TokenEvent& e) {
      text += text_of(e.text);
      ids.push_back(e.id);
      runs.emplace_back(e.run.begin(), e.run.end());
      EXPECT_EQ(e.prompt, 0u);
      EXPECT_EQ(e.position, static_cast<int64_t>(prompt.size() + ids.size()) - 1);
      std::set<int> not_in_full;  // a block counts when every part of it ran
      for (size_t u = 0; u < e.run.size(); ++u)
        if (e.run[u] != 1) not_in_full.insert(model.config.routing.units[u].block);
      EXPECT_EQ(e.depth, model.config.num_hidden_layers - static_cast<int64_t>(not_in_full.size()));
      return true;
    });
    const Generated& out = result.texts[0];
    EXPECT_EQ(ids, out.ids);
    EXPECT_EQ(out.text, tokenizer().decode(out.ids));
    EXPECT_EQ(out.text.substr(0, text.size()), text);  // what was held back inside a character comes at the end
    for (size_t i = 0; i < runs.size(); ++i)
      for (size_t r = 0; r < runs[i].size(); ++r) EXPECT_EQ(runs[i][r], out.decisions.run[r][prompt.size() + i]);
    EXPECT_GT(result.stats.block_fraction, 0);
    EXPECT_GE(out.kv_bytes, out.kv_slot_bytes);
    EXPECT_LE(out.kv_slot_bytes, out.kv_slot_bytes_dense);
    EXPECT_EQ(result.stats.decode_tokens, 30);
  }
}

TEST(Generate, StopsWhereItShould) {
  const Model model = talker(7);
  Random random(7);
  Engine engine(model.weights, {.threads = 1});
  GenerateOptions o = options_for(model, random);
  const std::vector<int32_t> prompt = tokenizer().encode("on the log");
  const Generated free = generate(engine, &tokenizer(), {&prompt, 1}, o).texts[0];
  ASSERT_EQ(free.ids.size(), 30u);

  o.stop_ids = {free.ids[11]};
  const Generated by_id = generate(engine, &tokenizer(), {&prompt, 1}, o).texts[0];
  EXPECT_EQ(by_id.finish, Finish::stop_id);
  const size_t first = std::find(free.ids.begin(), free.ids.end(), free.ids[11]) - free.ids.begin();
  EXPECT_EQ(by_id.ids, std::vector<int32_t>(free.ids.begin(), free.ids.begin() + first));
  o.stop_ids.clear();

  // A stop string that spans tokens.
  const std::string needle = free.text.substr(9, 6);
  o.stop = {"never in the text", needle};
  const Generated by_text = generate(engine, &tokenizer(), {&prompt, 1}, o).texts[0];
  EXPECT_EQ(by_text.finish, Finish::stop_string);
  EXPECT_EQ(by_text.text, free.text.substr(0, free.text.find(needle)));

  // What might have begun a stop string and did not is the text's tail: no event carried it, and it is not lost.
  o.stop = {free.text.substr(free.text.size() - 3) + "and no more"};
  std::string streamed;
  const Generated held = generate(engine, &tokenizer(), {&prompt, 1}, o, [&](const TokenEvent& e) { return streamed += text_of(e.text), true; }).texts[0];
  EXPECT_EQ(held.text, free.text);
  EXPECT_EQ(text_of(held.tail), free.text.substr(free.text.size() - 3));
  EXPECT_EQ(streamed + text_of(held.tail), free.text);
  o.stop.clear();

  int events = 0;
  const Generated cancelled = generate(engine, &tokenizer(), {&prompt, 1}, o, [&](const TokenEvent&) { return ++events < 5; }).texts[0];
  EXPECT_EQ(cancelled.finish, Finish::cancelled);
  EXPECT_EQ(events, 5);
  EXPECT_EQ(cancelled.ids, std::vector<int32_t>(free.ids.begin(), free.ids.begin() + 5));
  EXPECT_EQ(engine.pool().pages_in_use(), 0);

  o.max_new_tokens = 100000;
  const Generated full = generate(engine, &tokenizer(), {&prompt, 1}, o).texts[0];
  EXPECT_EQ(full.finish, Finish::context_full);
  EXPECT_EQ(static_cast<int64_t>(prompt.size() + full.ids.size()), model.config.max_position_embeddings);
}

TEST(Generate, CanBeCancelledBetweenSteps) {
  const Model model = talker(11);
  Random random(11);
  Engine engine(model.weights, {.threads = 1});
  GenerateOptions o = options_for(model, random);
  o.prefill_chunk = 2;
  const std::vector<std::vector<int32_t>> prompts = {model::random_tokens(model.config, 9, random), model::random_tokens(model.config, 3, random)};
  const GenerateResult free = generate(engine, &tokenizer(), prompts, o);
  for (int64_t steps = 0; steps < 12; ++steps) {  // the long prompt is read after five, the short one after two
    int64_t asked = 0;
    std::vector<std::vector<int32_t>> seen(2);
    o.cancel = [&] { return asked++ == steps; };
    const GenerateResult r = generate(engine, &tokenizer(), prompts, o, [&](const TokenEvent& e) { return seen[e.prompt].push_back(e.id), true; });
    EXPECT_EQ(r.stats.steps, steps);
    EXPECT_EQ(r.stats.prompt_tokens, std::min<int64_t>(2 * steps, 9) + std::min<int64_t>(2 * steps, 3));
    for (size_t i = 0; i < 2; ++i) {
      const Generated& text = r.texts[i];
      const auto count = static_cast<size_t>(std::max<int64_t>(0, steps - (i == 0 ? 5 : 2)));
      EXPECT_EQ(text.finish, Finish::cancelled);
      EXPECT_EQ(text.ids, std::vector<int32_t>(free.texts[i].ids.begin(), free.texts[i].ids.begin() + static_cast<std::ptrdiff_t>(count))) << steps;
      EXPECT_EQ(text.ids, seen[i]);  // what was sampled and not read is no part of the text
      EXPECT_TRUE(free.texts[i].text.starts_with(text.text.substr(0, text.text.size() - text_of(text.tail).size())));
    }
    EXPECT_TRUE(std::isfinite(r.stats.block_fraction) && std::isfinite(r.stats.total_fraction));
    EXPECT_EQ(engine.pool().pages_in_use(), 0);
  }
  o.cancel = [] { return throw std::runtime_error("enough"), true; };
  EXPECT_THROW(generate(engine, &tokenizer(), prompts, o), std::runtime_error);
  EXPECT_EQ(engine.pool().pages_in_use(), 0);
}

// As Llama-2's: the decoder takes the first space of a text away, and the text begins with the prompt.
TEST(Generate, ATextGoesOnFromItsPrompt) {
  Json json = parse_json(tokenizer().json(), "a test");
  json["decoder"] = parse_json(R"({"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})", "a test");
  const text::Tokenizer strips = text::Tokenizer::from_json(json.dump(), "a test");
  const std::vector<int32_t> prompt = strips.encode("the cat");
  int spaces = 0;
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    const Model model = talker(seed);
    Random random(seed);
    Engine engine(model.weights, {.threads = 1});
    GenerateOptions o = options_for(model, random);
    o.sampling.seed = seed, o.sampling.temperature = 50;  // any token may come
    const Generated text = generate(engine, &strips, {&prompt, 1}, o).texts[0];
    std::vector<int32_t> all = prompt;
    all.insert(all.end(), text.ids.begin(), text.ids.end());
    EXPECT_EQ("the cat" + text.text, strips.decode(all));
    if (!text.text.starts_with(' ')) continue;
    ++spaces;
    o.stop = {text.text.substr(0, 2)};
    EXPECT_EQ(generate(engine, &strips, {&prompt, 1}, o).texts[0].text, "");
  }
  EXPECT_GT(spaces, 2);
}

TEST(Generate, Refuses) {
  const Model model = talker(9);
  Random random(9);
  Engine engine(model.weights, {.threads = 1});
  const GenerateOptions good = options_for(model, random);
  const auto refused = [&](const std::string& field, std::vector<int32_t> prompt, auto change, const text::Tokenizer* t = &tokenizer()) {
    GenerateOptions o = good;
    change(o);
    try {
      generate(engine, t, {&prompt, 1}, o);
      ADD_FAILURE() << field << " was accepted";
    } catch (const UserError& e) {
      EXPECT_EQ(e.parts().field, field);
    }
  };
  const auto same = [](GenerateOptions&) {};
  refused("prompt", {}, same);
  refused("prompt", std::vector<int32_t>(model.config.max_position_embeddings + 1, 0), same);
  refused("max_tokens", {0}, [](GenerateOptions& o) { o.max_new_tokens = 0; });
  refused("max_tokens", {0}, [](GenerateOptions& o) { o.max_new_tokens = int64_t{1} << 40; });
  refused("prefill_chunk", {0}, [](GenerateOptions& o) { o.prefill_chunk = 0; });
  refused("stop", {0}, [](GenerateOptions& o) { o.stop = {""}; });
  refused("stop", {0}, [](GenerateOptions& o) { o.stop = {std::string(5000, 'x')}; });
  refused("stop", {0}, [](GenerateOptions& o) { o.stop = std::vector<std::string>(65, "x"); });
  refused("stop", {0}, [](GenerateOptions& o) { o.stop = {"x"}; }, nullptr);
  refused("temperature", {0}, [](GenerateOptions& o) { o.sampling.temperature = -1; });
  EXPECT_TRUE(generate(engine, nullptr, {}, good).texts.empty());
}

TEST(StopText, EveryByteKeepsItsToken) {
  const std::vector<int32_t> ids = tokenizer().encode("the dog sat on the log. the größe end");
  TextParts expected;
  StopText free(tokenizer(), {});
  for (const int32_t id : ids)
    for (const TextPart& part : free.push(id)) expected.push_back(part);
  ASSERT_TRUE(free.finish().empty());
  for (size_t i = 1; i < expected.size(); ++i) EXPECT_GT(expected[i].token, expected[i - 1].token);
  const auto owners = [](const TextParts& parts) {
    std::vector<std::pair<char, size_t>> out;
    for (const TextPart& part : parts)
      for (const char c : part.text) out.emplace_back(c, part.token);
    return out;
  };
  for (const std::vector<std::string>& stop : {std::vector<std::string>{"dog sat on the log. the g!", "ße end of it"}, {"o!", "th!", "e!"}, {"the dog sat on the log. the größe end!"}}) {
    StopText held(tokenizer(), stop);
    TextParts all;
    for (const int32_t id : ids)
      for (const TextPart& part : held.push(id)) all.push_back(part);
    for (const TextPart& part : held.finish()) all.push_back(part);
    EXPECT_EQ(owners(all), owners(expected));
  }
  StopText cut(tokenizer(), {"og. t"});
  TextParts all;
  for (const int32_t id : ids)
    for (const TextPart& part : cut.push(id)) all.push_back(part);
  EXPECT_TRUE(cut.stopped());
  EXPECT_EQ(text_of(all), "the dog sat on the l");
  auto first = owners(expected);
  first.resize(owners(all).size());
  EXPECT_EQ(owners(all), first);
}

// The decoder of byte tokens holds a run of them back to its end, and its text is theirs all the same.
TEST(StopText, ByteTokensKeepTheirCharacters) {
  Json vocab = {{"<unk>", 0}, {"w", 1}, {"o", 2}};
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    vocab[name] = 3 + b;
  }
  const Json json = {{"model", {{"type", "BPE"}, {"unk_token", "<unk>"}, {"byte_fallback", true}, {"vocab", vocab}, {"merges", Json::array()}}},
                     {"decoder", {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}}};
  const text::Tokenizer bytes = text::Tokenizer::from_json(json.dump(), "a test");
  const auto read = [&](const std::string& prompt, const std::vector<int32_t>& ids) {
    StopText stream(bytes, {"never"}, bytes.encode(prompt));
    std::string all;
    const auto add = [&](const TextParts& parts) {
      for (const TextPart& part : parts) all += str(part.token, part.text, " ");
    };
    for (const int32_t id : ids) add(stream.push(id));
    add(stream.finish());
    return all;
  };
  EXPECT_EQ(read("w", bytes.encode("wéß日o")), "0w 2é 4ß 7日 8o ");
  EXPECT_EQ(read("w", bytes.encode("oé")), "0o 2é ");
  EXPECT_EQ(read("wé", bytes.encode("日o")), "2日 3o ");
  EXPECT_EQ(read("w", {3 + 0xC3, 1, 3 + 0xA9}), "1\uFFFDw 2\uFFFD ");  // broken: they come with what showed that they are
}

TEST(StopText, HoldsBackWhatMayBecomeAStopString) {
  const std::string text = "the dog sat on the log. the end";
  const std::vector<int32_t> ids = tokenizer().encode(text);
  StopText stream(tokenizer(), {"the e", "zzz"});
  std::string out;
  for (int32_t id : ids) {
    out += text_of(stream.push(id));
    ASSERT_EQ(text.substr(0, out.size()), out);
    ASSERT_EQ(out.find("the e"), std::string::npos);
  }
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(out + text_of(stream.finish()), "the dog sat on the log. ");
  // Held back to the end, and then let go.
  StopText held(tokenizer(), {"the endless"});
  out.clear();
  for (int32_t id : ids) out += text_of(held.push(id));
  EXPECT_EQ(out, "the dog sat on the log. ");
  EXPECT_EQ(text_of(held.finish()), "the end");
  EXPECT_FALSE(held.stopped());
}

}  // namespace
}  // namespace fathom::infer::test
