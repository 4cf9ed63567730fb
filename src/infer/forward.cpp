#include "infer/forward.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/human.h"
#include "core/limits.h"
#include "infer/step.h"

namespace fathom::infer {

// Puts every sequence of a step back as it was unless the step succeeds.
class StepGuard final {
 public:
  explicit StepGuard(std::span<const WorkItem> items) : items_(items) {
    for (const WorkItem& item : items)
      for (int64_t block = 0; block < item.sequence->blocks(); ++block) lengths_.push_back(item.sequence->length(block));
  }
  ~StepGuard() {
    if (done_) return;
    auto length = lengths_.begin();
    for (const WorkItem& item : items_)
      for (int64_t block = 0; block < item.sequence->blocks(); ++block) item.sequence->shrink(block, *length++);
  }
  void commit() {
    for (const WorkItem& item : items_) item.sequence->position_ += static_cast<int64_t>(item.tokens.size());
    done_ = true;
  }

 private:
  std::span<const WorkItem> items_;
  std::vector<int64_t> lengths_;
  bool done_ = false;
};

struct Engine::State {
  std::shared_ptr<const Weights> weights;
  ThreadPool threads;
  std::shared_ptr<PagePool> pool;
  EngineCounters counters;
  int64_t kv_bytes;  // as it was asked for; the pool has whole pages of it
  Step step;

  State(std::shared_ptr<const Weights> w, const EngineOptions& options)
      : weights(std::move(w)),
        threads(options.threads > 0 ? options.threads : available_threads()),
        pool(std::make_shared<PagePool>(weights->config().num_key_value_heads, weights->config().head_dim, options.kv_type, options.kv_bytes)),
        kv_bytes(options.kv_bytes), step(*weights, options.kernels ? *options.kernels : kernels::chosen(), threads, *pool) {
    counters.unit_rows.resize(weights->config().routing.units.size());
    counters.block_rows.resize(weights->config().num_hidden_layers);
    counters.kv_slots.resize(weights->config().num_hidden_layers);
  }

  void check(std::span<const WorkItem> items) const;
  void lay_out(std::span<const WorkItem> items, StepResult& result);
};

void Engine::State::check(std::span<const WorkItem> items) const {
  const model::ModelConfig& config = weights->config();
  const size_t units = config.routing.units.size(), cuts = config.routing.cuts();
  std::vector<const Sequence*> sequences;
  for (const WorkItem& item : items) {
    FATHOM_ASSERT(item.sequence && item.policy && !item.tokens.empty(), "an item without sequence, policy or tokens");
    FATHOM_ASSERT(item.sequence->pool_ == pool, "a sequence of another engine");
    FATHOM_ASSERT(item.targets.empty() || item.targets.size() == item.tokens.size(), "targets for other tokens");
    const RoutingPolicy& policy = *item.policy;
    const int64_t end = item.sequence->position() + static_cast<int64_t>(item.tokens.size());
    switch (policy.rule) {
      case Rule::causal: FATHOM_ASSERT(policy.thresholds.size() == cuts, policy.thresholds.size()); break;
      case Rule::topk: FATHOM_ASSERT(item.sequence->position() == 0, "topk needs the whole sequence in one step"); [[fallthrough]];
      case Rule::random: FATHOM_ASSERT(policy.capacity.size() == cuts, policy.capacity.size()); break;
      case Rule::imposed:
        FATHOM_ASSERT(policy.imposed && policy.imposed->run.size() == units, "decisions of another model");
        for (const auto& run : policy.imposed->run) FATHOM_ASSERT(static_cast<int64_t>(run.size()) >= end, run.size());
        break;
    }
    if (end > config.max_position_embeddings)
      throw UserError({"context", "", str(end, " tokens"), str("at most ", config.max_position_embeddings, " (max_position_embeddings)"), "shorten the text"});
    for (std::span<const int32_t> ids : {item.tokens, item.targets})
      for (int32_t id : ids)
        if (id >= config.vocab_size || (id < 0 && (id != -1 || ids.data() != item.targets.data())))
          throw UserError({"tokens", "", str("id ", id), str("0 to ", config.vocab_size - 1), "does the tokenizer belong to this model?"});
    sequences.push_back(item.sequence);
  }
  std::sort(sequences.begin(), sequences.end());
  FATHOM_ASSERT(std::adjacent_find(sequences.begin(), sequences.end()) == sequences.end(), "a sequence twice in one step");
}

void Engine::State::lay_out(std::span<const WorkItem> items, StepResult& result) {
  const int64_t C = weights->config().hidden_size;
  step.items = items;
  step.rows.clear();
  result.items.assign(items.size(), {});
  int64_t positions = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    result.items[i].first_row = step.row_count();
    result.items[i].rows = static_cast<int64_t>(items[i].tokens.size());
    for (int64_t t = 0; t < result.items[i].rows; ++t)
      step.rows.push_back({static_cast<uint32_t>(i), items[i].sequence, items[i].sequence->position() + t});
    positions = std::max(positions, items[i].sequence->position() + result.items[i].rows);
  }
  step.rope.reach(positions);
  step.exited.assign(static_cast<size_t>(step.row_count()), 0);
  step.weight_bytes = 0;
  step.x.grow(step.row_count() * C);
  for (size_t i = 0; i < items.size(); ++i)
    for (int64_t t = 0; t < result.items[i].rows; ++t)
      weights->embed(items[i].tokens[t], step.x.data() + (result.items[i].first_row + t) * C);
}

