#include "cli/generation_text.h"

#include <cmath>
#include <span>

#include "cli/common.h"
#include "cli/output.h"
#include "core/human.h"

namespace fathom::cli {
namespace {

double mean_depth(std::span<const GenerationRecord> records) {
  double sum = 0, tokens = 0;
  for (const GenerationRecord& record : records)
    for (const auto& t : record.tokens) sum += static_cast<double>(t.depth), ++tokens;
  return tokens > 0 ? sum / tokens : 0;
}

struct Guesses {
  int64_t made = 0, right = 0;
  explicit Guesses(const std::vector<infer::Generated>& texts) {
    for (const infer::Generated& g : texts) made += g.guessed, right += g.guessed_right;
  }
  std::optional<double> acceptance() const {
    if (made == 0) return {};
    return static_cast<double>(right) / static_cast<double>(made);
  }
};

// Of texts beside each other a step's time is nobody's own.
std::optional<double> seconds_saved_alone(const infer::GenerateResult& result) { return result.texts.size() == 1 ? seconds_saved(result.stats) : std::nullopt; }

Json optional(const std::optional<double>& x) { return x ? Json(*x) : Json(); }

Json text_json(const infer::Generated& g, const GenerationRecord& record, const text::Tokenizer& tokenizer, DepthRange range) {
  Json tokens = Json::array();
  for (const auto& t : record.tokens) {
    Json token = {{"id", t.id}, {"token", tokenizer.token_text(t.id)}, {"depth", t.depth}, {"run", t.run}};
    if (t.log_probs) {
      token["log_prob"] = t.log_probs->chosen;
      Json& top = token["top"] = Json::array();
      for (const auto& [id, p] : t.log_probs->top) top.push_back({{"id", id}, {"token", tokenizer.token_text(id)}, {"log_prob", p}});
    }
    tokens.push_back(std::move(token));
  }
  return {{"text", g.text},
          {"ids", g.ids},
          {"finish", name_of(g.finish, infer::kFinishNames)},
          {"new_tokens", g.ids.size()},
          {"tokens", tokens},
          {"depth", {{"least", range.least}, {"most", range.most}, {"mean", mean_depth({&record, 1})}}},
          {"kv_bytes", {{"pages", g.kv_bytes}, {"slots", g.kv_slot_bytes}, {"slots_if_dense", g.kv_slot_bytes_dense}}}};
}

}  // namespace

std::optional<double> seconds_saved(const infer::GenerateStats& s) {
  const int64_t steps = s.plain_steps + s.probe_steps;
  if (s.guess_steps == 0 || steps == 0) return {};
  return static_cast<double>(s.guess_tokens) * (s.plain_seconds + s.probe_seconds) / static_cast<double>(steps) - s.guess_seconds;
}

std::string guesses_text(int64_t made, int64_t right, const infer::GenerateStats& s, std::optional<double> saved) {
  return str(right, " of ", made, " guesses right (", percent(static_cast<double>(right) / static_cast<double>(made)), "), ",
             saved ? str("about ", human_duration(std::abs(*saved)), *saved < 0 ? " lost" : " saved", " by them (estimated from ", s.plain_steps + s.probe_steps, " steps without)")
                   : "time saved or lost unknown");
}

Json generation_json(const std::string& prompt, const infer::GenerateResult& result, const std::vector<GenerationRecord>& records,
                     const text::Tokenizer& tokenizer, DepthRange range) {
  const infer::GenerateStats& s = result.stats;
  const Guesses guesses(result.texts);
  Json j = {{"prompt", prompt},
            {"prompt_tokens", result.texts[0].prompt_tokens},
            {"block_fraction", s.block_fraction},
            {"total_fraction", s.total_fraction},
            {"guesses", {{"made", guesses.made}, {"right", guesses.right}, {"acceptance", optional(guesses.acceptance())},
                         {"steps", s.guess_steps}, {"tokens", s.guess_tokens}, {"seconds", s.guess_seconds}, {"plain_steps", s.plain_steps}, {"plain_seconds", s.plain_seconds},
                         {"probe_steps", s.probe_steps}, {"probe_seconds", s.probe_seconds},
                         {"seconds_saved_estimate", optional(seconds_saved_alone(result))}}},
            {"prefill_seconds", s.prefill_seconds},
            {"decode_seconds", s.decode_seconds},
            {"decode_tokens_per_second", s.decode_rate()}};
  if (result.texts.size() == 1) {
    j.update(text_json(result.texts[0], records[0], tokenizer, range));
    return j;
  }
  Json& samples = j["samples"] = Json::array();
  for (size_t i = 0; i < result.texts.size(); ++i) samples.push_back(text_json(result.texts[i], records[i], tokenizer, range));
  return j;
}

std::string generation_stats(const infer::GenerateResult& result, const std::vector<GenerationRecord>& records) {
  const infer::GenerateStats& s = result.stats;
  const Guesses guesses(result.texts);
  int64_t slot_bytes = 0, slot_bytes_dense = 0;
  std::string ends, speculation;
  for (const infer::Generated& g : result.texts) {
    slot_bytes += g.kv_slot_bytes, slot_bytes_dense += g.kv_slot_bytes_dense;
    ends += (ends.empty() ? "" : ", ") + std::string(name_of(g.finish, infer::kFinishNames));
  }
  if (guesses.made > 0) speculation = guesses_text(guesses.made, guesses.right, s, seconds_saved_alone(result)) + "; ";
  return str("prompt ", result.texts[0].prompt_tokens, " tokens in ", human_duration(s.prefill_seconds), " (", human_count(s.prefill_rate()), " tokens/s), ", s.new_tokens,
             " new in ", human_duration(s.decode_seconds), " (", human_count(s.decode_rate()), " tokens/s); block fraction ", fixed(s.block_fraction, 3),
             ", total ", fixed(s.total_fraction, 3), "; mean depth ", fixed(mean_depth(records), 2), "; KV cache ",
             human_bytes(static_cast<double>(slot_bytes)), " of ", human_bytes(static_cast<double>(slot_bytes_dense)), " if dense; ", speculation, "ended by ", ends);
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

std::string log_prob_table(const GenerationRecord& record, const text::Tokenizer& tokenizer) {
  const auto quoted = [&](int32_t id) { return "\"" + printable(tokenizer.token_text(id), 40) + "\""; };
  std::vector<std::vector<std::string>> rows;
  for (const auto& t : record.tokens) {
    if (!t.log_probs) continue;
    std::string top;
    for (const auto& [id, p] : t.log_probs->top) top += str(top.empty() ? "" : "  ", quoted(id), " ", fixed(p, 3));
    rows.push_back({str(t.id), quoted(t.id), fixed(t.log_probs->chosen, 3), top});
  }
  return text_table(rows, 4);
}

}  // namespace fathom::cli
