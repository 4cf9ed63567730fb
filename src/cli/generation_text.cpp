#include "cli/generation_text.h"

#include "cli/common.h"
#include "cli/output.h"
#include "core/human.h"

namespace fathom::cli {
namespace {

double mean_depth(const GenerationRecord& record) {
  double sum = 0;
  for (const auto& t : record.tokens) sum += static_cast<double>(t.depth);
  return record.tokens.empty() ? 0 : sum / static_cast<double>(record.tokens.size());
}

}  // namespace

Json generation_json(const std::string& prompt, const infer::GenerateResult& result, const GenerationRecord& record,
                     const text::Tokenizer& tokenizer, DepthRange range) {
  const infer::Generated& g = result.texts[0];
  const infer::GenerateStats& s = result.stats;
  Json tokens = Json::array();
  for (const auto& t : record.tokens) tokens.push_back({{"id", t.id}, {"token", tokenizer.token_text(t.id)}, {"depth", t.depth}, {"run", t.run}});
  return {{"prompt", prompt},
          {"text", g.text},
          {"ids", g.ids},
          {"finish", name_of(g.finish, infer::kFinishNames)},
          {"prompt_tokens", g.prompt_tokens},
          {"new_tokens", g.ids.size()},
          {"tokens", tokens},
          {"depth", {{"least", range.least}, {"most", range.most}, {"mean", mean_depth(record)}}},
          {"block_fraction", s.block_fraction},
          {"total_fraction", s.total_fraction},
          {"kv_bytes", {{"pages", g.kv_bytes}, {"slots", g.kv_slot_bytes}, {"slots_if_dense", g.kv_slot_bytes_dense}}},
          {"guesses", {{"made", g.guessed}, {"right", g.guessed_right}}},
          {"prefill_seconds", s.prefill_seconds},
          {"decode_seconds", s.decode_seconds},
          {"decode_tokens_per_second", s.decode_rate()}};
}

std::string generation_stats(const infer::GenerateResult& result, const GenerationRecord& record) {
  const infer::Generated& g = result.texts[0];
  const infer::GenerateStats& s = result.stats;
  return str("prompt ", g.prompt_tokens, " tokens in ", human_duration(s.prefill_seconds), " (", human_count(s.prefill_rate()), " tokens/s), ", g.ids.size(),
             " new in ", human_duration(s.decode_seconds), " (", human_count(s.decode_rate()), " tokens/s); block fraction ", fixed(s.block_fraction, 3),
             ", total ", fixed(s.total_fraction, 3), "; mean depth ", fixed(mean_depth(record), 2), "; KV cache ",
             human_bytes(static_cast<double>(g.kv_slot_bytes)), " of ", human_bytes(static_cast<double>(g.kv_slot_bytes_dense)), " if dense; ",
             g.guessed > 0 ? str(g.guessed_right, " of ", g.guessed, " guesses right; ") : "", "ended by ",
             name_of(g.finish, infer::kFinishNames));
}

std::string depth_histogram(const GenerationRecord& record, DepthRange range, bool coloured) {
  std::vector<int64_t> counts(static_cast<size_t>(range.most - range.least + 1));
  for (const auto& t : record.tokens) counts[static_cast<size_t>(t.depth - range.least)] += 1;
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < counts.size(); ++i) {
    const int64_t depth = range.least + static_cast<int64_t>(i);
    const double share = record.tokens.empty() ? 0 : static_cast<double>(counts[i]) / static_cast<double>(record.tokens.size());
    const std::string label = str(" depth ", depth, " ");
    rows.push_back({coloured ? in_depth_colour(label, depth, range) : label, str(counts[i]), percent(share)});
  }
  return text_table(rows);
}

}  // namespace fathom::cli
