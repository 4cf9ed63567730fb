// Saved caches: a text goes on from the file as if nothing had happened, and no file of another kind gets in.
#include "infer/cache_file.h"

#include <gmock/gmock.h>

#include <cstring>

#include "bounds.h"
#include "core/file.h"
#include "scheduler_support.h"

namespace fathom::infer::test {
namespace {

using ::testing::HasSubstr;

const std::string kFingerprint(64, 'f');

// A conversation of two parts: the first is read, written and kept; the second goes on from it.
struct Talk {
  Model model;
  KvType type;
  Request first, second;

  explicit Talk(uint64_t seed, KvType t) : model(small(seed)), type(t) {
    Random random(seed);
    first = plain(model, 20 + static_cast<int64_t>(random.below(90)), 1 + static_cast<int64_t>(random.below(20)), random);
    first.policies = {{0, RoutingPolicy::causal(model::random_thresholds(model.config, random))}};
    if (random.uniform() < 0.5)
      first.policies.push_back({5 + static_cast<int64_t>(random.below(10)), random.uniform() < 0.5 ? RoutingPolicy::control(model.config)
                                                                                                    : RoutingPolicy::causal(model::random_thresholds(model.config, random))});
    second = first;
    const std::vector<int32_t> more = model::random_tokens(model.config, 8, random);
    second.max_new_tokens = 30, second.sampling.temperature = 1.2, second.stream = 4;
    second.prompt = more;  // after what the first became
  }
  std::shared_ptr<Engine> engine(int64_t kv_bytes = 0) const { return std::make_shared<Engine>(model.weights, EngineOptions{.threads = 1, .kv_bytes = kv_bytes, .kv_type = type}); }
  Generated run(Scheduler& scheduler, Request r) const {
    Generated out;
    r.on_finish = [&](size_t, Generated&& text) { out = std::move(text); };
    scheduler.submit(r);
    while (!scheduler.idle()) scheduler.step();
    return out;
  }
  std::vector<int32_t> after_first(const Generated& g) const {
    std::vector<int32_t> ids = first.prompt;
    ids.insert(ids.end(), g.ids.begin(), g.ids.end());
    return ids;
  }
  Request continued(const std::vector<int32_t>& ids) const {
    Request r = second;
    r.prompt.insert(r.prompt.begin(), ids.begin(), ids.end());
    return r;
  }
};

constexpr int64_t kKept = 4096;

struct Saved {
  TemporaryFolder folder;
  std::string path = join_path(folder.path(), "talk");
  std::vector<int32_t> ids;

