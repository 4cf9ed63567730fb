#include "nn/calibration_walk.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "nn/pass.h"

namespace fathom::nn {

using at::Tensor;

struct CalibrationWalk::State {
  explicit State(TransformerState& transformer) : model(transformer) {}
  struct Chunk {
    Batch batch;
    std::unique_ptr<Pass> pass;
    Stream first;           // at the input of the first routed block (or at the end of a dense model)
    Stream now;             // at the input of routed block `next`
    Pass::Scores scores;    // of routed block `next`, when `scored`
  };
  TransformerState& model;
  std::vector<Chunk> chunks;
  size_t next = 0;
  bool scored = false;
  std::vector<Tensor> selected;           // [R] flat [B·T], of all chunks, so far
  std::vector<int64_t> ran;               // [R]
  int64_t batch = 0, tokens = 0, unpadded = 0;

  size_t routed() const { return model.config.routing.units.size(); }
  size_t block_of(size_t r) const {
    return r < routed() ? static_cast<size_t>(model.config.routing.units[r].block) : model.blocks.size();
  }

  void dense_blocks(Chunk& chunk, size_t from, size_t to) {
    for (size_t block = from; block < to; ++block) chunk.pass->dense_block(block, chunk.now);
  }

  void score() {
    if (scored) return;
    for (Chunk& chunk : chunks) chunk.scores = chunk.pass->scores(next, chunk.now);
    scored = true;
  }

  // Decides routed block `next` by the threshold and goes on to the next one's input.
  void advance(const std::vector<float>& thresholds) {
    score();
    ForwardOptions options;
    options.pick = Pick::causal;
    options.thresholds = thresholds;
    options.thresholds.resize(routed());
    int64_t count = 0;
    std::vector<Tensor> flags;
    for (Chunk& chunk : chunks) {
      const Selected run = select(*chunk.pass, model.config, next, 0, chunk.scores, options);
      chunk.pass->routed_block(next, chunk.now, chunk.scores, run, 1.0);
      dense_blocks(chunk, block_of(next) + 1, block_of(next + 1));
      count += static_cast<int64_t>(run.rows.size());
      Tensor flag = at::zeros({chunk.batch.tokens.numel()}, at::kBool);
      flag.index_fill_(0, at::tensor(at::ArrayRef<int64_t>(run.rows), at::kLong), true);
      flags.push_back(flag);
      chunk.scores = {};
    }
    selected.push_back(at::cat(flags));
    ran.push_back(count);
    ++next;
    scored = false;
  }
};

CalibrationWalk::CalibrationWalk(Transformer& model, const Batch& batch, Compute compute, int64_t rows_at_once)
    : state_(std::make_unique<State>(*model.state_)) {
  at::NoGradGuard no_grad;
  State& s = *state_;
  s.model.config.routing.require_plain("calibration by the network");
  s.batch = batch.tokens.size(0);
  s.tokens = batch.tokens.size(1);
  const auto part = [](const Tensor& t, int64_t from, int64_t count) { return t.defined() ? t.narrow(0, from, count) : Tensor(); };
  for (int64_t from = 0; from < s.batch; from += rows_at_once) {
    const int64_t count = std::min(rows_at_once, s.batch - from);
    State::Chunk chunk;
    chunk.batch = {part(batch.tokens, from, count), part(batch.targets, from, count), part(batch.document_start, from, count),
                   part(batch.lengths, from, count)};
    chunk.pass = std::make_unique<Pass>(s.model, chunk.batch, compute);
    s.unpadded += chunk.pass->rows().token_count();
    chunk.now = chunk.pass->embedded();
    s.dense_blocks(chunk, 0, s.block_of(0));
    chunk.first = chunk.now;
    s.chunks.push_back(std::move(chunk));
  }
}

CalibrationWalk::~CalibrationWalk() = default;

void CalibrationWalk::restart() {
  State& s = *state_;
  for (auto& chunk : s.chunks) {
    chunk.now = chunk.first;
    chunk.scores = {};
  }
  s.next = 0;
  s.scored = false;
  s.selected.clear();
  s.ran.clear();
}

std::vector<float> CalibrationWalk::scores(size_t r, const std::vector<float>& before) {
  at::NoGradGuard no_grad;
  State& s = *state_;
  FATHOM_ASSERT(r < s.routed() && r >= s.next && before.size() >= r, "routed block ", r, " after ", s.next);
  while (s.next < r) s.advance(before);
  s.score();
  const int64_t forced = s.model.config.routing.forced_positions;
  std::vector<float> out;
  out.reserve(static_cast<size_t>(s.unpadded));
  for (const auto& chunk : s.chunks) {
    const Tensor decision = chunk.scores.decision.to(at::kFloat).contiguous();
    const float* p = decision.const_data_ptr<float>();
    const Rows& rows = chunk.pass->rows();
    for (int64_t b = 0; b < rows.batch; ++b)
      for (int64_t i = b * rows.tokens; i < b * rows.tokens + rows.length[static_cast<size_t>(b)]; ++i)
        out.push_back(rows.position[static_cast<size_t>(i)] < forced ? std::numeric_limits<float>::infinity() : p[i]);
  }
  return out;
}

CalibrationWalk::Figures CalibrationWalk::finish(const std::vector<float>& thresholds) {
  at::NoGradGuard no_grad;
  State& s = *state_;
  FATHOM_ASSERT(thresholds.size() == s.routed());
  while (s.next < s.routed()) s.advance(thresholds);
  Figures figures;
  double sum = 0;
  int64_t targets = 0;
  for (const auto& chunk : s.chunks) {
    if (!chunk.batch.targets.defined()) continue;
    const HeadLoss head = chunk.pass->loss(chunk.now, chunk.batch.targets);
    sum += head.loss.item<double>() * static_cast<double>(head.targets);
    targets += head.targets;
  }
  figures.loss = targets > 0 ? sum / static_cast<double>(targets) : std::numeric_limits<double>::quiet_NaN();
  for (size_t r = 0; r < s.routed(); ++r) {
    figures.capacity.push_back(static_cast<double>(s.ran[r]) / static_cast<double>(std::max<int64_t>(s.unpadded, 1)));
    figures.selected.push_back(s.selected[r].view({s.batch, s.tokens}));
  }
  return figures;
}

}  // namespace fathom::nn
