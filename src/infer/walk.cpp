#include "infer/walk.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "infer/step.h"

namespace fathom::infer {
namespace {

constexpr int64_t kRows = 512;  // of a chunk, at least one whole text

}  // namespace

struct BlockWalk::State {
  struct Chunk {  // some texts, whole
    std::vector<std::span<const int32_t>> texts;
    std::vector<float> first;  // [N, C] at the input of the first block with a unit (or at the end of a dense model)
    std::vector<float> now;    // at the input of block `next`
    std::vector<uint8_t> exited;  // [N] before block `next`
    int64_t rows = 0;
  };

  std::shared_ptr<const Weights> weights;
  std::function<void()> check;
  ThreadPool threads;
  std::shared_ptr<PagePool> pool;
  Step step;
  std::vector<Chunk> chunks;
  int64_t tokens = 0;
  int64_t next = 0;          // a block with units, or L
  std::vector<int64_t> took;  // [cuts] tokens that took the cut's path or a dearer one, of the blocks before `next`

  // Of the chunk at hand
  RoutingPolicy policy;
  std::vector<Sequence> sequences;
  std::vector<WorkItem> items;
  std::vector<uint8_t> run;

  State(std::shared_ptr<const Weights> w, const EngineOptions& options, std::function<void()> c)
      : weights(std::move(w)), check(std::move(c)), threads(options.threads > 0 ? options.threads : available_threads()),
        pool(std::make_shared<PagePool>(config().num_key_value_heads, config().head_dim, options.kv_type, options.kv_bytes)),
        step(*weights, options.kernels ? *options.kernels : kernels::chosen(), threads, *pool) {}

  const model::ModelConfig& config() const { return weights->config(); }
  const routing::RoutingConfig& routing() const { return config().routing; }
  // The first block with a unit from `block` on, or L.
  int64_t routed_from(int64_t block) const {
    const size_t u = routing().units_of(block).first;
    return u < routing().units.size() ? routing().units[u].block : config().num_hidden_layers;
  }

  // Lays the chunk's rows out, from position 0 of every text.
  void load(const Chunk& chunk) {
    if (check) check();
    sequences.clear();
    for (size_t i = 0; i < chunk.texts.size(); ++i) sequences.emplace_back(pool, config().num_hidden_layers);
    items.clear();
    step.rows.clear();
    int64_t longest = 0;
    for (size_t i = 0; i < chunk.texts.size(); ++i) {
      items.push_back({.sequence = &sequences[i], .tokens = chunk.texts[i], .policy = &policy, .logits = Logits::none});
      const int64_t count = static_cast<int64_t>(chunk.texts[i].size());
      for (int64_t t = 0; t < count; ++t) step.rows.push_back({static_cast<uint32_t>(i), &sequences[i], t});
      longest = std::max(longest, count);
    }
    step.items = items;
    step.rope.reach(longest);
    step.x.grow(chunk.rows * config().hidden_size);
    std::copy(chunk.now.begin(), chunk.now.end(), step.x.data());
    step.exited = chunk.exited;
  }
  void keep(Chunk& chunk) {
    std::copy_n(step.x.data(), chunk.now.size(), chunk.now.begin());
    chunk.exited = step.exited;
  }

  void dense_blocks(int64_t from, int64_t to) {
    for (int64_t block = from; block < to; ++block) {
      begin_block(step);
      run_block(step, block);
      forget();
    }
  }
  // A block's keys and values serve that block alone: their pages go to the next one.
  void forget() {
    for (Sequence& sequence : sequences) sequence.clear();
  }

  // Thresholds of the units before u, or of all; the others stay unasked.
  void decide_by(const std::vector<float>& thresholds) {
    policy.thresholds = thresholds;
    policy.thresholds.resize(routing().cuts(), std::numeric_limits<float>::infinity());
  }

  void decide_one(size_t u) {
    decide(step, u, run);
    if (std::ranges::any_of(step.score, [](float s) { return std::isnan(s); }))
      throw UserError({"the model", "router of " + routing().units[u].name(), "a score that is NaN", "numbers", "are its weights damaged?"});
  }

  // What the unit that was just decided adds to `took`. Who has exited took no more than the cheapest path.
  void count(size_t u) {
    const std::vector<routing::Path> paths = routing().units[u].paths.in_order();
    int64_t* const of_unit = took.data() + routing().first_cut(u);
    for (size_t row = 0; row < run.size(); ++row) {
      if (step.exited[row]) continue;
      const auto reached = static_cast<size_t>(std::ranges::find(paths, static_cast<routing::Path>(run[row])) - paths.begin());
      for (size_t i = 0; i < reached; ++i) ++of_unit[i];
    }
  }

