#include "cli/generation_flags.h"

#include <cmath>
#include <limits>

#include "cli/common.h"
#include "core/limits.h"

namespace fathom::cli {
namespace {

int32_t known_id(const Arguments& args, const std::string& flag, const std::string& word, int64_t vocabulary) {
  const std::optional<int64_t> id = parse_integer(word, false);
  if (!id || *id < 0 || *id >= vocabulary)
    args.wrong(flag, "id \"" + printable(word, 40) + "\"", str("0 to ", vocabulary - 1), "fathom tokenizer encode --pieces shows a text's ids");
  return static_cast<int32_t>(*id);
}

}  // namespace

void sampling_flags(Command& c) {
  c.group("Sampling");
  c.flag(number_flag("temperature", "X", "0 takes the most likely token").range(0, limits::kTemperature).noted("the model's"));
  c.flag(integer_flag("top-k", "N", "keep the N most likely tokens; 0 is off").range(0, limits::kVocabulary).noted("the model's"));
  c.flag(number_flag("top-p", "X", "keep the most likely tokens that make up this probability").range(1e-9, 1).noted("the model's"));
  c.flag(number_flag("typical-p", "X", "keep the most typical tokens that make up this probability").range(1e-9, 1).otherwise("1"));
  c.flag(number_flag("min-p", "X", "keep tokens of at least X times the greatest probability").range(0, 1).otherwise("0"));
  c.flag(number_flag("repetition-penalty", "X", "weaken tokens seen before; 1 is off").range(limits::kRepetitionPenaltyLow, limits::kRepetitionPenaltyHigh).noted("the model's"));
  c.flag(number_flag("presence-penalty", "X", "taken from the logits of tokens that the text has already").range(-limits::kPenalty, limits::kPenalty).otherwise("0"));
  c.flag(number_flag("frequency-penalty", "X", "the same, times as often as it has them").range(-limits::kPenalty, limits::kPenalty).otherwise("0"));
  c.flag(integer_flag("seed", "N", "another seed, another text").range(0, INT64_MAX).otherwise("0"));
}

void speculation_flags(Command& c) {
  c.group("Speculation");
  c.flag(boolean_flag("draft-repeats", "guess that the text goes on as it did after the same tokens before, and check several at once; the text is the same, only sooner").otherwise("true"));
  c.flag(number_flag("draft-dial", "X", "elsewhere, guess what the model says at this dial").range(1e-6, 1).noted("no such guesses"));
  c.flag(integer_flag("draft-most", "N", "tokens guessed at once at most; as many are as pay").range(1, limits::kGuesses).otherwise("16"));
  c.flag(boolean_flag("draft-always", "guess as many each time, whether it pays or not: to measure"));
}

std::optional<infer::Speculation> speculation_of(const Arguments& args, const model::ModelFolder& folder, std::optional<double> dial) {
  infer::Speculation out{.repeats = args.boolean("draft-repeats"), .most = args.integer("draft-most"), .always = args.boolean("draft-always")};
  if (args.given("draft-dial")) {
    const double draft = *dial_of(args.maybe_number("draft-dial"), folder);
    out.draft = infer::RoutingPolicy::at_dial(folder.config(), folder.dial(), draft);
    out.draft_cost = infer::draft_cost(folder, draft, dial);
  }
  if (out.repeats || out.draft) return out;
  for (const char* flag : {"draft-most", "draft-always"})
    if (args.given(flag)) args.wrong(flag, "no guesses", "--draft-repeats or --draft-dial");
  return {};
}

std::map<int32_t, float> logit_bias_of(const Arguments& args, int64_t vocabulary) {
  std::map<int32_t, float> biases;
  for (const std::string& word : args.texts("logit-bias")) {
    const size_t equals = word.find('=');
    const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
    const std::optional<double> x = value == "-inf" ? std::optional(-std::numeric_limits<double>::infinity()) : parse_number(value);
    if (!x || (std::isfinite(*x) && std::abs(*x) > std::numeric_limits<float>::max()))
      args.wrong("logit-bias", "\"" + printable(word, 40) + "\"", "ID=X with a number or -inf, as in 42=-1.5");
    const int32_t id = known_id(args, "logit-bias", word.substr(0, equals), vocabulary);
    if (!biases.emplace(id, static_cast<float>(*x)).second) args.wrong("logit-bias", str("id ", id, " twice"), "each once");
  }
  return biases;
}

std::vector<int32_t> stop_ids_of(const Arguments& args, int64_t vocabulary) {
  std::vector<int32_t> ids;
  for (const std::string& word : args.texts("stop-id")) ids.push_back(known_id(args, "stop-id", word, vocabulary));
  return ids;
}

infer::SamplerOptions sampling_of(const Arguments& args, const model::GenerationConfig& own) {
  infer::SamplerOptions o;
  o.temperature = args.maybe_number("temperature").value_or(own.temperature);
  o.top_k = args.maybe_integer("top-k").value_or(own.top_k);
  o.top_p = args.maybe_number("top-p").value_or(own.top_p);
  o.typical_p = args.number("typical-p");
  o.min_p = args.number("min-p");
  o.repetition_penalty = args.maybe_number("repetition-penalty").value_or(own.repetition_penalty);
  o.presence_penalty = args.number("presence-penalty");
  o.frequency_penalty = args.number("frequency-penalty");
  o.seed = static_cast<uint64_t>(args.integer("seed"));
  return o;
}

model::GenerationConfig for_conversation(model::GenerationConfig own) {
  const model::GenerationConfig none;
  if (own.temperature == none.temperature && own.top_k == none.top_k && own.top_p == none.top_p) own.temperature = 0.7, own.top_p = 0.95;
  return own;
}

}  // namespace fathom::cli
