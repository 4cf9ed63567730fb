#include "bounds.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/helpers.h"
#include "train/loader.h"

namespace fathom::train {
namespace {

using namespace limits;

struct Bound {
  const char* field;
  Json at, past;
};

TEST(Limits, Config) {
  const Json dials_at(std::vector<double>(static_cast<size_t>(kDialPoints), 0.5)), dials_past(std::vector<double>(static_cast<size_t>(kDialPoints) + 1, 0.5));
  const Bound bounds[] = {
      {"/batch_size", kBatch, kBatch + 1},
      {"/accumulation", kBatch, kBatch + 1},
      {"/sequence_length", kSequenceLength, kSequenceLength + 1},
      {"/budget/steps", kSteps, kSteps + 1},
      {"/interval/log_steps", kSteps, kSteps + 1},
      {"/interval/eval_tokens", kTrainTokens, kTrainTokens + 1},
      {"/interval/checkpoint_seconds", kIntervalSeconds, kIntervalSeconds * 2},
      {"/interval/keep_last", kCheckpointsKept, kCheckpointsKept + 1},
      {"/optimizer/lr", kLearningRate, kLearningRate * 2},
      {"/losses/router_z", kLossWeight, kLossWeight * 2},
      {"/router/noise", kRouterNoise, kRouterNoise * 2},
      {"/threads", kThreads, kThreads + 1},
      {"/calibration/tokens", kTrainTokens, kTrainTokens + 1},
      {"/calibration/dials", dials_at, dials_past},
  };
  for (const Bound& b : bounds) {
    const auto with = [&](const Json& value) {
      return [&b, &value] {
        Json json = tiny_json();
        json["model"]["max_position_embeddings"] = kContext;
        json[Json::json_pointer(b.field)] = value;
        TrainConfig::from_json(json, "config.json");
      };
    };
    std::string dotted = std::string(b.field).substr(1);
    std::replace(dotted.begin(), dotted.end(), '/', '.');
    expect_bound(b.field, with(b.at), with(b.past), "config.json: " + dotted + ": found ");
  }
}

TEST(Limits, Budgets) {
  const auto budget = [](const char* key, const Json& value) {
    return [=] {
      Json json = tiny_json();
      json["budget"] = {{key, value}};
      TrainConfig::from_json(json, "config.json");
    };
  };
  expect_bound("kTrainTokens", budget("tokens", kTrainTokens), budget("tokens", kTrainTokens + 1), "budget.tokens: found the number 1125899906842625");
  expect_bound("kTrainFlops", budget("flops", kTrainFlops), budget("flops", kTrainFlops * 2), "budget.flops: found the number 2e+30");
}

TEST(Limits, ATokenizerForTextHasAtMostTheGreatestVocabulary) {
  const auto vocabulary = [](int64_t v) {
    return [=] {
      Json json = tiny_json();
      json["data"] = {{"text", "a.txt"}, {"vocab_size", v}};
      TrainConfig::from_json(json, "config.json");
    };
  };
  expect_bound("kVocabulary", vocabulary(kVocabulary), vocabulary(kVocabulary + 1), "data.vocab_size: found the number 16777217");
}

}  // namespace
}  // namespace fathom::train