  // Decides block `next` by its thresholds and goes on to the next one with units.
  void advance(const std::vector<float>& thresholds) {
    decide_by(thresholds);
    const auto [first, last] = routing().units_of(next);
    const int64_t then = routed_from(next + 1);
    for (Chunk& chunk : chunks) {
      load(chunk);
      begin_block(step);
      for (size_t u = first; u < last; ++u) {
        decide_one(u);
        count(u);
      }
      run_block(step, next);
      forget();
      dense_blocks(next + 1, then);
      keep(chunk);
    }
    next = then;
  }
};

BlockWalk::BlockWalk(std::shared_ptr<const Weights> weights, std::span<const std::span<const int32_t>> texts, const EngineOptions& options,
                     std::function<void()> check)
    : state_(std::make_unique<State>(std::move(weights), options, std::move(check))) {
  State& s = *state_;
  const int64_t C = s.config().hidden_size, most = s.config().max_position_embeddings;
  for (const std::span<const int32_t> text : texts) {
    const int64_t count = static_cast<int64_t>(text.size());
    FATHOM_ASSERT(count >= 1, "a text without tokens");
    if (count > most) throw UserError({"context", "", str(count, " tokens"), str("at most ", most, " (max_position_embeddings)"), "shorten the text"});
    for (const int32_t id : text)
      if (id < 0 || id >= s.config().vocab_size)
        throw UserError({"tokens", "", str("id ", id), str("0 to ", s.config().vocab_size - 1), "does the tokenizer belong to this model?"});
    if (s.chunks.empty() || s.chunks.back().rows + count > kRows) s.chunks.emplace_back();
    State::Chunk& chunk = s.chunks.back();
    chunk.texts.push_back(text);
    chunk.rows += count;
    s.tokens += count;
  }
  s.next = s.routed_from(0);
  s.took.assign(s.routing().cuts(), 0);
  for (State::Chunk& chunk : s.chunks) {
    chunk.exited.assign(static_cast<size_t>(chunk.rows), 0);
    chunk.now.resize(static_cast<size_t>(chunk.rows * C));
    float* to = chunk.now.data();
    for (const std::span<const int32_t> text : chunk.texts)
      for (const int32_t id : text) s.weights->embed(id, to), to += C;
    s.load(chunk);
    s.dense_blocks(0, s.next);
    s.keep(chunk);
    chunk.first = chunk.now;
  }
}

BlockWalk::~BlockWalk() = default;

void BlockWalk::restart() {
  State& s = *state_;
  for (State::Chunk& chunk : s.chunks) {
    chunk.now = chunk.first;
    std::ranges::fill(chunk.exited, 0);
  }
  s.next = s.routed_from(0);
  std::ranges::fill(s.took, 0);
}

std::vector<float> BlockWalk::scores(size_t u, const std::vector<float>& before) {
  State& s = *state_;
  const routing::RoutingConfig& routing = s.routing();
  FATHOM_ASSERT(u < routing.units.size() && routing.units[u].block >= s.next && before.size() >= routing.first_cut(u), "unit ", u, " at block ", s.next);
  while (s.next < routing.units[u].block) s.advance(before);
  s.decide_by(before);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> out;
  out.reserve(static_cast<size_t>(s.tokens));
  for (const State::Chunk& chunk : s.chunks) {
    s.load(chunk);
    begin_block(s.step);
    for (size_t earlier = routing.units_of(s.next).first; earlier < u; ++earlier) s.decide_one(earlier);
    const std::vector<uint8_t> exited = s.step.exited;  // before this unit, whose own cuts are not asked
    s.decide_one(u);
    for (size_t i = 0; i < s.step.score.size(); ++i)
      out.push_back(s.step.rows[i].position < routing.forced_positions ? kInfinity : exited[i] ? -kInfinity : s.step.score[i]);
  }
  return out;
}

BlockWalk::Figures BlockWalk::finish(const std::vector<float>& thresholds) {
  State& s = *state_;
  FATHOM_ASSERT(thresholds.size() == s.routing().cuts());
  while (s.next < s.config().num_hidden_layers) s.advance(thresholds);
  Figures figures;
  double sum = 0;
  int64_t predicted = 0;
  StepResult result;
  std::vector<std::vector<int32_t>> targets;
  for (const State::Chunk& chunk : s.chunks) {
    s.load(chunk);
    targets.clear();
    result.items.assign(chunk.texts.size(), {});
    int64_t row = 0;
    for (size_t i = 0; i < chunk.texts.size(); ++i) {
      targets.emplace_back(chunk.texts[i].begin() + 1, chunk.texts[i].end()).push_back(-1);
      s.items[i].targets = targets.back();
      result.items[i].first_row = row;
      result.items[i].rows = static_cast<int64_t>(chunk.texts[i].size());
      row += result.items[i].rows;
    }
    run_head(s.step, result);
    for (const StepResult::Item& item : result.items)
      for (int64_t t = 0; t + 1 < item.rows; ++t) {
        const float nll = result.nll[static_cast<size_t>(item.first_row + t)];
        if (!std::isfinite(nll)) throw UserError({"the model", "", "a loss that is not finite", "numbers", "are its weights damaged?"});
        sum += nll, ++predicted;
      }
  }
  figures.loss = sum / static_cast<double>(predicted);  // 0 / 0 is the NaN that the header promises
  for (const int64_t took : s.took) figures.capacity.push_back(static_cast<double>(took) / static_cast<double>(std::max<int64_t>(s.tokens, 1)));
  return figures;
}

}  // namespace fathom::infer
