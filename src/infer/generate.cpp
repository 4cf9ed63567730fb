#include "infer/generate.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/error.h"
#include "core/limits.h"
#include "model/cost.h"

namespace fathom::infer {

const std::vector<std::pair<const char*, Finish>> kFinishNames = {{"length", Finish::length},
                                                                 {"stop_id", Finish::stop_id},
                                                                 {"stop_string", Finish::stop_string},
                                                                 {"context_full", Finish::context_full},
                                                                 {"cancelled", Finish::cancelled}};

namespace {

// One prompt and the text that grows from it.
struct Text {
  size_t index;
  std::vector<int32_t> prompt;
  Sequence sequence;
  Sampler sampler;
  std::optional<StopText> stream;
  Generated out;
  int32_t pending = -1;  // sampled, not yet read
  int64_t was_read = 0;  // when it was finished
  bool finished = false;

  int64_t read() const { return sequence.position(); }
  bool in_prompt() const { return read() < static_cast<int64_t>(prompt.size()); }
};

void check(const Engine& engine, const text::Tokenizer* tokenizer, std::span<const std::vector<int32_t>> prompts,
           const GenerateOptions& options) {
  const auto refuse = [](const std::string& field, const std::string& found, const std::string& expected, const char* hint = "") {
    throw UserError({"generation", field, found, expected, hint});
  };
  options.sampling.validate();
  if (options.max_new_tokens < 1 || options.max_new_tokens > limits::kNewTokens)
    refuse("max_new_tokens", str(options.max_new_tokens), str("1 to ", limits::kNewTokens));
  if (options.prefill_chunk < 1) refuse("prefill_chunk", str(options.prefill_chunk), "1 or more");
  if (options.stop.size() > limits::kStopStrings)
    refuse("stop", str(options.stop.size(), " strings"), str("at most ", limits::kStopStrings));
  for (const std::string& stop : options.stop)
    if (stop.empty() || static_cast<int64_t>(stop.size()) > limits::kStopBytes)
      refuse("stop", str(stop.size(), " bytes"), str("1 to ", limits::kStopBytes));
  if (!options.stop.empty() && !tokenizer) refuse("stop", "stop strings", "none", "they need a tokenizer");
  for (const std::vector<int32_t>& prompt : prompts) {
    if (prompt.empty()) refuse("prompt", "no token", "at least one");
    if (static_cast<int64_t>(prompt.size()) > engine.config().max_position_embeddings)
      refuse("prompt", str(prompt.size(), " tokens"), str("at most ", engine.config().max_position_embeddings), "shorten it");
  }
}

void finish(Text& text, Finish why) {
  if (std::exchange(text.finished, true)) return;
  text.out.finish = why;
  text.was_read = text.read();
  text.out.kv_bytes = text.sequence.kv_bytes();
  text.out.kv_slot_bytes = text.sequence.slot_bytes();
}

// What the step that read `text`'s pending token has made certain: the event of that token.
void deliver(Text& text, const StepResult& result, size_t item, int64_t dense_blocks, const TokenCallback& on_token) {
  const int32_t id = std::exchange(text.pending, -1);
  std::vector<uint8_t> run;
  for (const auto& r : result.decisions.run) run.push_back(r[result.items[item].first_row]);
  TokenEvent event{.prompt = text.index, .id = id, .position = text.read() - 1, .text = {},
                   .depth = dense_blocks + std::count(run.begin(), run.end(), 1), .run = run};
  if (text.stream) {
    event.text = text.stream->push(id);
    if (text.stream->stopped()) finish(text, Finish::stop_string);
  }
  text.out.text += text_of(event.text);
  if (on_token && !on_token(event)) finish(text, Finish::cancelled);
}

void choose_next(Engine& engine, Text& text, std::span<const float> logits, const GenerateOptions& options) {
  if (static_cast<int64_t>(text.out.ids.size()) == options.max_new_tokens) return finish(text, Finish::length);
  if (text.read() == engine.config().max_position_embeddings) return finish(text, Finish::context_full);
  const int32_t id = text.sampler.sample(logits, engine.kernels());
  if (std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end())
    return finish(text, Finish::stop_id);
  text.pending = id;
  text.out.ids.push_back(id);
}

void cancel(Text& text) {
  if (std::exchange(text.pending, -1) >= 0) text.out.ids.pop_back();  // nobody saw it: no step read it, no event told of it
  finish(text, Finish::cancelled);
  text.sequence.clear();
}

}  // namespace

GenerateResult generate(Engine& engine, const text::Tokenizer* tokenizer, std::span<const std::vector<int32_t>> prompts,
                        const GenerateOptions& options, const TokenCallback& on_token) {
  check(engine, tokenizer, prompts, options);
  const model::ModelConfig& config = engine.config();
  const int64_t dense_blocks = config.num_hidden_layers - static_cast<int64_t>(config.routing.blocks.size());
  std::vector<Text> texts;
  for (size_t i = 0; i < prompts.size(); ++i) {
    texts.push_back({.index = i, .prompt = prompts[i], .sequence = engine.new_sequence(), .sampler = Sampler(options.sampling, i),
                     .stream = {}, .out = {}});
    if (tokenizer) texts.back().stream.emplace(*tokenizer, options.stop, prompts[i]);
    texts.back().sampler.observe(prompts[i]);
    texts.back().out.prompt_tokens = static_cast<int64_t>(prompts[i].size());
  }

  GenerateResult result;
  GenerateStats& stats = result.stats;
  StepResult step;
  std::vector<WorkItem> items;
  std::vector<Text*> active;
  while (true) {
    items.clear();
    active.clear();
    bool prefill = false;
    for (Text& text : texts) {
      if (text.finished) continue;
      const int64_t left = static_cast<int64_t>(text.prompt.size()) - text.read();
      WorkItem item{.sequence = &text.sequence, .tokens = {&text.pending, 1}, .policy = &options.policy};
      if (left > 0) {
        item.tokens = std::span<const int32_t>(text.prompt).subspan(text.read(), std::min(left, options.prefill_chunk));
        item.logits = left <= options.prefill_chunk ? Logits::last : Logits::none;
        prefill = true;
      }
      items.push_back(item);
      active.push_back(&text);
    }
    if (items.empty()) break;
    if (options.cancel && options.cancel()) {
      for (Text* text : active) cancel(*text);
      break;
    }

    const auto begin = std::chrono::steady_clock::now();
    engine.forward(items, step);
    step.refuse_nan_scores(config);
    for (size_t i = 0; i < active.size(); ++i) {
      Text& text = *active[i];
      step.append_decisions(i, text.out.decisions);
      if (text.pending >= 0) deliver(text, step, i, dense_blocks, on_token);
      if (!text.finished && !text.in_prompt()) choose_next(engine, text, step.logits_of(i), options);
      if (text.finished) text.sequence.clear();
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    stats.steps += 1;
    (prefill ? stats.prefill_seconds : stats.decode_seconds) += seconds;
    if (!prefill) stats.decode_tokens += static_cast<int64_t>(items.size());
  }

  model::ForwardCost cost, dense;
  const int64_t slot = model::kv_bytes_per_token_and_block(config) * config.num_hidden_layers;
  for (Text& text : texts) {
    if (text.stream && text.out.finish != Finish::stop_string) text.out.text += text_of(text.out.tail = text.stream->finish());
    const int64_t read = text.was_read, prompt_read = std::min(read, text.out.prompt_tokens);
    const int64_t head_rows = prompt_read < text.out.prompt_tokens ? 0 : 1 + static_cast<int64_t>(text.out.ids.size());
    text.out.kv_slot_bytes_dense = read * slot;
    if (read > 0) {
      cost += model::forward_cost(config, read, text.out.decisions, head_rows);
      dense += model::dense_cost(config, read, head_rows);
    }
    stats.prompt_tokens += prompt_read;
    stats.new_tokens += static_cast<int64_t>(text.out.ids.size());
    result.texts.push_back(std::move(text.out));
  }
  if (dense.total() > 0) {
    stats.block_fraction = model::block_fraction(cost, dense);
    stats.total_fraction = model::total_fraction(cost, dense);
  }
  return result;
}

}  // namespace fathom::infer
