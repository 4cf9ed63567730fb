#include "tune/rows.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace fathom::tune {
namespace {

// Row `from` of one batch becomes row `to` of another.
void copy_row(const train::Batch& from, train::Batch& to, int64_t row) {
  for (std::vector<int32_t> train::Batch::* part : {&train::Batch::input, &train::Batch::target, &train::Batch::document_start})
    std::ranges::copy(from.*part, (to.*part).begin() + row * to.tokens);
}

}  // namespace

// floor(row · share), safe from what doubles lose.
int64_t Rows::others_before(const TuneConfig& config, int64_t row) {
  return config.other.empty() ? 0 : static_cast<int64_t>(std::floor(static_cast<double>(row) * config.other_share + 1e-6));
}

train::LoaderState Rows::state_after(const TuneConfig& config, const train::Corpus& corpus, int64_t rows) {
  return train::state_after(*corpus.train, config.sequence_length, config.seed, rows - others_before(config, rows));
}

Rows::Rows(const TuneConfig& config, const train::Corpus& corpus, const train::Corpus* other, int64_t first) : config_(config), row_(first) {
  const int64_t T = config.sequence_length, at_once = other ? 1 : config.batch_size;
  text_ = std::make_unique<train::Loader>(corpus.train, at_once, T, state_after(config, corpus, first));
  if (other) other_ = std::make_unique<train::Loader>(other->train, 1, T, train::state_after(*other->train, T, config.seed, others_before(config, first)));
}

Rows::Some Rows::next() {
  Some out;
  if (!other_) {
    out.batch = text_->next();
    row_ += out.batch.rows;
    out.targets = static_cast<double>(std::ranges::count_if(out.batch.target, [](int32_t t) { return t != train::kIgnore; }));
    return out;
  }
  const int64_t T = config_.sequence_length;
  out.batch = train::empty_batch(config_.batch_size, T);
  out.weights = at::ones({config_.batch_size * T}, at::kFloat);
  for (int64_t row = 0; row < config_.batch_size; ++row, ++row_) {
    const bool other = others_before(config_, row_ + 1) > others_before(config_, row_);
    const train::Batch one = (other ? other_ : text_)->next();
    copy_row(one, out.batch, row);
    const double weight = other ? config_.other_weight : 1;
    out.weights.narrow(0, row * T, T).fill_(weight);
    out.targets += weight * static_cast<double>(std::ranges::count_if(one.target, [](int32_t t) { return t != train::kIgnore; }));
  }
  return out;
}

}  // namespace fathom::tune
