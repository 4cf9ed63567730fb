#include <filesystem>
#include <limits>

#include "core/limits.h"

#include "sample.h"

namespace fathom::test {
namespace {

void expect_public_bound(const std::string& name, const std::function<void()>& at, const std::function<void()>& past, const std::string& words) {
  EXPECT_THAT(api_error_of(at), ::testing::Not(::testing::HasSubstr(words))) << name << ", at the bound";
  EXPECT_THAT(api_error_of(past), ::testing::HasSubstr(words)) << name << ", past the bound";
}

TEST(Limits, Engine) {
  const TemporaryFolder folder;
  const Model model = Model::open(sample_folder(folder, "mod"), {.threads = 1});
  const auto with = [&](const std::function<void(EngineOptions&)>& change) {
    return [&model, change] {
      EngineOptions options{.threads = 1};
      change(options);
      const Engine engine(model, options);
    };
  };
  using limits::kStepRows, limits::kTexts, limits::kThreads;
  expect_public_bound("kTexts", with([](auto& o) { o.max_texts = kTexts, o.step_rows = kTexts + 1; }), with([](auto& o) { o.max_texts = kTexts + 1, o.step_rows = kTexts + 2; }),
                      "max_texts: found 4097, expected 1 to 4096");
  expect_public_bound("kTexts", with([](auto& o) { o.max_texts = 1; }), with([](auto& o) { o.max_texts = 0; }), "max_texts: found 0");
  expect_public_bound("kStepRows", with([](auto& o) { o.step_rows = kStepRows; }), with([](auto& o) { o.step_rows = kStepRows + 1; }), "step_rows: found 65537, expected more than max_texts 64, at most 65536");
  expect_public_bound("kStepRows", with([](auto& o) { o.step_rows = 65; }), with([](auto& o) { o.step_rows = 64; }), "step_rows: found 64");
  expect_public_bound("kThreads", [&] { Model::open(model.info().path, {.threads = kThreads, .weights = false}); }, with([](auto& o) { o.threads = kThreads + 1; }), "threads: found 1025, expected 0 to 1024");
  expect_public_bound("kThreads", [] {}, [&] { Model::open(model.info().path, {.threads = kThreads + 1, .weights = false}); }, "threads: found 1025, expected 0 to 1024");
  expect_public_bound("threads", with([](auto& o) { o.threads = 0; }), with([](auto& o) { o.threads = -1; }), "threads: found -1");
  expect_public_bound("kv_bytes", with([](auto& o) { o.kv_bytes = 0; }), with([](auto& o) { o.kv_bytes = -1; }), "kv_bytes: found -1");
  expect_public_bound("kKvMemory", with([](auto& o) { o.kv_bytes = limits::kKvMemory; }), with([](auto& o) { o.kv_bytes = limits::kKvMemory + 1; }), "kv_bytes: found 1125899906842625, expected 0 (no limit) to 1125899906842624");
  expect_public_bound("prefill_chunk", with([](auto& o) { o.prefill_chunk = 1; }), with([](auto& o) { o.prefill_chunk = 0; }), "prefill_chunk: found 0");
  expect_public_bound("kStepRows", with([](auto& o) { o.prefill_chunk = kStepRows; }), with([](auto& o) { o.prefill_chunk = kStepRows + 1; }), "prefill_chunk: found 65537, expected 1 to 65536");
  expect_public_bound("prefix_tokens", with([](auto& o) { o.prefix_tokens = 0; }), with([](auto& o) { o.prefix_tokens = -1; }), "prefix_tokens: found -1");
  expect_public_bound("kPrefixTokens", with([](auto& o) { o.prefix_tokens = limits::kPrefixTokens; }), with([](auto& o) { o.prefix_tokens = limits::kPrefixTokens + 1; }), "prefix_tokens: found 1099511627777");

  Engine asked(model, {.threads = 1});
  const auto request = [&](const std::function<void(Request&)>& change) {
    return [&asked, change] {
      Request r{.prompt = std::vector<TokenId>{1}, .max_tokens = 1};
      change(r);
      const Stream stream = asked.submit(r);
    };
  };
  using limits::kPriority, limits::kTimeout;
  expect_public_bound("kPriority", request([](auto& r) { r.priority = kPriority; }), request([](auto& r) { r.priority = kPriority + 1; }), "priority: found 101, expected -100 to 100");
  expect_public_bound("kPriority", request([](auto& r) { r.priority = -kPriority; }), request([](auto& r) { r.priority = -kPriority - 1; }), "priority: found -101");
  expect_public_bound("kPriority", [] {}, request([](auto& r) { r.priority = std::numeric_limits<int>::min(); }), "priority: found -2147483648");
  expect_public_bound("kTimeout", request([](auto& r) { r.timeout = kTimeout; }), request([](auto& r) { r.timeout = kTimeout * 1.5; }), "timeout: found 1.5e+09");

  // Without a tokenizer, so that a prompt at the bound is not encoded.
  std::filesystem::remove(join_path(model.info().path, "tokenizer.json"));
  Engine engine(Model::open(model.info().path, {.threads = 1}), {.threads = 1});
  const auto prompt = [&](int64_t bytes) {
    return [&engine, bytes] { engine.submit({.prompt = std::string(static_cast<size_t>(bytes), 'a')}); };
  };
  expect_public_bound("kPromptBytes", prompt(limits::kPromptBytes), prompt(limits::kPromptBytes + 1), "prompt: found 67108865 bytes, expected at most 67108864");
}

}  // namespace
}  // namespace fathom::test
