#include "cli/generation_flags.h"

#include "core/limits.h"

namespace fathom::cli {

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

}  // namespace fathom::cli
