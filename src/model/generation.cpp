#include "core/limits.h"
#include "model/folder.h"

namespace fathom::model {

GenerationConfig GenerationConfig::from_json(const Json& json, const std::string& where, const ModelConfig& config) {
  using namespace limits;
  const Fields f(json, where);
  GenerationConfig g;
  g.temperature = f.number("temperature", 0, kTemperature, g.temperature);
  g.top_k = f.integer("top_k", 0, kVocabulary, g.top_k);
  g.top_p = f.number("top_p", 0, 1, g.top_p);
  if (g.top_p == 0) f.wrong("top_p", "0", "a number above 0 and at most 1");
  g.repetition_penalty = f.number("repetition_penalty", kRepetitionPenaltyLow, kRepetitionPenaltyHigh, g.repetition_penalty);
  // Without it transformers is greedy too; a file that names a temperature and no do_sample is taken at its word.
  if (!f.boolean("do_sample", true)) g.temperature = 0;
  g.eos_token_ids = config.eos_token_ids;
  if (f.has("eos_token_id")) {
    if (f.raw("eos_token_id").is_array()) g.eos_token_ids = f.integers("eos_token_id", 0, config.vocab_size - 1);
    else g.eos_token_ids = {f.integer("eos_token_id", 0, config.vocab_size - 1)};
    if (static_cast<int64_t>(g.eos_token_ids.size()) > kEosTokens)
      f.wrong("eos_token_id", describe(f.raw("eos_token_id")), str("at most ", kEosTokens, " ids"));
  }
  g.other = json;
  for (const char* key : {"temperature", "top_k", "top_p", "repetition_penalty", "eos_token_id"}) g.other.erase(key);
  return g;
}

Json GenerationConfig::to_json(const ModelConfig& config) const {
  const GenerationConfig defaults;
  Json j = other;
  const auto id = [&j](const char* key, const std::optional<int64_t>& value) {
    if (value && !j.contains(key)) j[key] = *value;
  };
  id("bos_token_id", config.bos_token_id);
  id("pad_token_id", config.pad_token_id);
  const std::vector<int64_t>& eos = eos_token_ids.empty() ? config.eos_token_ids : eos_token_ids;
  if (eos.size() == 1) j["eos_token_id"] = eos[0];
  if (eos.size() > 1) j["eos_token_id"] = eos;
  if (repetition_penalty != defaults.repetition_penalty) j["repetition_penalty"] = repetition_penalty;
  if (temperature == 0) {
    j["do_sample"] = false;
    if (top_k != defaults.top_k) j["top_k"] = top_k;
    if (top_p != defaults.top_p) j["top_p"] = top_p;
  } else if (temperature != defaults.temperature || top_k != defaults.top_k || top_p != defaults.top_p) {
    // transformers reads these only when do_sample is set, and then takes a missing top_k for 50.
    j["do_sample"] = true;
    j["temperature"] = temperature;
    j["top_k"] = top_k;
    j["top_p"] = top_p;
  }
  return j;
}

}  // namespace fathom::model