  Saved(const Talk& talk, Engine& engine, Scheduler& scheduler) {
    // Pages that others wrote before.
    Random random(99);
    talk.run(scheduler, plain(talk.model, 150, 20, random));
    scheduler.forget_prefixes();
    ids = talk.after_first(talk.run(scheduler, talk.first));
    save_cache(path, kFingerprint, engine, {.ids = ids, .policies = talk.first.policies, .read = scheduler.kept(ids, talk.first.policies), .note = {{"said", "a lot"}}});
  }
};

TEST(CacheFile, ATextGoesOnAsIfItHadNotBeenSaved) {
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    const Talk talk(seed, kv_of(seed));
    SCOPED_TRACE(talk.model.describe());
    const auto engine = talk.engine();
    Scheduler scheduler(*engine, {.prefix_tokens = kKept});
    Saved saved(talk, *engine, scheduler);
    const Generated expected = talk.run(scheduler, talk.continued(saved.ids));
    EXPECT_EQ(expected.cached_tokens, std::ssize(saved.ids));

    const auto other = talk.engine();
    Scheduler second(*other, {.prefix_tokens = kKept});
    int sound = 0;
    {
      const CachedText text = load_cache(saved.path, kFingerprint, *other, [&] { ++sound; });
      EXPECT_EQ(text.ids, saved.ids);
      EXPECT_EQ(text.read.sequence.position(), std::ssize(saved.ids));
      EXPECT_EQ(text.note, Json({{"said", "a lot"}}));
      ASSERT_EQ(text.policies.size(), talk.first.policies.size());
      for (size_t i = 0; i < text.policies.size(); ++i) {
        EXPECT_EQ(text.policies[i].position, talk.first.policies[i].position);
        EXPECT_EQ(text.policies[i].policy, talk.first.policies[i].policy);
      }
      second.keep(text.ids, text.policies, text.read);
      // The file is the text's alone, whatever its pages held before.
      save_cache(saved.path + "2", kFingerprint, *other, {.ids = text.ids, .policies = text.policies, .read = second.kept(text.ids, text.policies), .note = text.note});
      EXPECT_EQ(read_file(saved.path, 1 << 26), read_file(saved.path + "2", 1 << 26));
    }
    EXPECT_EQ(sound, 1);
    const Generated found = talk.run(second, talk.continued(saved.ids));
    EXPECT_EQ(found.cached_tokens, std::ssize(saved.ids));
    EXPECT_EQ(found.ids, expected.ids);
    EXPECT_EQ(found.decisions.run, expected.decisions.run);
    for (size_t r = 0; r < expected.decisions.score.size(); ++r) EXPECT_TRUE(same_bits(found.decisions.score[r], expected.decisions.score[r]));
    second.forget_prefixes();
    EXPECT_EQ(other->pool().pages_in_use(), 0);
    if (HasFailure()) return;
  }
}

TEST(CacheFile, WhatAnotherModelOrTypeWroteIsRefused) {
  const Talk talk(2, KvType::f16);
  const auto engine = talk.engine();
  Scheduler scheduler(*engine, {.prefix_tokens = kKept});
  Saved saved(talk, *engine, scheduler);
  const auto load = [&](const std::string& path, const std::string& model, Engine& e) { return error_message([&] { load_cache(path, model, e); }); };
  EXPECT_EQ(load(saved.path, kFingerprint, *engine), "no error");
  EXPECT_THAT(load(saved.path, std::string(64, 'e'), *engine), HasSubstr("talk: model: found another model or tokenizer"));
  Engine wide(talk.model.weights, {.threads = 1});
  EXPECT_THAT(load(saved.path, kFingerprint, wide), HasSubstr("kv_type: found f16, expected f32; give --kv-type f16"));
  const Model another = small(3);
  Engine shape(another.weights, {.threads = 1, .kv_type = KvType::f16});
  EXPECT_THAT(load(saved.path, kFingerprint, shape), HasSubstr("expected"));  // even of the same fingerprint
  const auto tight = talk.engine(page_bytes(talk.model.config, KvType::f16));
  EXPECT_THAT(load(saved.path, kFingerprint, *tight), HasSubstr("give --kv-memory "));
  EXPECT_EQ(tight->pool().pages_in_use(), 0);
  EXPECT_THAT(load(saved.path + "x", kFingerprint, *engine), HasSubstr("No such file"));
  // The first version differs in q8_0 alone.
  const auto as_version = [&](const std::string& path, char version) {
    std::string file = read_file(path, 1 << 26);
    file[8] = version;
    file.resize(file.size() - 32);
    atomic_write(path + ".v", file + hash_bytes(file));
    return path + ".v";
  };
  EXPECT_EQ(load(as_version(saved.path, 1), kFingerprint, *engine), "no error");
  EXPECT_THAT(load(as_version(saved.path, 3), kFingerprint, *engine), HasSubstr("version: found 3, expected 1 or 2; it was written by a later version"));
  const Talk narrow(2, KvType::q8_0);
  const auto of_codes = narrow.engine();
  Scheduler other(*of_codes, {.prefix_tokens = kKept});
  Saved codes(narrow, *of_codes, other);
  EXPECT_EQ(load(codes.path, kFingerprint, *of_codes), "no error");
  EXPECT_THAT(load(as_version(codes.path, 1), kFingerprint, *of_codes), HasSubstr("version: found 1, expected 2 for kv_type q8_0; its keys and values lie in another order now: read the conversation again"));
  // Nor is a file of another kind written over.
  const std::string notes = join_path(saved.folder.path(), "notes.txt");
  atomic_write(notes, "dear diary");
  const auto save = [&](const std::string& path) {
    return error_message([&] { save_cache(path, kFingerprint, *engine, {.ids = {}, .policies = {}, .read = {.sequence = engine->new_sequence(), .decisions = {}}, .note = {}}); });
  };
  EXPECT_THAT(save(notes), HasSubstr("notes.txt: found a file that is no saved cache"));
  EXPECT_THAT(save(saved.folder.path()), HasSubstr("found a folder"));
  EXPECT_EQ(read_file(notes, 100), "dear diary");
  EXPECT_THAT(load(notes, kFingerprint, *engine), HasSubstr("a file that begins with FATHOMKV"));
}

// Bytes changed, cut off, added: named, never read. Then the same with the checksum made right again, which nothing but the checks
// themselves keeps out.
TEST(CacheFile, DamagedFilesAreRefused) {
  int64_t refused = 0, passed = 0;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    const Talk talk(seed, kv_of(seed));
    const auto engine = talk.engine();
    Scheduler scheduler(*engine, {.prefix_tokens = kKept});
    Saved saved(talk, *engine, scheduler);
    const std::string good = read_file(saved.path, 1 << 26), bad = saved.path + ".bad";
    uint32_t header;
    std::memcpy(&header, good.data() + 12, 4);
    Random random(seed);
    const int64_t held = engine->pool().pages_in_use();
    for (int trial = 0; trial < 400; ++trial) {
      std::string bytes = good;
      const bool sealed = trial % 2 == 1;
      // Header and what stands before the pages more often than the pages.
      const auto place = [&] { return random.below(random.uniform() < 0.7 ? std::min<uint64_t>(bytes.size(), header + 400) : bytes.size()); };
      const double kind = random.uniform();
      if (kind < 0.15) bytes.resize(random.below(bytes.size()));
      else if (kind < 0.25) bytes.insert(place(), random.below(100), static_cast<char>(random.below(256)));
      else if (kind < 0.35) bytes.erase(place(), 1 + random.below(100));
      else if (kind < 0.5 && trial % 4 == 1) std::memcpy(bytes.data() + 8 + random.below(2) * 4, "\xff\xff\xff\x7f", 4);
      else if (kind < 0.75)  // a digit of the header
        for (size_t at = 16 + random.below(header); at < 16 + header; ++at)
          if (bytes[at] >= '0' && bytes[at] <= '9') {
            bytes[at] = static_cast<char>('0' + random.below(10));
            break;
          }
      if (kind >= 0.75) {
        const size_t at = place();
        bytes[at] = static_cast<char>(bytes[at] ^ static_cast<char>(1 << random.below(8)));
      }
      if (bytes == good) continue;
      if (sealed && bytes.size() > 48) bytes.replace(bytes.size() - 32, 32, hash_bytes(std::string_view(bytes).substr(0, bytes.size() - 32)));
      atomic_write(bad, bytes);
      const std::string message = error_message([&] {
        const CachedText text = load_cache(bad, kFingerprint, *engine);
        // What passes is whole: scores, keys and values may be any numbers, the caller's note any words.
        EXPECT_LE(text.read.sequence.position(), std::ssize(text.ids));
        EXPECT_LE(std::ssize(text.ids), engine->config().max_position_embeddings);
      });
      EXPECT_TRUE(sealed || message != "no error") << "trial " << trial;
      EXPECT_TRUE(message == "no error" || message.find(bad) != std::string::npos) << message;
      (message == "no error" ? passed : refused) += 1;
      ASSERT_EQ(engine->pool().pages_in_use(), held);
    }
  }
  EXPECT_GT(refused, 1000);
  std::printf("%lld refused, %lld sealed anew were taken\n", static_cast<long long>(refused), static_cast<long long>(passed));
}

