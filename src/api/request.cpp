#include "api/request.h"

#include <cmath>
#include <utility>

#include "core/limits.h"

namespace fathom {
namespace {

std::vector<int32_t> prompt_of(const Internals::ModelState& model, const Request& r) {
  if (const auto* ids = std::get_if<std::vector<TokenId>>(&r.prompt)) return *ids;
  const std::string& text = std::get<std::string>(r.prompt);
  if (static_cast<int64_t>(text.size()) > limits::kPromptBytes)
    throw UserError({"request", "prompt", str(text.size(), " bytes"), str("at most ", limits::kPromptBytes), ""});
  std::vector<int32_t> ids = model::prompt_ids(model.need_tokenizer(), model.ends, text);
  if (ids.empty()) throw UserError({"request", "prompt", "no token", "a text of at least one token", "this model has no token that begins a text"});
  return ids;
}

// As the prompt's ids, which the scheduler checks: an id that no token has could only be a mistake.
void require_known(const Internals::ModelState& model, const char* field, TokenId id) {
  if (id < 0 || id >= model.info.vocab_size)
    throw UserError({"request", field, str("id ", id), str("0 to ", model.info.vocab_size - 1), "does the tokenizer belong to this model?"});
}

infer::SamplerOptions sampling_of(const Sampling& s, uint64_t seed) {
  return {.temperature = s.temperature, .top_k = s.top_k, .top_p = s.top_p, .typical_p = s.typical_p, .min_p = s.min_p,
          .repetition_penalty = s.repetition_penalty, .presence_penalty = s.presence_penalty, .frequency_penalty = s.frequency_penalty,
          .logit_bias = s.logit_bias, .seed = seed};
}

}  // namespace

std::vector<infer::PolicyFrom> Model::State::policies(const std::string& where, std::optional<double> dial, const std::vector<DialFrom>& dials) const {
  if (dials.empty()) return {{0, policy(dial)}};
  if (dial) throw UserError({where, "dials", "dial as well", "one of the two", ""});
  std::vector<infer::PolicyFrom> policies;
  for (const DialFrom& d : dials) {
    if (policies.empty() ? d.position != 0 : d.position <= policies.back().position)
      throw UserError({where, "dials", str("position ", d.position), policies.empty() ? "0 first" : str("more than ", policies.back().position), ""});
    policies.push_back({d.position, policy(d.dial)});
  }
  return policies;
}

infer::Request request_of(const Internals::ModelState& model, const Request& r, double now) {
  infer::Request out;
  out.prompt = prompt_of(model, r);
  out.policies = model.policies("request", r.dial, r.dials);
  out.sampling = sampling_of(r.sampling.value_or(model.sampling), r.seed);
  for (const auto& [id, bias] : out.sampling.logit_bias) require_known(model, "sampling.logit_bias", id);
  out.samples = r.samples;
  out.max_new_tokens = r.max_tokens;
  if (r.stop_at_end) out.stop_ids = model.info.end_tokens;
  for (const TokenId id : r.stop_ids) require_known(model, "stop_ids", id);
  out.stop_ids.insert(out.stop_ids.end(), r.stop_ids.begin(), r.stop_ids.end());
  out.stop = r.stop;
  out.tokenizer = model.tokenizer ? &*model.tokenizer : nullptr;
  if (r.speculation) {
    out.speculation.emplace();
    out.speculation->most = r.speculation->most;
    out.speculation->repeats = r.speculation->repeats;
    out.speculation->always = r.speculation->always;
    if (r.speculation->draft_dial) {
      out.speculation->draft = model.policy(r.speculation->draft_dial);
      out.speculation->draft_cost = infer::draft_cost(*model.folder, *r.speculation->draft_dial, r.dials.empty() ? r.dial : r.dials.back().dial);
    }
  }
  out.log_probs = r.log_probs;
  if (r.priority < -limits::kPriority || r.priority > limits::kPriority) throw UserError({"request", "priority", str(r.priority), str(-limits::kPriority, " to ", limits::kPriority), ""});
  out.priority = r.priority;
  if (r.timeout) {
    if (!(*r.timeout >= 0 && *r.timeout <= limits::kTimeout)) throw UserError({"request", "timeout", str(*r.timeout), str("seconds, 0 to ", limits::kTimeout), ""});
    out.deadline = now + *r.timeout;
  }
  return out;
}

}  // namespace fathom
