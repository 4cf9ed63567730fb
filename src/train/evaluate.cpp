#include "train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/cost.h"
#include "nn/calibration_walk.h"
#include "train/loader.h"

namespace fathom::train {
namespace {

constexpr int kParts = 2;  // of the split's windows: thresholds from one, losses from the other
constexpr double kHighestTrainedDial = 0.999;
constexpr int kCalibrate = 0, kMeasure = 1;

at::Tensor tensor_of(const std::vector<int32_t>& values, int64_t rows, int64_t tokens) {
  return at::from_blob(const_cast<int32_t*>(values.data()), {rows, tokens}, at::kInt);
}

nn::Batch slice(const nn::Batch& all, int64_t begin, int64_t end) {
  return {all.tokens.slice(0, begin, end), all.targets.slice(0, begin, end), all.document_start.slice(0, begin, end), {}};
}

}  // namespace

nn::Batch to_tensors(const Batch& batch) {
  return {tensor_of(batch.input, batch.rows, batch.tokens).to(at::kLong), tensor_of(batch.target, batch.rows, batch.tokens).to(at::kLong),
          tensor_of(batch.document_start, batch.rows, batch.tokens).clone(), {}};
}

at::Tensor forced_tokens(const Batch& batch, int64_t positions) {
  if (positions == 0) return {};
  at::Tensor out = at::empty({batch.rows, batch.tokens}, at::kBool);
  bool* forced = out.mutable_data_ptr<bool>();
  for (int64_t i = 0; i < out.numel(); ++i) forced[i] = i % batch.tokens - batch.document_start[static_cast<size_t>(i)] < positions;
  return out;
}

nn::Batch read_rows(const data::Dataset& dataset, const std::vector<int64_t>& begins, int64_t row_tokens) {
  return to_tensors(read_batch(dataset, begins, row_tokens));
}

void require_held_out(const data::Dataset& validation, int64_t row_tokens) {
  for (const int part : {kCalibrate, kMeasure}) evaluation_windows(validation, row_tokens, row_tokens, part, kParts);
}

Json Evaluation::to_json() const {
  Json out = {{"targets", targets}, {"loss", loss}, {"loss_topk", loss_topk}, {"bits_per_byte", bits_per_byte},
              {"block_fraction", block_fraction}, {"total_fraction", total_fraction}};
  if (!health.blocks().empty()) out.update(health.to_json());
  return out;
}

Evaluator::Evaluator(nn::Transformer& network, std::shared_ptr<const data::Dataset> validation, const text::Tokenizer& tokenizer,
                     const TrainConfig& config, nn::Compute compute)
    : network_(network), validation_(std::move(validation)), bytes_(tokenizer.bytes_per_token()), config_(config), compute_(compute) {}

std::vector<float> Evaluator::thresholds(int64_t tokens) {
  const model::ModelConfig& model = network_.config();
  const size_t R = model.routing.units.size();
  // The random control reads no threshold.
  if (R == 0 || model.routing.selection == routing::Selection::random) return std::vector<float>(R, 0.0f);
  const int64_t T = config_.sequence_length;
  const nn::Batch text = read_rows(*validation_, evaluation_windows(*validation_, tokens, T, kCalibrate, kParts), T);
  nn::CalibrationWalk walk(network_, text, compute_, config_.batch_size);
  return routing::calibrate(model.routing, model.routing.capacities(), [&](size_t r, const std::vector<float>& before) { return walk.scores(r, before); });
}

Evaluation Evaluator::evaluate(int64_t tokens, const std::optional<routing::DialTable>& dial) {
  const at::NoGradGuard no_grad;
  const model::ModelConfig& model = network_.config();
  const int64_t T = config_.sequence_length;
  const size_t R = model.routing.units.size();
  Evaluation e;
  e.health = RouterHealth(R);
  e.thresholds = dial ? dial->thresholds(dial->default_dial) : thresholds(tokens);
  const nn::Batch all = read_rows(*validation_, evaluation_windows(*validation_, tokens, T, kMeasure, kParts), T);
  double causal = 0, topk = 0;
  int64_t bytes = 0;
  for (int64_t row = 0; row < all.tokens.size(0); row += config_.batch_size) {
    const nn::Batch batch = slice(all, row, std::min(row + config_.batch_size, all.tokens.size(0)));
    nn::ForwardOptions options;
    options.compute = compute_;
    options.pick = nn::Pick::causal;
    options.thresholds = e.thresholds;
    const nn::ForwardResult one = network_.forward(batch, options);
    causal += one.loss.item<double>() * static_cast<double>(one.target_count);
    e.targets += one.target_count;
    if (R > 0) {
      options.pick = nn::Pick::topk;
      const nn::ForwardResult other = network_.forward(batch, options);
      topk += other.loss.item<double>() * static_cast<double>(other.target_count);
      e.health.add_pair(other.routed, one.routed);
    }
    const at::Tensor targets = batch.targets.contiguous();
    const int64_t* p = targets.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < targets.numel(); ++i)
      if (p[i] != nn::kIgnored && p[i] < static_cast<int64_t>(bytes_.size())) bytes += bytes_[static_cast<size_t>(p[i])];
  }
  const double n = static_cast<double>(std::max<int64_t>(e.targets, 1));
  e.loss = causal / n;
  e.loss_topk = R > 0 ? topk / n : e.loss;
  e.bits_per_byte = bytes > 0 ? causal / std::log(2.0) / static_cast<double>(bytes) : 0;
  if (R > 0) {
    std::vector<double> share;
    for (const RouterHealth::Block& b : e.health.blocks()) share.push_back(b.share);
    e.block_fraction = model::expected_block_fraction(model, T, share);
    e.total_fraction = model::total_fraction(model, model::topk_cost(model, T, T, share), T, T);
  }
  return e;
}