// What is right by the checksum and wrong in itself, one thing at a time.
TEST(CacheFile, WhatTheHeaderSaysIsChecked) {
  const Talk talk(5, KvType::bf16);
  const auto engine = talk.engine();
  Scheduler scheduler(*engine, {.prefix_tokens = kKept});
  Saved saved(talk, *engine, scheduler);
  const std::string good = read_file(saved.path, 1 << 26), bad = saved.path + ".bad";
  uint32_t header_bytes;
  std::memcpy(&header_bytes, good.data() + 12, 4);
  const Json header = Json::parse(good.substr(16, header_bytes));
  const auto up = [](size_t n) { return (n + 63) / 64 * 64; };
  const std::string rest = good.substr(up(16 + header_bytes), good.size() - up(16 + header_bytes) - 32);
  const auto with = [&](const std::function<void(Json&)>& change, const std::function<void(std::string&)>& change_rest = {}) {
    Json h = header;
    change(h);
    std::string text = h.dump(), data = rest;
    if (change_rest) change_rest(data);
    std::string file = good.substr(0, 12);
    const auto size = static_cast<uint32_t>(text.size());
    file.append(reinterpret_cast<const char*>(&size), 4);
    file += text;
    file.resize(up(file.size()));
    file += data;
    atomic_write(bad, file + hash_bytes(file));
    return error_message([&] { load_cache(bad, kFingerprint, *engine); });
  };
  const auto nothing = [](Json&) {};
  EXPECT_EQ(with(nothing), "no error");
  const int64_t tokens = header["tokens"], position = header["position"];
  ASSERT_EQ(tokens, position);
  EXPECT_THAT(with([](Json& h) { h.erase("position"); }), HasSubstr("position"));
  EXPECT_THAT(with([](Json& h) { h["colour"] = 1; }), HasSubstr("colour"));
  EXPECT_THAT(with([](Json& h) { h.erase("note"); }), HasSubstr("note"));
  EXPECT_THAT(with([&](Json& h) { h["tokens"] = position - 1; }), HasSubstr(str("position: found the number ", position)));
  EXPECT_THAT(with([&](Json& h) { h["tokens"] = talk.model.config.max_position_embeddings + 1; }), HasSubstr("tokens: found"));
  EXPECT_THAT(with([&](Json& h) { h["tokens"] = tokens + 64; }), HasSubstr("by its header"));
  EXPECT_THAT(with([](Json& h) { h["lengths"].erase(0); }), HasSubstr("one per block"));
  EXPECT_THAT(with([&](Json& h) { h["lengths"][0] = position + 1; }), HasSubstr("lengths[0]"));
  EXPECT_THAT(with([&](Json& h) { h["lengths"][0] = position - 1; }), HasSubstr("slots as tokens ran"));
  EXPECT_THAT(with([](Json& h) { h["kv_heads"] = 99; }), HasSubstr("kv_heads: found the number 99"));
  EXPECT_THAT(with([](Json& h) { h["units"] = 99; }), HasSubstr("units: found the number 99"));
  EXPECT_THAT(with([](Json& h) { h["kv_type"] = "q9"; }), HasSubstr("kv_type: found q9, expected bf16"));
  EXPECT_THAT(with([](Json& h) { h["policies"] = Json::array(); }), HasSubstr("policies: found"));
  EXPECT_THAT(with([](Json& h) { h["policies"][0]["position"] = 1; }), HasSubstr("policies[0].position: found the number 1"));
  EXPECT_THAT(with([](Json& h) { h["policies"].push_back(h["policies"][0]); }), HasSubstr("position: found the number 0"));
  EXPECT_THAT(with([](Json& h) { h["policies"][0]["rule"] = "topk"; }), HasSubstr("rule: found \"topk\""));
  EXPECT_THAT(with([](Json& h) { h["policies"][0]["rule"] = "random"; }), HasSubstr("capacity"));
  EXPECT_THAT(with(nothing, [](std::string& data) { data[3] = '\x7f'; }), HasSubstr("tokens: found id"));
  EXPECT_THAT(with(nothing, [&](std::string& data) { data[static_cast<size_t>(tokens) * 4] = 3; }), HasSubstr("decisions: found a byte above 2"));
  EXPECT_THAT(with(nothing, [](std::string& data) { data += std::string(64, '\0'); }), HasSubstr("by its header"));
}

TEST(CacheFile, Limits) {
  const Talk talk(5, KvType::f32);
  const auto engine = talk.engine();
  TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "c");
  const auto header_of = [&](uint32_t bytes) {
    return [&, bytes] {
      std::string file("FATHOMKV\x02\0\0\0", 12);
      file.append(reinterpret_cast<const char*>(&bytes), 4);
      atomic_write(path, file + std::string(100, ' '));
      load_cache(path, kFingerprint, *engine);
    };
  };
  expect_bound("kCacheHeaderBytes", header_of(limits::kCacheHeaderBytes), header_of(limits::kCacheHeaderBytes + 1), "header: found 268435457 bytes, expected at most 268435456;");
}

}  // namespace
}  // namespace fathom::infer::test