Engine::Engine(std::shared_ptr<const Weights> weights, const EngineOptions& options) {
  if (options.threads < 0 || options.threads > limits::kThreads)
    throw UserError({"threads", "", str(options.threads), str("1 to ", limits::kThreads), ""});
  state_ = std::make_unique<State>(std::move(weights), options);
}

Engine::~Engine() = default;

Sequence Engine::new_sequence() { return Sequence(state_->pool, state_->weights->config().num_hidden_layers); }

// Rows that are in both of two ascending lists.
static int64_t in_both(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  int64_t count = 0;
  for (auto i = a.begin(), j = b.begin(); i != a.end() && j != b.end();) {
    if (*i == *j) ++count, ++i, ++j;
    else ++(*i < *j ? i : j);
  }
  return count;
}

int64_t Engine::kv_bytes_for(int64_t tokens) const {
  const model::ModelConfig& config = state_->weights->config();
  return (tokens + kPagePositions - 1) / kPagePositions * (config.num_hidden_layers - config.silent_blocks()) * state_->pool->page_bytes();
}

void Engine::require_room(int64_t tokens, int64_t texts) const {
  const PagePool& pool = *state_->pool;
  const int64_t needed = texts * kv_bytes_for(tokens);
  if (needed <= pool.byte_limit()) return;
  const auto bytes = [](int64_t n) { return human_bytes(static_cast<double>(n)); };
  throw UserError({"KV cache", "", str(texts == 1 ? std::string("a text") : str(texts, " texts"), " of ", tokens, " tokens, which may need ", bytes(needed)),
                   str("at most the limit of ", state_->kv_bytes, " B, ", pool.page_limit(), " pages of ", bytes(pool.page_bytes())), {"give ", Setting::kv_memory, str(" ", needed, " or more, or ask for fewer tokens")}});
}

void Engine::forward(std::span<const WorkItem> items, StepResult& result) {
  State& s = *state_;
  Step& step = s.step;
  const model::ModelConfig& config = s.weights->config();
  s.check(items);
  StepGuard guard(items);
  s.lay_out(items, result);
  const int64_t N = step.row_count();
  result.decisions.run.resize(config.routing.units.size());
  result.decisions.score.resize(config.routing.units.size());

  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    begin_block(step);
    const auto [first, last] = config.routing.units_of(block);
    for (size_t u = first; u < last; ++u) {
      decide(step, u, result.decisions.run[u]);
      result.decisions.score[u] = step.score;
      s.counters.unit_rows[u] += std::ranges::count(result.decisions.run[u], static_cast<uint8_t>(routing::Path::full));
    }
    s.counters.kv_slots[block] += run_block(step, block);
    s.counters.block_rows[block] += in_both(step.running, step.mlp_running);
  }
  const int64_t head_rows = run_head(step, result);

  guard.commit();
  s.counters.steps += 1;
  s.counters.rows += N;
  s.counters.head_rows += head_rows;
  s.counters.weight_bytes += step.weight_bytes;
  s.counters.attention_seconds = step.attention_seconds;
  s.counters.attention_bytes = step.attention_bytes;
}

StepResult Engine::forward(std::span<const WorkItem> items) {
  StepResult result;
  forward(items, result);
  return result;
}

const model::ModelConfig& Engine::config() const { return state_->weights->config(); }
const Weights& Engine::weights() const { return *state_->weights; }
const PagePool& Engine::pool() const { return *state_->pool; }
const EngineCounters& Engine::counters() const { return state_->counters; }
const kernels::Kernels& Engine::kernels() const { return state_->step.kernels; }
int Engine::threads() const { return state_->threads.size(); }

std::span<const float> StepResult::logits_of(size_t item, int64_t row) const {
  const Item& i = items[item];
  const int64_t at = row < 0 ? i.logits_rows - 1 : row;
  FATHOM_ASSERT(at >= 0 && at < i.logits_rows, "row ", row, " of ", i.logits_rows);
  return std::span(logits).subspan((i.first_logits + at) * vocab, vocab);
}

void StepResult::append_decisions(size_t item, routing::Decisions& to) const {
  routing::append(to, decisions, static_cast<size_t>(items[item].first_row), static_cast<size_t>(items[item].rows));
}

void StepResult::refuse_nan_scores(const model::ModelConfig& config, int64_t first_row, int64_t rows) const {
  for (size_t r = 0; r < decisions.score.size(); ++r)
    for (int64_t row = first_row; row < first_row + rows; ++row)
      if (std::isnan(decisions.score[r][static_cast<size_t>(row)]))
        throw UserError({"the model", "router of " + config.routing.units[r].name(), "a score that is NaN", "numbers", "are its weights damaged?"});
}

routing::Decisions StepResult::decisions_of(size_t item) const {
  routing::Decisions out;
  append_decisions(item, out);
  return out;
}

}  // namespace fathom::infer
