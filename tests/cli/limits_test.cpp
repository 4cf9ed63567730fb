#include "bounds.h"
#include "cli/commands.h"
#include "cli/common.h"

namespace fathom::cli {
namespace {

using namespace limits;

std::string refusal(const Command& command, const std::vector<std::string>& words) {
  try {
    parse_arguments(command, "fathom " + command.name, words);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Limits, Flags) {
  const Command generate = generate_command(), prepare = data_prepare_command(), info = info_command();
  struct Bound {
    const Command& command;
    std::vector<std::string> words;
    std::string flag, at, past;
  };
  const std::vector<std::string> prepared = {"text", "--tokenizer", "t", "--out", "o"};
  const Bound bounds[] = {
      {generate, {"model"}, "max-tokens", str(kNewTokens), str(kNewTokens + 1)},
      {generate, {"model"}, "temperature", str(kTemperature), "100.1"},
      {generate, {"model"}, "repetition-penalty", str(kRepetitionPenaltyLow), "0.0099"},
      {generate, {"model"}, "repetition-penalty", str(kRepetitionPenaltyHigh), "100.1"},
      {generate, {"model"}, "presence-penalty", str(kPenalty), "100.1"},
      {generate, {"model"}, "frequency-penalty", str(-kPenalty), "-100.1"},
      {generate, {"model"}, "top-k", str(kVocabulary), str(kVocabulary + 1)},
      {generate, {"model"}, "stop-id", str(kVocabulary - 1), str(kVocabulary)},
      {generate, {"model"}, "samples", str(kTexts), str(kTexts + 1)},
      {generate, {"model"}, "log-probs", str(kTopLogProbs), str(kTopLogProbs + 1)},
      {generate, {"model"}, "kv-memory", str(kKvMemory), str(kKvMemory + 1)},
      {generate, {"model"}, "threads", str(kThreads), str(kThreads + 1)},
      {info, {"model"}, "context", str(kContext), str(kContext + 1)},
      {prepare, prepared, "shard-tokens", str(kShardOption), str(kShardOption + 1)},
  };
  for (const Bound& b : bounds) {
    const auto with = [&](const std::string& value) {
      std::vector<std::string> words = b.words;
      words.insert(words.end(), {"--" + b.flag, value});
      return refusal(b.command, words);
    };
    EXPECT_EQ(with(b.at), "accepted") << b.flag;
    EXPECT_THAT(with(b.past), ::testing::HasSubstr("--" + b.flag + ": found \"" + b.past + "\"")) << b.flag;
  }
}

TEST(Limits, Prompt) {  // zero bytes are a prompt that no bound refuses
  TemporaryFolder folder;
  const auto read = [&](int64_t bytes) { return [&, bytes] { read_input(hollow_file(join_path(folder.path(), "p.txt"), bytes), kPromptBytes); }; };
  expect_bound("kPromptBytes", read(kPromptBytes), read(kPromptBytes + 1), "p.txt: found 67108865 bytes, expected at most 67108864");
}

}  // namespace
}  // namespace fathom::cli