routing::DialTable Evaluator::calibrate(const std::function<void(size_t, size_t)>& progress) {
  const at::NoGradGuard no_grad;
  const model::ModelConfig& model = network_.config();
  const int64_t T = config_.sequence_length;
  const std::vector<double> trained = model.routing.capacities();
  const auto fraction = [&](const std::vector<double>& capacity) { return model::expected_block_fraction(model, T, capacity); };

  routing::DialTable table;
  // A tiny model's routers may cost more than its blocks save; its trained point still lies below the dense one.
  const bool dense = std::all_of(trained.begin(), trained.end(), [](double c) { return c == 1; });
  table.default_dial = dense ? 1.0 : std::min(kHighestTrainedDial, fraction(trained));
  const std::vector<int64_t> windows = evaluation_windows(*validation_, config_.calibration.tokens, T, kCalibrate, kParts);
  table.tokens = static_cast<int64_t>(windows.size()) * T;
  table.text = str("validation split, ", windows.size(), " rows of ", T, " tokens");

  std::vector<double> dials = config_.calibration.dials;
  if (dials.empty()) dials = routing::default_grid(fraction(std::vector<double>(trained.size(), 0.0)), table.default_dial);
  dials.push_back(table.default_dial);
  dials.push_back(1.0);
  // Thresholds decide nothing in the random control: there is its own point and the dense one.
  if (model.routing.selection == routing::Selection::random) dials = {table.default_dial, 1.0};
  std::sort(dials.begin(), dials.end());
  dials.erase(std::unique(dials.begin(), dials.end(), [](double a, double b) { return b - a < 1e-9; }), dials.end());

  nn::CalibrationWalk walk(network_, read_rows(*validation_, windows, T), compute_, config_.batch_size);
  for (size_t i = 0; i < dials.size(); ++i) {
    routing::DialPoint point;
    point.dial = dials[i];
    std::vector<double> capacity = trained;
    // Dial 1 is every token, whatever the routers themselves cost on top.
    if (dials[i] >= 1) capacity.assign(trained.size(), 1.0);
    else if (std::abs(dials[i] - table.default_dial) > 1e-9) capacity = routing::capacities_for_dial(dials[i], trained, fraction);
    walk.restart();
    point.thresholds = routing::calibrate(model.routing, capacity, [&](size_t r, const std::vector<float>& before) { return walk.scores(r, before); });
    const nn::CalibrationWalk::Figures figures = walk.finish(point.thresholds);
    point.loss = figures.loss;
    point.capacity = figures.capacity;
    point.block_fraction = fraction(figures.capacity);
    table.points.push_back(point);
    if (progress) progress(i + 1, dials.size());
  }
  return table;
}

}  // namespace fathom::train
