#include "infer/generate.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/limits.h"

namespace fathom::infer {

TextCost cost_of(const model::ModelConfig& config, const Generated& text) {
  FATHOM_ASSERT(text.read_tokens > 0, "nothing was read");
  const int64_t head_rows = text.read_tokens < text.prompt_tokens ? 0 : 1 + static_cast<int64_t>(text.ids.size());
  return {model::forward_cost(config, text.read_tokens, text.decisions, head_rows), model::dense_cost(config, text.read_tokens, head_rows)};
}

namespace {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// Reads the end of a text again, its last tokens one by one: what steps without guesses take.
void probe(Engine& engine, const RoutingPolicy& policy, const std::vector<int32_t>& prompt, const Generated& text, int64_t chunk, const std::function<bool()>& cancel,
           GenerateStats& stats) {
  constexpr int64_t kMostRead = 4096;
  std::vector<int32_t> ids = prompt;
  ids.insert(ids.end(), text.ids.begin(), text.ids.end());
  ids.resize(static_cast<size_t>(text.read_tokens));
  ids.erase(ids.begin(), ids.end() - std::min(kMostRead, std::ssize(ids)));
  const int64_t steps = std::min<int64_t>(kPlainSteps, std::ssize(ids) - 1);
  Sequence sequence = engine.new_sequence();
  StepResult result;
  for (int64_t at = 0, rows = 0; at < std::ssize(ids); at += rows) {
    if (cancel && cancel()) return;
    const int64_t before = std::ssize(ids) - steps - at;
    rows = before > 0 ? std::min(chunk, before) : 1;
    const WorkItem item{.sequence = &sequence, .tokens = std::span(ids).subspan(static_cast<size_t>(at), static_cast<size_t>(rows)), .policy = &policy,
                        .logits = before > 0 ? Logits::none : Logits::last};
    const Stopwatch watch;
    engine.forward({&item, 1}, result);
    if (before <= 0) ++stats.probe_steps, stats.probe_seconds += watch.seconds();
  }
}

}  // namespace

void GenerateStats::count(const Scheduler::Step& step, int64_t running, int64_t told, double seconds) {
  (step.prompt_rows > 0 ? prefill_seconds : decode_seconds) += seconds;
  if (step.prompt_rows > 0) return;
  decode_tokens += told;
  if (step.draft_rows > 0 || step.decode_rows > running) ++guess_steps, guess_tokens += told, guess_seconds += seconds;
  else ++plain_steps, plain_seconds += seconds;
}

GenerateResult generate(Engine& engine, const text::Tokenizer* tokenizer, std::span<const std::vector<int32_t>> prompts,
                        const GenerateOptions& options, const TokenCallback& on_token) {
  if (options.prefill_chunk < 1) throw UserError({"request", "prefill_chunk", str(options.prefill_chunk), "1 or more", ""});
  const model::ModelConfig& config = engine.config();
  GenerateResult result;
  const auto samples = static_cast<size_t>(std::max<int64_t>(options.samples, 1));  // fewer are refused with the first prompt
  result.texts.resize(prompts.size() * samples);
  if (prompts.empty()) return result;
  const int64_t count = std::ssize(prompts), texts = std::ssize(result.texts), chunk = std::min(options.prefill_chunk, config.max_position_embeddings);
  Scheduler scheduler(engine, {.step_rows = std::max(count * chunk, texts * 2 * (limits::kGuesses + 1)) + 1, .prefill_chunk = chunk, .max_texts = texts});
  std::vector<RequestId> ids;
  int64_t told = 0;  // new tokens
  for (size_t i = 0; i < prompts.size(); ++i) {
    const size_t first = i * samples;  // of its texts
    Request request{.prompt = prompts[i], .policies = {{0, options.policy}}, .sampling = options.sampling, .stream = first, .samples = options.samples,
                    .max_new_tokens = options.max_new_tokens, .stop_ids = options.stop_ids, .stop = options.stop, .tokenizer = tokenizer,
                    .speculation = options.speculation, .log_probs = options.log_probs,
                    .on_finish = [&result, first](size_t sample, Generated&& text) {
                      if (text.error) std::rethrow_exception(text.error);
                      result.texts[first + sample] = std::move(text);
                    }};
    request.on_token = [&on_token, &told, first](const TokenEvent& e) {
      ++told;
      if (!on_token) return true;
      TokenEvent event = e;
      event.prompt = first + e.prompt;
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
    const int64_t running = scheduler.running(), before = told;
    const Stopwatch watch;
    const Scheduler::Step step = scheduler.step();
    stats.count(step, running, told - before, watch.seconds());
  }
  stats.steps = scheduler.stats().steps;
  if (options.probe_plain_steps && texts == 1 && stats.guess_steps > 0 && stats.plain_steps < kPlainSteps && result.texts[0].finish != Finish::cancelled)
    probe(engine, options.policy, prompts[0], result.texts[0], chunk, options.cancel, stats);

  model::ForwardCost cost, dense;
  for (size_t i = 0; i < result.texts.size(); ++i) {
    const Generated& text = result.texts[i];
    if (text.read_tokens > 0) {
      const TextCost of_text = cost_of(config, text);
      cost += of_text.spent;
      dense += of_text.dense;
    }
    if (i % samples == 0) stats.prompt_tokens += std::min(text.read_tokens, text.prompt_tokens);
    stats.new_tokens += static_cast<int64_t>(text.ids.size());
  }
  if (dense.total() > 0) {
    stats.block_fraction = model::block_fraction(cost, dense);
    stats.total_fraction = model::total_fraction(cost, dense);
  }
  return result;
}

}  // namespace fathom::infer
