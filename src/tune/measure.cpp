#include "tune/measure.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/human.h"
#include "model/cost.h"
#include "routing/shift.h"
#include "train/evaluate.h"

namespace fathom::tune {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

Json Standing::to_json() const {
  Json j = {{"dial", dial}, {"block_fraction", block_fraction}, {"loss", loss}, {"shares", shares}};
  if (!std::isnan(kl)) j.update({{"kl", kl}, {"agreement", agreement}});
  return j;
}

Measure::Measure(nn::Transformer& network, const data::Dataset& validation, int64_t tokens, int64_t row_tokens, int64_t rows_at_once, nn::Compute compute, Teacher* teacher)
    : network_(network), row_tokens_(row_tokens), compute_(compute), teacher_loss_(kNone) {
  const std::vector<int64_t> begins = train::evaluation_windows(validation, tokens, row_tokens, 0, 1);
  double sum = 0, forced = 0, tokens_read = 0;
  for (size_t first = 0; first < begins.size(); first += static_cast<size_t>(rows_at_once)) {
    const train::Batch batch = train::read_batch(validation, std::span(begins).subspan(first, std::min(begins.size() - first, static_cast<size_t>(rows_at_once))), row_tokens);
    for (size_t i = 0; i < batch.input.size(); ++i, ++tokens_read)
      forced += static_cast<int64_t>(i) % batch.tokens - batch.document_start[i] < network.config().routing.forced_positions;
    Part part{train::to_tensors(batch), {}};
    if (teacher) {
      Teacher::Answer answer = teacher->ask(batch);
      part.teacher = std::move(answer.said);
      sum += answer.nll;
      targets_ += answer.targets;
    } else {
      targets_ += std::ranges::count_if(batch.target, [](int32_t t) { return t != train::kIgnore; });
    }
    parts_.push_back(std::move(part));
  }
  forced_ = forced / std::max(tokens_read, 1.0);
  if (teacher && targets_ > 0) teacher_loss_ = sum / static_cast<double>(targets_);
}

Standing Measure::at(double dial, const std::vector<float>& thresholds, bool beside_teacher) {
  const at::NoGradGuard no_grad;
  const model::ModelConfig& config = network_.config();
  Standing s{.dial = dial, .kl = kNone, .agreement = kNone, .shares = std::vector<double>(config.routing.cuts(), 0.0)};
  double loss = 0, kl = 0, agreed = 0, rows = 0;
  for (const Part& part : parts_) {
    nn::ForwardOptions options;
    options.pick = nn::Pick::causal;
    options.thresholds = thresholds;
    options.compute = compute_;
    const bool beside = beside_teacher && part.teacher.defined();
    if (beside) {
      options.teacher = part.teacher;
      options.aux[nn::kDistillation] = 1;
      options.logits = true;
    }
    const nn::ForwardResult r = network_.forward(part.batch, options);
    const double n = static_cast<double>(r.target_count), part_rows = static_cast<double>(part.batch.tokens.size(0));
    loss += n * r.loss.item<double>();
    rows += part_rows;
    for (size_t cut = 0; cut < s.shares.size(); ++cut) s.shares[cut] += part_rows * r.shares[cut];
    if (!beside) continue;
    kl += n * r.aux.at(nn::kDistillation).item<double>();
    const at::Tensor counts = part.batch.targets.reshape({-1}).ne(nn::kIgnored);
    const at::Tensor best = part.teacher.logits.defined() ? part.teacher.logits.argmax(-1) : part.teacher.ids.select(1, 0).to(at::kLong);
    agreed += (r.logits.reshape({-1, config.vocab_size}).argmax(-1).eq(best) & counts).sum().item<double>();
  }
  const double n = static_cast<double>(std::max<int64_t>(targets_, 1));
  s.loss = loss / n;
  if (beside_teacher && !parts_.empty() && parts_[0].teacher.defined()) s.kl = kl / n, s.agreement = agreed / n;
  for (double& share : s.shares) share /= std::max(rows, 1.0);
  s.block_fraction = config.routing.decides() ? model::expected_block_fraction(config, row_tokens_, s.shares) : model::expected_block_fraction(config, row_tokens_, {});
  return s;
}

std::vector<double> Measure::shares_at(double dial, const std::vector<float>& thresholds) {
  return routing::ThresholdShift(thresholds, [&](const std::vector<float>& moved) {
           const Standing s = at(dial, moved, false);
           return routing::ThresholdShift::Met{{.dial = dial, .block_fraction = s.block_fraction, .thresholds = moved, .capacity = s.shares, .loss = s.loss}};
         }).find(dial).capacity;
}

std::string describe(const Standing& s, double teacher_loss) {
  std::string out = str("thresholds of ", fixed(s.dial, 2), ": ", percent(s.block_fraction), " of the blocks, loss ", fixed(s.loss, 4));
  if (!std::isnan(teacher_loss)) out += str(s.loss >= teacher_loss ? " (+" : " (", fixed(s.loss - teacher_loss, 4), "), ", percent(s.agreement), " agree");
  return out;
}

}  // namespace fathom::tune
