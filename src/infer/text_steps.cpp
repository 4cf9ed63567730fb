#include "infer/text_steps.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace fathom::infer {
namespace {

constexpr int64_t kRows = 512;  // of a chunk, at least one whole text

}  // namespace

TextSteps::TextSteps(std::shared_ptr<const Weights> weights, const EngineOptions& options, std::function<void()> check)
    : weights_(std::move(weights)),
      check_(std::move(check)),
      threads_(options.threads > 0 ? options.threads : available_threads()),
      pool_(std::make_shared<PagePool>(config().num_key_value_heads, config().head_dim, options.kv_type, options.kv_bytes)),
      step_(*weights_, options.kernels ? *options.kernels : kernels::chosen(), threads_, *pool_) {}

std::vector<TextChunk> TextSteps::embedded(std::span<const std::span<const int32_t>> texts) {
  const int64_t C = config().hidden_size, most = config().max_position_embeddings;
  std::vector<TextChunk> chunks;
  for (const std::span<const int32_t> text : texts) {
    const int64_t count = static_cast<int64_t>(text.size());
    FATHOM_ASSERT(count >= 1, "a text without tokens");
    if (count > most) throw UserError({"context", "", str(count, " tokens"), str("at most ", most, " (max_position_embeddings)"), "shorten the text"});
    for (const int32_t id : text)
      if (id < 0 || id >= config().vocab_size)
        throw UserError({"tokens", "", str("id ", id), str("0 to ", config().vocab_size - 1), "does the tokenizer belong to this model?"});
    if (chunks.empty() || chunks.back().rows + count > kRows) chunks.emplace_back();
    chunks.back().texts.push_back(text);
    chunks.back().rows += count;
  }
  for (TextChunk& chunk : chunks) {
    chunk.exited.assign(static_cast<size_t>(chunk.rows), 0);
    chunk.now.resize(static_cast<size_t>(chunk.rows * C));
    float* to = chunk.now.data();
    for (const std::span<const int32_t> text : chunk.texts)
      for (const int32_t id : text) weights_->embed(id, to), to += C;
  }
  return chunks;
}

void TextSteps::load(const TextChunk& chunk) {
  if (check_) check_();
  loaded_ = &chunk;
  sequences_.clear();
  for (size_t i = 0; i < chunk.texts.size(); ++i) sequences_.emplace_back(pool_, config().num_hidden_layers);
  items_.clear();
  step_.rows.clear();
  int64_t longest = 0;
  for (size_t i = 0; i < chunk.texts.size(); ++i) {
    items_.push_back({.sequence = &sequences_[i], .tokens = chunk.texts[i], .policy = &policy, .logits = Logits::none});
    const int64_t count = static_cast<int64_t>(chunk.texts[i].size());
    for (int64_t t = 0; t < count; ++t) step_.rows.push_back({static_cast<uint32_t>(i), &sequences_[i], t});
    longest = std::max(longest, count);
  }
  step_.items = items_;
  step_.rope.reach(longest);
  step_.x.grow(chunk.rows * config().hidden_size);
  std::copy(chunk.now.begin(), chunk.now.end(), step_.x.data());
  step_.exited = chunk.exited;
}

void TextSteps::keep(TextChunk& chunk) const {
  std::copy_n(step_.x.data(), chunk.now.size(), chunk.now.begin());
  chunk.exited = step_.exited;
}

void TextSteps::dense_blocks(int64_t from, int64_t to) {
  for (int64_t block = from; block < to; ++block) {
    begin_block(step_);
    run_block(step_, block);
    forget();
  }
}

void TextSteps::forget() {
  for (Sequence& sequence : sequences_) sequence.clear();
}

void TextSteps::loss(double& sum, int64_t& predicted) {
  StepResult result;
  result.items.assign(loaded_->texts.size(), {});
  std::vector<std::vector<int32_t>> targets;
  targets.reserve(loaded_->texts.size());
  int64_t row = 0;
  for (size_t i = 0; i < loaded_->texts.size(); ++i) {
    targets.emplace_back(loaded_->texts[i].begin() + 1, loaded_->texts[i].end()).push_back(-1);
    items_[i].targets = targets.back();
    result.items[i].first_row = row;
    result.items[i].rows = static_cast<int64_t>(loaded_->texts[i].size());
    row += result.items[i].rows;
  }
  run_head(step_, result);
  for (WorkItem& item : items_) item.targets = {};
  for (const StepResult::Item& item : result.items)
    for (int64_t t = 0; t + 1 < item.rows; ++t) {
      const float nll = result.nll[static_cast<size_t>(item.first_row + t)];
      if (!std::isfinite(nll)) throw UserError({"the model", "", "a loss that is not finite", "numbers", "are its weights damaged?"});
      sum += nll, ++predicted;
    }
}

}  // namespace fathom::infer
