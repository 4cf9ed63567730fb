#include "study/sensitivity.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "formats/svg.h"
#include "infer/dense_walk.h"

namespace fathom::study {
namespace {

using infer::DenseWalk;
using routing::Part;

constexpr std::array kParts = {Part::block, Part::attention, Part::mlp};

double distance(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(a[i]) - (b ? b[i] : 0.0f);
    sum += d * d;
  }
  return std::sqrt(sum);
}

class Meter {
 public:
  Meter(std::shared_ptr<const infer::Weights> dense, std::span<const std::span<const int32_t>> windows, const SensitivityOptions& options)
      : C_(dense->config().hidden_size), L_(dense->config().num_hidden_layers), options_(options),
        walk_(std::move(dense), windows, {.threads = options.threads, .kernels = nullptr, .kv_bytes = 0}, options.check) {}

  Sensitivity run() {
    Sensitivity out;
    const DenseWalk::Loss whole = walk_.loss_if();
    out.loss = whole.mean(), out.tokens = whole.predicted, out.share = options_.share;
    for (int64_t block = 0; block < L_; ++block) {
      Sensitivity::Block b;
      for (const auto& [part, one] : {std::pair(Part::block, &b.block), {Part::attention, &b.attention}, {Part::mlp, &b.mlp}}) {
        one->all = walk_.loss_if(without(part, 1, nullptr)).mean() - out.loss;
        double change = 0;
        one->least = walk_.loss_if(without(part, options_.share, &change)).mean() - out.loss;
        one->change = change / static_cast<double>(walk_.tokens());
      }
      out.blocks.push_back(b);
      walk_.advance();
      if (options_.progress) options_.progress(block + 1, L_);
    }
    return out;
  }

 private:
  // The share of tokens that the part changes least get the stream back as it was before the part.
  DenseWalk::Hooks without(Part part, double share, double* change) {
    const auto undo = [this, share, change](const DenseWalk::Rows& rows, std::span<const float> before) {
      const int64_t N = std::ssize(rows.position);
      ratio_.resize(static_cast<size_t>(N));
      order_.clear();
      for (int64_t n = 0; n < N; ++n) {
        const float* const was = before.data() + n * C_;
        ratio_[static_cast<size_t>(n)] = distance(rows.now.data() + n * C_, was, C_) / std::max(distance(was, nullptr, C_), 1e-30);
        if (rows.position[static_cast<size_t>(n)] >= options_.forced_positions) order_.push_back(n);
      }
      if (change) *change += std::accumulate(ratio_.begin(), ratio_.end(), 0.0);
      const auto count = static_cast<ptrdiff_t>(std::llround(share * static_cast<double>(order_.size())));
      const auto less = [&](int64_t a, int64_t b) {
        const double x = ratio_[static_cast<size_t>(a)], y = ratio_[static_cast<size_t>(b)];
        return x != y ? x < y : a < b;
      };
      if (count < std::ssize(order_)) std::nth_element(order_.begin(), order_.begin() + count, order_.end(), less);
      for (ptrdiff_t i = 0; i < count; ++i) std::copy_n(before.data() + order_[static_cast<size_t>(i)] * C_, C_, rows.now.data() + order_[static_cast<size_t>(i)] * C_);
    };
    if (part == Part::attention) return {.attention = [undo](const auto& rows) { undo(rows, rows.before); }, .mlp = {}};
    if (part == Part::block) return {.attention = {}, .mlp = [undo](const auto& rows) { undo(rows, rows.before); }};
    return {.attention = [this](const auto& rows) { between_.assign(rows.now.begin(), rows.now.end()); }, .mlp = [this, undo](const auto& rows) { undo(rows, between_); }};
  }

  const int64_t C_, L_;
  const SensitivityOptions& options_;
  DenseWalk walk_;
  std::vector<double> ratio_;    // [N] of a chunk
  std::vector<int64_t> order_;
  std::vector<float> between_;   // [N, C] behind attention
};

}  // namespace

Json Sensitivity::to_json() const {
  Json j = {{"loss", loss}, {"tokens", tokens}, {"share", share}, {"blocks", Json::array()}};
  for (size_t i = 0; i < blocks.size(); ++i) {
    Json b = {{"index", i}};
    for (const Part part : kParts) {
      const One& one = blocks[i].of(part);
      b[name_of(part, routing::kPartNames)] = {{"all", one.all}, {"least", one.least}, {"change", one.change}};
    }
    j["blocks"].push_back(std::move(b));
  }
  return j;
}

std::string Sensitivity::chart() const {
  constexpr double kFloor = 1e-4;
  formats::Chart chart{.title = "Loss without a block, its attention or its MLP", .x = {.label = "block"}, .y = {.label = str("nats per token over the model's loss; ", kFloor, " where it is less"), .log = true}};
  int color = 0;
  for (const Part part : kParts) {
    const std::string name = part == Part::block ? "block" : part == Part::attention ? "attention" : "MLP";
    for (const bool least : {false, true}) {
      formats::Series s{.name = name + (least ? ", tokens it changes least" : ", all tokens"), .dashed = least, .markers = true, .color = color};
      for (size_t i = 0; i < blocks.size(); ++i) {
        s.x.push_back(static_cast<double>(i));
        s.y.push_back(std::max(least ? blocks[i].of(part).least : blocks[i].of(part).all, kFloor));  // what costs nothing, or less, is the best to leave out
      }
      chart.series.push_back(std::move(s));
    }
    ++color;
  }
  return formats::line_chart(chart);
}

Sensitivity measure_sensitivity(std::shared_ptr<const infer::Weights> dense, std::span<const std::span<const int32_t>> windows, const SensitivityOptions& options) {
  if (!dense->config().routing.dense()) throw UserError({"the model", "", "routed units", "a dense model", "measure the model that it was made of"});
  return Meter(std::move(dense), windows, options).run();
}

}  // namespace fathom::study
