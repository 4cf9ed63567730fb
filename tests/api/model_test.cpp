#include <cmath>
#include <filesystem>

#include "core/log.h"
#include "infer/score.h"
#include "model/cost.h"
#include "sample.h"

namespace fathom::test {
namespace {

using ::testing::HasSubstr;

constexpr const char* kTemplate = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>";

TEST(Model, SaysWhatItIs) {
  const TemporaryFolder folder;
  const std::string path = sample_folder(folder, "mod");
  const Model model = Model::open(path);
  const ModelInfo& i = model.info();
  const auto plain = model::ModelFolder::open(path);
  const model::ModelConfig& c = plain->config();
  EXPECT_EQ(i.path, path);
  EXPECT_EQ((std::vector<int64_t>{i.vocab_size, i.hidden_size, i.intermediate_size, i.num_hidden_layers, i.num_attention_heads, i.num_key_value_heads, i.head_dim, i.max_position_embeddings}),
            (std::vector<int64_t>{c.vocab_size, 24, 40, 4, 3, 1, 8, 240}));
  EXPECT_EQ(i.routed_blocks, (std::vector<int>{1, 3}));
  EXPECT_EQ(i.capacity, (std::vector<double>{0.25, 0.5}));
  EXPECT_EQ(i.parameters, model::parameters(c).total());
  EXPECT_GE(i.weight_bytes, 4 * (i.parameters - c.vocab_size * c.hidden_size));  // rows of panels are filled up; the embedding stays in its file
  EXPECT_EQ(i.kv_bytes_per_token, (std::map<CacheType, int64_t>{{CacheType::f32, 2 * 8 * 4 * 4}, {CacheType::f16, 2 * 8 * 2 * 4}, {CacheType::bf16, 2 * 8 * 2 * 4}, {CacheType::q8_0, 2 * (8 + 2) * 4}}));
  EXPECT_TRUE(i.has_tokenizer && !i.has_chat_template && !i.begin_token);
  EXPECT_THAT(i.end_tokens, ::testing::Contains(0));
  EXPECT_EQ(i.default_dial, 0.7);
  EXPECT_EQ(i.lowest_dial, 0.6);
  ASSERT_EQ(i.dial_points.size(), 3U);
  EXPECT_EQ(i.dial_points[0].capacity, (std::vector<double>{0.1, 0.2}));
  EXPECT_EQ(i.dial_points[2].loss, 6.8);

  const Model dense = Model::open(sample_folder(folder, "dense", false));
  EXPECT_TRUE(dense.info().routed_blocks.empty() && dense.info().dial_points.empty());
  EXPECT_EQ(dense.info().default_dial, 1);
}

TEST(Model, TextsToIdsAndBack) {
  const TemporaryFolder folder;
  const std::string path = sample_folder(folder, "mod");
  const Model model = Model::open(path);
  const text::Tokenizer tokenizer = model::ModelFolder::open(path)->tokenizer();
  const std::string text = "The sea, é <|endoftext|>";
  EXPECT_EQ(model.encode(text), tokenizer.encode(text));
  EXPECT_EQ(model.encode(text, {.special = true}), tokenizer.encode(text, {.allow_special = true}));
  EXPECT_EQ(model.decode(model.encode(text)), text);
  const std::vector<TokenId> special = model.encode(text, {.special = true});
  EXPECT_TRUE(model.is_special(special.back()) && !model.is_special(special.front()));
  EXPECT_EQ(model.decode(special), "The sea, é ");
  EXPECT_EQ(model.decode(special, true), text);
  EXPECT_EQ(model.token_bytes(special.front()), tokenizer.token_bytes(special.front()));
  EXPECT_TRUE(model.encode("").empty());
  EXPECT_EQ(model.encode("", {.begin = true}), (std::vector<TokenId>{*tokenizer.eos_id()})) << "what stands between two documents begins one";
}

TEST(Model, OpensWhatItIsGiven) {
  const TemporaryFolder folder;
  const std::string path = sample_folder(folder, "mod");
  EXPECT_THAT(api_error_of([&] { Model::open(join_path(folder.path(), "none")); }), HasSubstr("none"));
  EXPECT_THAT(api_error_of([&] { Model::open(path, {.threads = -1}); }), HasSubstr("threads: found -1"));

  const Model words = Model::open(path, {.weights = false});
  EXPECT_EQ(words.info().weight_bytes, 0);
  EXPECT_EQ(words.decode(words.encode("The sea")), "The sea");
  EXPECT_THAT(api_error_of([&] { Engine engine(words); }), HasSubstr("opened without its weights"));
  EXPECT_THAT(api_error_of([&] { score(words, std::vector<TokenId>{1, 2}); }), HasSubstr("opened without its weights"));

  // The folder of a run.
  const std::string run = join_path(folder.path(), "run");
  std::filesystem::create_directory(run);
  std::filesystem::rename(path, join_path(run, "model"));
  EXPECT_EQ(Model::open(run).info().path, join_path(run, "model"));

  // From ids to ids, where there is no tokenizer.
  std::filesystem::remove(join_path(run, "model/tokenizer.json"));
  const Model bare = Model::open(run);
  EXPECT_FALSE(bare.info().has_tokenizer);
  EXPECT_THAT(api_error_of([&] { bare.encode("The sea"); }), HasSubstr("tokenizer.json"));
  Engine engine(bare, {.threads = 1});
  EXPECT_THAT(api_error_of([&] { engine.submit({.prompt = "The sea"}); }), HasSubstr("tokenizer.json"));
  EXPECT_THAT(api_error_of([&] { engine.submit({.prompt = std::vector<TokenId>{5}, .stop = {"x"}}); }), HasSubstr("they need a tokenizer"));
  const Text text = engine.generate({.prompt = std::vector<TokenId>{5, 6}, .max_tokens = 3, .stop_at_end = false});
  EXPECT_TRUE(text.text.empty());
  EXPECT_EQ(text.tokens.size(), 3U);
}

TEST(Model, Conversations) {
  const TemporaryFolder folder;
  const std::string path = sample_folder(folder, "mod");
  const std::vector<ChatMessage> messages = {{"user", "Is the sea calm?"}};
  EXPECT_THAT(api_error_of([&] { Model::open(path).chat(messages); }), HasSubstr("no chat template"));
  atomic_write(join_path(path, "chat_template.jinja"), kTemplate);
  const Model model = Model::open(path);
  EXPECT_TRUE(model.info().has_chat_template);
  EXPECT_EQ(model.chat_text(messages), "<user>Is the sea calm?<assistant>");
  EXPECT_EQ(model.chat_text({{"user", "Is the sea calm?"}}), model.chat_text(messages));
  EXPECT_EQ(model.chat(messages), model.encode("<user>Is the sea calm?<assistant>", {.special = true}));
  Engine engine(model, {.threads = 1});
  EXPECT_EQ(engine.generate({.prompt = model.chat(messages), .max_tokens = 9}).text, engine.generate({.prompt = "<user>Is the sea calm?<assistant>", .max_tokens = 9}).text);
  atomic_write(join_path(path, "chat_template.jinja"), "{% nothing %}");
  const Model odd = Model::open(path);  // it still goes on with texts
  EXPECT_FALSE(odd.info().has_chat_template);
  EXPECT_THAT(api_error_of([&] { odd.chat_text(messages); }), HasSubstr("chat_template.jinja"));
}

TEST(Model, RecommendsASampling) {
  const TemporaryFolder folder;
  const std::string path = sample_folder(folder, "mod");
  EXPECT_EQ(Model::open(path).sampling().temperature, 1.0);
  atomic_write(join_path(path, "generation_config.json"), R"({"temperature": 0.25, "top_k": 7, "top_p": 0.5, "repetition_penalty": 1.25})");
  const Model model = Model::open(path);
  const Sampling own = model.sampling();
  EXPECT_EQ((std::vector<double>{own.temperature, static_cast<double>(own.top_k), own.top_p, own.repetition_penalty}), (std::vector<double>{0.25, 7, 0.5, 1.25}));
  Engine engine(model, {.threads = 1});
  const Request request{.prompt = "The sea", .max_tokens = 20, .seed = 3};
  Request said = request;
  said.sampling = own;
  EXPECT_EQ(engine.generate(request).text, engine.generate(said).text);
  said.sampling = Sampling{};
  EXPECT_NE(engine.generate(request).text, engine.generate(said).text);
}

TEST(Score, IsTheEngines) {
  const TemporaryFolder folder;
  const std::string path = sample_folder(folder, "mod");
  const Model model = Model::open(path);
  Plain plain(path);
  const std::vector<std::vector<TokenId>> texts = {model.encode(kText), model.encode("The sea"), {7}};
  const std::vector<TextScore> scores = score(model, texts, {.dial = 0.65, .threads = 1});
  ASSERT_EQ(scores.size(), 3U);
  for (size_t i = 0; i < texts.size(); ++i) {
    const infer::DocumentScore expected = infer::score_document(plain.engine, texts[i], {.policy = infer::RoutingPolicy::at_dial(plain.folder->config(), plain.folder->dial(), 0.65)});
    ASSERT_EQ(scores[i].log_prob.size(), texts[i].size() - 1);
    for (size_t t = 0; t + 1 < texts[i].size(); ++t) EXPECT_EQ(scores[i].log_prob[t], -expected.nll[t]);
    EXPECT_EQ(scores[i].best, expected.best);
    EXPECT_EQ(scores[i].run, expected.decisions.run);
    EXPECT_EQ(scores[i].router, expected.decisions.score);
    for (size_t t = 0; t < texts[i].size(); ++t) EXPECT_EQ(scores[i].depth[t], 2 + expected.decisions.run[0][t] + expected.decisions.run[1][t]);
    const TextScore alone = score(model, texts[i], {.dial = 0.65});
    EXPECT_EQ(alone.log_prob, scores[i].log_prob);
  }
  EXPECT_LT(scores[0].block_fraction, 1);
  EXPECT_LT(scores[0].block_fraction, scores[0].total_fraction);
  EXPECT_EQ(score(model, texts[0], {.dial = 1}).depth, std::vector<int64_t>(texts[0].size(), 4));
  EXPECT_NEAR(scores[1].log_prob_sum(), scores[1].log_prob[0] + scores[1].log_prob[1], std::abs(scores[1].log_prob_sum()));
  EXPECT_TRUE(score(model, std::vector<std::vector<TokenId>>{}).empty());

  EXPECT_THAT(api_error_of([&] { score(model, std::vector<TokenId>{}); }), HasSubstr("score: text 0: found 0 tokens"));
  EXPECT_THAT(api_error_of([&] { score(model, std::vector<TokenId>(241, 3)); }), HasSubstr("found 241 tokens, expected 1 to the model's max_position_embeddings 240"));
  EXPECT_THAT(api_error_of([&] { score(model, std::vector<std::vector<TokenId>>{{1}, {2, 320}}); }), HasSubstr("score: text 1, token 1: found id 320, expected 0 to 319"));
  EXPECT_THAT(api_error_of([&] { score(model, texts[1], {.dial = 0}); }), HasSubstr("expected"));
  EXPECT_THAT(api_error_of([&] { score(model, texts[1], {.threads = -1}); }), HasSubstr("score options: threads: found -1, expected 0 to 1024"));
  EXPECT_THAT(api_error_of([&] { score(model, texts[1], {.kv_type = static_cast<CacheType>(4)}); }), HasSubstr("score options: kv_type: found 4, expected a CacheType"));

  // With keys and values held otherwise, as an engine that holds them so.
  infer::Engine narrow(infer::Weights::load(*plain.folder), {.threads = 1, .kv_type = KvType::q8_0});
  const infer::DocumentScore expected = infer::score_document(narrow, texts[0], {.policy = infer::RoutingPolicy::at_dial(plain.folder->config(), plain.folder->dial(), 0.65)});
  const TextScore found = score(model, texts[0], {.dial = 0.65, .kv_type = CacheType::q8_0});
  for (size_t t = 0; t + 1 < texts[0].size(); ++t) EXPECT_EQ(found.log_prob[t], -expected.nll[t]);
  EXPECT_NE(found.log_prob, scores[0].log_prob);
}

TEST(Library, VersionAndRemarks) {
  EXPECT_EQ(version(), std::to_string(FATHOM_VERSION_MAJOR) + "." + std::to_string(FATHOM_VERSION_MINOR) + "." + std::to_string(FATHOM_VERSION_PATCH));
  std::vector<std::string> lines;
  set_log([&](const std::string& line) { lines.push_back(line); });
  log_warning("a file holds more than it should");
  set_log({});
  EXPECT_EQ(lines, (std::vector<std::string>{"warning: a file holds more than it should"}));
  ::testing::internal::CaptureStderr();
  log_warning("again");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "warning: again\n");
}

}  // namespace
}  // namespace fathom::test
