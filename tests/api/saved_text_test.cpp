// A text in a file: whoever loads it goes on as if he had read it himself.
#include "infer/cache_file.h"
#include "sample.h"

namespace fathom::test {
namespace {

using ::testing::HasSubstr;

TEST(Engine, ASavedTextGoesOnInAnotherEngine) {
  const TemporaryFolder folder;
  const std::string path = sample_folder(folder, "mod"), file = join_path(folder.path(), "text.kv");
  const Model model = Model::open(path);
  for (const CacheType type : {CacheType::f32, CacheType::q8_0}) {
    for (const std::vector<DialFrom>& dials : {std::vector<DialFrom>(), {{0, 0.6}}, {{0, 0.6}, {70, 1}}}) {
      Engine first(model, {.threads = 1, .kv_type = type});
      std::vector<TokenId> ids = model.encode(kText.substr(0, 200));
      for (const TokenId id : first.generate({.prompt = ids, .max_tokens = 30, .dials = dials, .stop_at_end = false}).ids()) ids.push_back(id);
      Stream beside = first.submit({.prompt = "The moon", .max_tokens = 20, .stop_at_end = false});
      beside.next();
      const int64_t kept = first.save(file, ids, dials);
      EXPECT_EQ(kept, std::ssize(ids));
      EXPECT_EQ(beside.wait().at(0).tokens.size(), 20U) << "nobody is disturbed";

      Engine second(model, {.threads = 1, .kv_type = type}), alone(model, {.threads = 1, .prefix_tokens = 0, .kv_type = type});
      const KeptText text = second.load(file);
      EXPECT_EQ(text.ids, ids);
      EXPECT_EQ(text.kept, kept);
      ASSERT_EQ(text.dials.size(), dials.size());
      for (size_t i = 0; i < dials.size(); ++i) EXPECT_TRUE(text.dials[i].position == dials[i].position && text.dials[i].dial == dials[i].dial);
      Request on{.prompt = text.ids, .max_tokens = 12, .dials = text.dials, .seed = 3, .stop_at_end = false, .log_probs = 0};
      std::get<1>(on.prompt).push_back(9);
      const Text found = second.generate(on), expected = alone.generate(on);
      EXPECT_EQ(found.cached_tokens, kept);
      EXPECT_EQ(second.stats().prompt_rows, 1);
      EXPECT_EQ(found.text, expected.text);
      for (size_t i = 0; i < found.tokens.size(); ++i) {
        EXPECT_EQ(found.tokens[i].log_probs->chosen, expected.tokens[i].log_probs->chosen);
        EXPECT_EQ(found.tokens[i].run, expected.tokens[i].run);
      }
    }
  }

  // While a thread of the engine's own makes steps, and others come and go.
  Engine busy(model, {.threads = 1, .kv_type = CacheType::q8_0});
  busy.start();
  std::vector<Stream> streams;
  for (uint64_t i = 0; i < 6; ++i) streams.push_back(busy.submit({.prompt = "The sea", .max_tokens = 60, .seed = i, .stop_at_end = false}));
  const KeptText text = busy.load(file);
  EXPECT_EQ(busy.save(file, text.ids, text.dials), text.kept);
  for (Stream& s : streams) EXPECT_EQ(s.wait().at(0).tokens.size(), 60U);

  // What is refused: by name, and nothing is changed by it.
  const std::string whole = read_file(file, 1 << 24);
  const auto load = [&](Engine by) { return api_error_of([&] { by.load(file); }); };
  EXPECT_THAT(load(Engine(model, {.threads = 1})), HasSubstr("text.kv: kv_type: found q8_0, expected f32; give EngineOptions::kv_type q8_0"));
  const CacheType q8 = CacheType::q8_0;
  EXPECT_THAT(load(Engine(model, {.threads = 1, .kv_bytes = 5'000, .kv_type = q8})), HasSubstr("; give EngineOptions::kv_bytes "));
  EXPECT_THAT(load(Engine(model, {.threads = 1, .prefix_tokens = 0, .kv_type = q8})), HasSubstr("engine options: prefix_tokens: found 0"));
  EXPECT_THAT(load(Engine(model, {.threads = 1, .prefix_tokens = 64, .kv_type = q8})), HasSubstr("; raise EngineOptions::prefix_tokens"));
  EXPECT_THAT(load(Engine(Model::open(sample_folder(folder, "other", true, 6)), {.threads = 1, .kv_type = q8})), HasSubstr("found another model or tokenizer"));
  for (size_t at : {whole.size() / 2, size_t{20}, whole.size() - 3}) {
    std::string damaged = whole;
    damaged[at] ^= 1;
    atomic_write(file, damaged);
    EXPECT_THAT(load(Engine(model, {.threads = 1, .kv_type = q8})), HasSubstr("the file is damaged")) << at;
  }
  atomic_write(file, whole.substr(0, whole.size() / 2));
  EXPECT_THAT(load(Engine(model, {.threads = 1, .kv_type = q8})), HasSubstr("the file is damaged"));
  atomic_write(file, "The sea is calm tonight, and no cache at all.");
  EXPECT_THAT(load(Engine(model, {.threads = 1, .kv_type = q8})), HasSubstr("found no saved cache, expected a file that begins with FATHOMKV; Engine::save writes one"));
  EXPECT_THAT(api_error_of([&] { busy.save(file, text.ids, text.dials); }), HasSubstr("a file that is no saved cache"));
  EXPECT_THAT(api_error_of([&] { busy.load(join_path(folder.path(), "none.kv")); }), HasSubstr("none.kv"));
  // A file of the chat, which notes other things.
  Plain plain(path);
  infer::save_cache(join_path(folder.path(), "chat.kv"), plain.folder->fingerprint() + plain.tokenizer.identity(), plain.engine,
                    {.ids = {}, .policies = {}, .read = {.sequence = plain.engine.new_sequence(), .decisions = {.run = {{}, {}}, .score = {{}, {}}}}, .note = {{"conversation", "…"}}});
  EXPECT_THAT(api_error_of([&] { Engine(model, {.threads = 1}).load(join_path(folder.path(), "chat.kv")); }), HasSubstr("note: found no dials, expected a file of Engine::save"));

  const auto save = [&](const std::vector<TokenId>& ids, const std::vector<DialFrom>& dials = {}) { return api_error_of([&] { busy.save(file + "2", ids, dials); }); };
  EXPECT_THAT(save({}), HasSubstr("text: ids: found 0 tokens, expected 1 to"));
  EXPECT_THAT(save({1, 320}), HasSubstr("text: ids: found id 320, expected 0 to 319"));
  EXPECT_THAT(save(std::vector<TokenId>(241, 3)), HasSubstr("found 241 tokens"));
  EXPECT_THAT(save({1, 2}, {{1, 1}}), HasSubstr("text: dials: found position 1, expected 0 first"));
  EXPECT_THAT(save({1, 2}, {{0, 1}, {2, 0.6}}), HasSubstr("text: dials: found position 2, expected below 2"));
  EXPECT_FALSE(exists(file + "2"));
}

}  // namespace
}  // namespace fathom::test
