#include "infer/generate.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/error.h"
#include "core/limits.h"

namespace fathom::infer {

TextCost cost_of(const model::ModelConfig& config, const Generated& text) {
  FATHOM_ASSERT(text.read_tokens > 0, "nothing was read");
  const int64_t head_rows = text.read_tokens < text.prompt_tokens ? 0 : 1 + static_cast<int64_t>(text.ids.size());
  return {model::forward_cost(config, text.read_tokens, text.decisions, head_rows), model::dense_cost(config, text.read_tokens, head_rows)};
}

GenerateResult generate(Engine& engine, const text::Tokenizer* tokenizer, std::span<const std::vector<int32_t>> prompts,
                        const GenerateOptions& options, const TokenCallback& on_token) {
  if (options.prefill_chunk < 1) throw UserError({"generation", "prefill_chunk", str(options.prefill_chunk), "1 or more", ""});
  const model::ModelConfig& config = engine.config();
  GenerateResult result;
  result.texts.resize(prompts.size());
  if (prompts.empty()) return result;
  const int64_t count = std::ssize(prompts), chunk = std::min(options.prefill_chunk, config.max_position_embeddings);
  Scheduler scheduler(engine, {.step_rows = count * std::max(chunk, limits::kGuesses + 1) + 1, .prefill_chunk = chunk, .max_texts = count});
  std::vector<RequestId> ids;
  for (size_t i = 0; i < prompts.size(); ++i) {
    Request request{.prompt = prompts[i], .policies = {{0, options.policy}}, .sampling = options.sampling, .stream = i,
                    .max_new_tokens = options.max_new_tokens, .stop_ids = options.stop_ids, .stop = options.stop, .tokenizer = tokenizer,
                    .speculation = options.speculation, .on_finish = [&result, i](size_t, Generated&& text) {
                      if (text.error) std::rethrow_exception(text.error);
                      result.texts[i] = std::move(text);
                    }};
    if (on_token)
      request.on_token = [&on_token, i](const TokenEvent& e) {
        TokenEvent event = e;
        event.prompt = i;
        return on_token(event);
      };
    ids.push_back(scheduler.submit(std::move(request)));
  }

  GenerateStats& stats = result.stats;
  while (!scheduler.idle()) {
    if (options.cancel && options.cancel()) {
      for (const RequestId id : ids) scheduler.cancel(id);
      break;
    }
    const auto begin = std::chrono::steady_clock::now();
    const Scheduler::Step step = scheduler.step();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    (step.prompt_rows > 0 ? stats.prefill_seconds : stats.decode_seconds) += seconds;
    if (step.prompt_rows == 0) stats.decode_tokens += step.decode_rows;
  }
  stats.steps = scheduler.stats().steps;

  model::ForwardCost cost, dense;
  for (const Generated& text : result.texts) {
    if (text.read_tokens > 0) {
      const TextCost of_text = cost_of(config, text);
      cost += of_text.spent;
      dense += of_text.dense;
    }
    stats.prompt_tokens += std::min(text.read_tokens, text.prompt_tokens);
    stats.new_tokens += static_cast<int64_t>(text.ids.size());
  }
  if (dense.total() > 0) {
    stats.block_fraction = model::block_fraction(cost, dense);
    stats.total_fraction = model::total_fraction(cost, dense);
  }
  return result;
}

}  // namespace fathom::infer
