#include "bounds.h"
#include "infer/generate.h"
#include "infer/sampler.h"
#include "support.h"

namespace fathom::infer::test {
namespace {

using namespace limits;

std::function<void()> sampling(double SamplerOptions::* field, double value) {
  return [=] {
    SamplerOptions o;
    o.*field = value;
    o.validate();
  };
}

TEST(Limits, Sampling) {
  expect_bound("kTemperature", sampling(&SamplerOptions::temperature, kTemperature), sampling(&SamplerOptions::temperature, kTemperature * 1.001), "temperature: found 100.1");
  const auto penalty = [](double value) { return sampling(&SamplerOptions::repetition_penalty, value); };
  expect_bound("kRepetitionPenaltyLow", penalty(kRepetitionPenaltyLow), penalty(kRepetitionPenaltyLow * 0.9), "repetition_penalty: found 0.009");
  expect_bound("kRepetitionPenaltyHigh", penalty(kRepetitionPenaltyHigh), penalty(kRepetitionPenaltyHigh * 1.001), "repetition_penalty: found 100.1");
  for (const auto field : {&SamplerOptions::presence_penalty, &SamplerOptions::frequency_penalty}) {
    expect_bound("kPenalty", sampling(field, kPenalty), sampling(field, kPenalty * 1.001), "penalty: found 100.1");
    expect_bound("kPenalty", sampling(field, -kPenalty), sampling(field, -kPenalty * 1.001), "penalty: found -100.1");
  }
  const auto most = [](int64_t k) {
    return [k] {
      SamplerOptions o;
      o.top_k = k;
      o.validate();
    };
  };
  expect_bound("kVocabulary", most(kVocabulary), most(kVocabulary + 1), "top_k: found 16777217, expected 0 (off) to 16777216");
  const auto biases = [](int64_t count) {
    return [count] {
      SamplerOptions o;
      for (int32_t id = 0; id < count; ++id) o.logit_bias[id] = 1;
      o.validate();
    };
  };
  expect_bound("kLogitBiases", biases(kLogitBiases), biases(kLogitBiases + 1), "logit_bias: found 4097 ids");
}

TEST(Limits, Generation) {
  Random random(1);
  const Model model(model::random_config(random), 1);
  Engine engine(model.weights, {.threads = 1});
  const auto run = [&](const std::function<void(GenerateOptions&)>& change) {  // without a tokenizer stop strings are refused, but for that
    return [&, change] {
      GenerateOptions o;
      o.policy = RoutingPolicy::full(model.config);
      o.max_new_tokens = 1;
      change(o);
      const std::vector<int32_t> nothing;
      generate(engine, nullptr, {&nothing, 1}, o);  // an empty prompt is refused, but for what comes first
    };
  };
  expect_bound("kNewTokens", run([](auto& o) { o.max_new_tokens = kNewTokens; }), run([](auto& o) { o.max_new_tokens = kNewTokens + 1; }), "max_tokens: found 16777217");
  expect_bound("kStopStrings", run([](auto& o) { o.stop.assign(kStopStrings, "x"); }), run([](auto& o) { o.stop.assign(kStopStrings + 1, "x"); }), "found 65 strings, expected at most 64");
  expect_bound("kStopBytes", run([](auto& o) { o.stop = {std::string(kStopBytes, 'x')}; }), run([](auto& o) { o.stop = {std::string(kStopBytes + 1, 'x')}; }), "found 4097 bytes");
  const auto log_probs = [&](int64_t top) {
    return [&, top] {
      Request request{.prompt = {0}, .policies = {{0, RoutingPolicy::full(model.config)}}};
      request.log_probs = top;
      Scheduler(engine).submit(request);
    };
  };
  expect_bound("kTopLogProbs", log_probs(kTopLogProbs), log_probs(kTopLogProbs + 1), "log_probs: found 129");
  const auto guesses = [&](int64_t Speculation::* field, int64_t n) {
    return [&, field, n] {
      Request request{.prompt = {0}, .policies = {{0, RoutingPolicy::full(model.config)}}};
      request.speculation.emplace().*field = n;
      Scheduler(engine).submit(request);
    };
  };
  for (const auto field : {&Speculation::most, &Speculation::same}) expect_bound("kGuesses", guesses(field, kGuesses), guesses(field, kGuesses + 1), "found 65, expected 1 to 64");
  const auto threads = [&](int n) { return [&, n] { Engine(model.weights, {.threads = n}); }; };
  EXPECT_THAT(error_message(threads(kThreads + 1)), ::testing::HasSubstr("threads: found 1025, expected 1 to 1024")) << "kThreads";
}

}  // namespace
}  // namespace fathom::infer::test
