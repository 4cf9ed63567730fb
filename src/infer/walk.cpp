#include "infer/walk.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "infer/text_steps.h"

namespace fathom::infer {

struct BlockWalk::State {
  struct Chunk : TextChunk {
    std::vector<float> first;  // [N, C] at the input of the first block with a unit (or at the end of a dense model)
  };

  TextSteps steps;
  std::vector<Chunk> chunks;
  int64_t tokens = 0;
  int64_t next = 0;          // a block with units, or L
  std::vector<int64_t> took;  // [cuts] tokens that took the cut's path or a dearer one, of the blocks before `next`
  std::vector<uint8_t> run;   // of the chunk at hand

  const model::ModelConfig& config() const { return steps.config(); }
  const routing::RoutingConfig& routing() const { return config().routing; }
  Step& step() { return steps.step(); }
  // The first block with a unit from `block` on, or L.
  int64_t routed_from(int64_t block) const {
    const size_t u = routing().units_of(block).first;
    return u < routing().units.size() ? routing().units[u].block : config().num_hidden_layers;
  }

  // Thresholds of the units before u, or of all; the others stay unasked.
  void decide_by(const std::vector<float>& thresholds) {
    steps.policy.thresholds = thresholds;
    steps.policy.thresholds.resize(routing().cuts(), std::numeric_limits<float>::infinity());
  }

  void decide_one(size_t u) {
    decide(step(), u, run);
    if (std::ranges::any_of(step().score, [](float s) { return std::isnan(s); }))
      throw UserError({"the model", "router of " + routing().units[u].name(), "a score that is NaN", "numbers", "are its weights damaged?"});
  }

  // What the unit that was just decided adds to `took`. Who has exited took no more than the cheapest path.
  void count(size_t u) {
    const std::vector<routing::Path> paths = routing().units[u].paths.in_order();
    int64_t* const of_unit = took.data() + routing().first_cut(u);
    for (size_t row = 0; row < run.size(); ++row) {
      if (step().exited[row]) continue;
      const auto reached = static_cast<size_t>(std::ranges::find(paths, static_cast<routing::Path>(run[row])) - paths.begin());
      for (size_t i = 0; i < reached; ++i) ++of_unit[i];
    }
  }

  // Of the loaded chunk and the unit that was just decided; who had exited before it cannot run.
  void add_scores(const std::vector<uint8_t>& exited, std::vector<float>& out) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (size_t i = 0; i < step().score.size(); ++i)
      out.push_back(step().rows[i].position < routing().forced_positions ? kInfinity : exited[i] ? -kInfinity : step().score[i]);
  }

  // Decides block `next` by its thresholds and goes on to the next one with units.
  void advance(const std::vector<float>& thresholds, std::vector<std::vector<float>>* scores = nullptr) {
    decide_by(thresholds);
    const auto [first, last] = routing().units_of(next);
    const int64_t then = routed_from(next + 1);
    for (Chunk& chunk : chunks) {
      steps.load(chunk);
      begin_block(step());
      for (size_t u = first; u < last; ++u) {
        const std::vector<uint8_t> exited = step().exited;
        decide_one(u);
        count(u);
        if (scores) add_scores(exited, (*scores)[u]);
      }
      run_block(step(), next);
      steps.forget();
      steps.dense_blocks(next + 1, then);
      steps.keep(chunk);
    }
    next = then;
  }
};

BlockWalk::BlockWalk(std::shared_ptr<const Weights> weights, std::span<const std::span<const int32_t>> texts, const EngineOptions& options,
                     std::function<void()> check)
    : state_(new State{.steps{std::move(weights), options, std::move(check)}, .chunks = {}, .took = {}, .run = {}}) {
  State& s = *state_;
  s.next = s.routed_from(0);
  s.took.assign(s.routing().cuts(), 0);
  for (TextChunk& chunk : s.steps.embedded(texts)) {
    s.tokens += chunk.rows;
    s.steps.load(chunk);
    s.steps.dense_blocks(0, s.next);
    s.steps.keep(chunk);
    s.chunks.push_back({{std::move(chunk)}, {}});
    s.chunks.back().first = s.chunks.back().now;
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
  std::vector<float> out;
  out.reserve(static_cast<size_t>(s.tokens));
  for (const State::Chunk& chunk : s.chunks) {
    s.steps.load(chunk);
    begin_block(s.step());
    for (size_t earlier = routing.units_of(s.next).first; earlier < u; ++earlier) s.decide_one(earlier);
    const std::vector<uint8_t> exited = s.step().exited;  // before this unit, whose own cuts are not asked
    s.decide_one(u);
    s.add_scores(exited, out);
  }
  return out;
}

std::vector<double> BlockWalk::capacity(const std::vector<float>& thresholds, std::vector<std::vector<float>>* scores) {
  State& s = *state_;
  FATHOM_ASSERT(thresholds.size() == s.routing().cuts());
  if (scores) scores->assign(s.routing().units.size(), {});
  while (s.next < s.config().num_hidden_layers) s.advance(thresholds, scores);
  std::vector<double> capacity;
  for (const int64_t took : s.took) capacity.push_back(static_cast<double>(took) / static_cast<double>(std::max<int64_t>(s.tokens, 1)));
  return capacity;
}

double BlockWalk::loss() {
  State& s = *state_;
  FATHOM_ASSERT(s.next == s.config().num_hidden_layers, "block ", s.next);
  double sum = 0;
  int64_t predicted = 0;
  for (const State::Chunk& chunk : s.chunks) {
    s.steps.load(chunk);
    s.steps.loss(sum, predicted);
  }
  return sum / static_cast<double>(predicted);  // 0 / 0 is the NaN that the header promises
}

BlockWalk::Figures BlockWalk::finish(const std::vector<float>& thresholds) {
  Figures figures{.loss = 0, .capacity = capacity(thresholds)};
  figures.loss = loss();
  return figures;
}

}  // namespace fathom::infer
