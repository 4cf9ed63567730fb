#include "fathom/score.h"

#include <algorithm>

#include "api/internals.h"
#include "core/limits.h"
#include "infer/forward.h"
#include "infer/score.h"
#include "model/cost.h"

namespace fathom {
namespace {

TextScore score_of(const infer::DocumentScore& s, size_t tokens, const model::ModelConfig& config) {
  TextScore out;
  for (const float nll : s.nll) out.log_prob.push_back(-nll);
  out.best = s.best;
  std::vector<uint8_t> paths(s.decisions.run.size());
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t u = 0; u < paths.size(); ++u) paths[u] = s.decisions.run[u][t];
    out.depth.push_back(config.least_depth() + config.routing.full_blocks(paths));
  }
  out.run = s.decisions.run;
  out.router = s.decisions.score;
  const auto T = static_cast<int64_t>(tokens);
  const model::ForwardCost cost = model::forward_cost(config, T, s.decisions, T);
  out.block_fraction = model::block_fraction(config, cost, T);
  out.total_fraction = model::total_fraction(config, cost, T, T);
  return out;
}

}  // namespace

std::vector<TextScore> score(const Model& model, const std::vector<std::vector<TokenId>>& texts, const ScoreOptions& options) {
  return at_border([&] {
    const Internals::ModelState& state = Internals::of(model);
    const model::ModelConfig& config = state.folder->config();
    if (options.threads < 0 || options.threads > limits::kThreads) throw UserError({"score options", "threads", str(options.threads), str("0 to ", limits::kThreads), ""});
    const std::optional<KvType> kv_type = kv_type_of(options.kv_type);
    if (!kv_type) throw UserError({"score options", "kv_type", str(static_cast<int>(options.kv_type)), "a CacheType: f32, f16, bf16 or q8_0", ""});
    std::vector<std::span<const int32_t>> documents;
    for (size_t i = 0; i < texts.size(); ++i) {
      const std::vector<TokenId>& text = texts[i];
      if (text.empty() || std::ssize(text) > config.max_position_embeddings)
        throw UserError({"score", str("text ", i), str(text.size(), " tokens"), str("1 to the model's max_position_embeddings ", config.max_position_embeddings), "cut it"});
      const auto unknown = std::find_if(text.begin(), text.end(), [&](TokenId id) { return id < 0 || id >= config.vocab_size; });
      if (unknown != text.end())
        throw UserError({"score", str("text ", i, ", token ", unknown - text.begin()), str("id ", *unknown), str("0 to ", config.vocab_size - 1), "does the tokenizer belong to this model?"});
      documents.emplace_back(text);
    }
    infer::Engine engine(state.need_weights(), {.threads = options.threads, .kv_type = *kv_type});
    std::vector<TextScore> out(texts.size());
    infer::score_documents(engine, documents, {.policy = state.policy(options.dial)},
                           [&](infer::DocumentScore&& s) { out[s.document] = score_of(s, texts[s.document].size(), config); });
    return out;
  });
}

TextScore score(const Model& model, std::span<const TokenId> text, const ScoreOptions& options) {
  return score(model, std::vector<std::vector<TokenId>>{{text.begin(), text.end()}}, options).front();
}

}  // namespace fathom
