#include "model/document_ends.h"

namespace fathom::model {

DocumentEnds document_ends(const ModelConfig& config, const text::Tokenizer& tokenizer) {
  DocumentEnds ends;
  if (config.bos_token_id) ends.begin = tokenizer.bos_id();
  if (!config.eos_token_ids.empty()) ends.end = tokenizer.eos_id();
  return ends;
}

std::vector<int32_t> end_ids(const ModelFolder& folder, const DocumentEnds& ends) {
  std::vector<int32_t> out;
  for (const std::vector<int64_t>* ids : {&folder.generation().eos_token_ids, &folder.config().eos_token_ids})
    for (const int64_t id : *ids) out.push_back(static_cast<int32_t>(id));
  if (ends.end) out.push_back(*ends.end);
  return out;
}

std::vector<int32_t> prompt_ids(const text::Tokenizer& tokenizer, const DocumentEnds& ends, std::string_view text, const PromptOptions& options) {
  std::vector<int32_t> ids;
  if (options.begin && ends.begin) ids.push_back(*ends.begin);
  tokenizer.encode_append(text, {.add_special_tokens = false, .allow_special = options.allow_special}, ids);
  if (ids.empty() && ends.end) ids.push_back(*ends.end);
  return ids;
}

}  // namespace fathom::model
