#include "train/health.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fathom::train {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kAlmostAll = 0.999, kAlmostNone = 0.001;  // shares that count as all and none
constexpr double kExplained = 0.9;                         // position alone decides
constexpr int64_t kRowsToJudge = 8;                        // fewer rows say nothing about position

double ratio(int64_t a, int64_t b) { return b > 0 ? static_cast<double>(a) / static_cast<double>(b) : kNaN; }

}  // namespace

void RouterHealth::add_selection(const std::vector<nn::RoutedResult>& result) {
  FATHOM_ASSERT(result.size() == blocks_.size(), result.size());
  if (result.empty()) return;
  const int64_t B = result[0].selected.size(0), T = result[0].selected.size(1);
  std::vector<uint8_t> any(static_cast<size_t>(B * T), 0);
  for (size_t r = 0; r < result.size(); ++r) {
    Counts& c = blocks_[r];
    const at::Tensor run = result[r].selected.contiguous();
    const bool* p = run.const_data_ptr<bool>();
    c.by_position.resize(std::max(c.by_position.size(), static_cast<size_t>(T)), 0);
    for (int64_t i = 0; i < B * T; ++i) {
      c.by_position[static_cast<size_t>(i % T)] += p[i];
      any[static_cast<size_t>(i)] |= p[i];
    }
    c.rows += B;
    c.ran += result[r].selected_count;
    c.tokens += result[r].token_count;
  }
  tokens_ += result[0].token_count;
  never_ += result[0].token_count - std::count(any.begin(), any.end(), 1);
}

void RouterHealth::count(size_t r, const at::Tensor& truth, const at::Tensor& causal) {
  Counts& c = blocks_[r];
  c.compared += truth.numel();
  c.truth += truth.sum().item<int64_t>();
  c.causal += causal.sum().item<int64_t>();
  c.both += truth.logical_and(causal).sum().item<int64_t>();
  c.equal += truth.eq(causal).sum().item<int64_t>();
}

void RouterHealth::add(const std::vector<nn::RoutedResult>& result, const std::vector<float>& thresholds, const at::Tensor& forced) {
  add_selection(result);
  if (thresholds.empty()) return;
  for (size_t r = 0; r < result.size(); ++r) {
    const at::Tensor above = result[r].decision.ge(thresholds[r]);
    count(r, result[r].selected, forced.defined() ? above.logical_or(forced) : above);
  }
}

void RouterHealth::add_pair(const std::vector<nn::RoutedResult>& truth, const std::vector<nn::RoutedResult>& causal) {
  add_selection(causal);
  for (size_t r = 0; r < truth.size(); ++r) count(r, truth[r].selected, causal[r].selected);
}

std::vector<RouterHealth::Block> RouterHealth::blocks() const {
  std::vector<Block> out;
  for (const Counts& c : blocks_) {
    Block b;
    b.share = ratio(c.ran, c.tokens);
    b.agreement = ratio(c.equal, c.compared);
    b.precision = ratio(c.both, c.causal);
    b.recall = ratio(c.both, c.truth);
    // Variance of the rate between positions, less what chance alone gives with so many rows, over the whole variance.
    double mean = 0, between = 0, chance = 0;
    const double T = static_cast<double>(c.by_position.size()), N = static_cast<double>(c.rows);
    for (const int64_t n : c.by_position) mean += static_cast<double>(n) / N / T;
    for (const int64_t n : c.by_position) {
      const double p = static_cast<double>(n) / N;
      between += (p - mean) * (p - mean) / T;
      if (N > 1) chance += p * (1 - p) / (N - 1) / T;
    }
    const double all = mean * (1 - mean);
    b.position = all > 0 && N > 1 ? std::clamp((between - chance) / all, 0.0, 1.0) : 0;
    out.push_back(b);
  }
  return out;
}

double RouterHealth::never() const { return tokens_ > 0 ? ratio(never_, tokens_) : 0; }

std::vector<std::string> RouterHealth::warnings(const std::vector<int>& block_index, const std::vector<double>& capacity) const {
  std::vector<std::string> out;
  const std::vector<Block> all = blocks();
  for (size_t r = 0; r < all.size(); ++r) {
    if (capacity[r] >= kAlmostAll) continue;
    const std::string who = str("block ", block_index[r], " has collapsed: ");
    if (all[r].share > kAlmostAll) out.push_back(who + str("every token runs it (capacity ", capacity[r], ")"));
    else if (all[r].share < std::min(kAlmostNone, capacity[r] / 10)) out.push_back(who + str("no token runs it (capacity ", capacity[r], ")"));
    else if (all[r].position > kExplained && blocks_[r].rows >= kRowsToJudge)
      out.push_back(who + str("position alone decides who runs it (", std::llround(all[r].position * 100), " % explained)"));
  }
  return out;
}

Json RouterHealth::to_json() const {
  Json share = Json::array(), agreement = Json::array(), precision = Json::array(), recall = Json::array(), position = Json::array();
  for (const Block& b : blocks()) {
    share.push_back(b.share);
    agreement.push_back(b.agreement);
    precision.push_back(b.precision);
    recall.push_back(b.recall);
    position.push_back(b.position);
  }
  Json out = {{"share", share}, {"position", position}, {"never", never()}};
  if (!blocks_.empty() && blocks_[0].compared > 0) out.update({{"agreement", agreement}, {"precision", precision}, {"recall", recall}});
  return out;
}

}  // namespace fathom::train
