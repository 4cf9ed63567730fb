// What a run says of itself while it goes: lines, histograms and warnings of metrics.jsonl, and the terminal's.
#include "train/run.h"

#include <algorithm>

#include "core/human.h"
#include "core/log.h"

namespace fathom::train {

// What matrix products of this machine reach in the type that the run computes in, FLOP/s.
double Run::reach() const {
  if (computing_.compute == nn::Compute::bf16) return 1e9 * std::max(computing_.matmul.bf16_gflops, 1e-9);
  return 1e9 * std::max(nn::f32_route() == nn::F32Route::mkl ? computing_.matmul.mkl_gflops : computing_.matmul.onednn_gflops, 1e-9);
}

void Run::measure_again() {
  const nn::MatmulReport again = nn::measure_matmul();
  computing_.matmul.mkl_gflops = std::max(computing_.matmul.mkl_gflops, again.mkl_gflops);
  computing_.matmul.onednn_gflops = std::max(computing_.matmul.onednn_gflops, again.onednn_gflops);
  computing_.matmul.bf16_gflops = std::max(computing_.matmul.bf16_gflops, again.bf16_gflops);
}

void Run::log(const std::vector<Batch>& batches, const std::vector<nn::ForwardResult>& results, const std::vector<double>& capacity, double lr, double norm) {
  Progression& p = now_.progression;
  if ((p.step % config_.interval.log_steps != 0 && p.step != p.total) || p.loss_count == 0) return;
  const double seconds = std::max(p.seconds - logged_.seconds, 1e-9);
  flops_per_second_ = (p.flops - logged_.flops) / seconds;
  // Other work on the machine can spoil the measurement at the start, and then a share of it would exceed the whole.
  if (flops_per_second_ > 0.9 * reach()) measure_again();
  Json line = {{"type", "train"}, {"step", p.step}, {"tokens", p.tokens}, {"flops", p.flops}, {"seconds", p.seconds},
               {"loss", p.loss_sum / static_cast<double>(p.loss_count)}, {"lr", lr}, {"gradient_norm", norm},
               {"tokens_per_second", static_cast<double>(p.tokens - logged_.tokens) / seconds},
               {"flops_per_second", flops_per_second_}, {"share_of_matmul", flops_per_second_ / reach()}};
  for (const auto& [name, value] : results[0].aux) {
    double sum = 0;
    for (const nn::ForwardResult& r : results) sum += r.aux.at(name).item<double>() / static_cast<double>(results.size());
    line["aux"][name] = sum;
  }
  if (!capacity.empty()) {
    RouterHealth health(capacity.size());
    // The random control has no causal rule of its own to agree with.
    const bool compare = config_.model.routing.selection != routing::Selection::random;
    for (size_t part = 0; part < results.size(); ++part)
      health.add(results[part].routed, compare ? now_.quantiles.decision : std::vector<float>(), forced_tokens(batches[part], config_.model.routing.forced_positions));
    line.update(health.to_json());
    line["capacity"] = capacity;
    // Without a threshold yet (trainer.h, Quantiles) all tokens run, which says nothing of the router.
    const bool decided = config_.model.routing.selection != routing::Selection::threshold || now_.quantiles.updates > 1;
    if (decided) warn_of(health, capacity);
  }
  metrics_->write(line);
  if (config_.interval.eval_steps > 0 && p.step % config_.interval.eval_steps == 0) histograms(results);
  p.loss_sum = 0;
  p.loss_count = 0;
  logged_ = p;
}

void Run::histograms(const std::vector<nn::ForwardResult>& results) {
  for (size_t r = 0; r < results[0].routed.size(); ++r) {
    const at::Tensor scores = results[0].routed[r].decision.to(at::kFloat).contiguous();
    metrics_->histogram(str("score/", r), now_.progression.step,
                        {scores.const_data_ptr<float>(), static_cast<size_t>(scores.numel())});
  }
}

void Run::warn_of(const RouterHealth& health, const std::vector<double>& capacity) {
  if (config_.model.routing.selection == routing::Selection::random) return;  // by position alone: that is the control
  std::vector<int> index;
  for (const routing::RoutedUnit& b : config_.model.routing.units) index.push_back(b.block);
  for (const std::string& text : health.warnings(index, capacity)) {
    metrics_->write({{"type", "warning"}, {"step", now_.progression.step}, {"text", text}});
    // In the file every time, at the terminal once for each block and kind.
    if (warned_.insert(text.substr(0, text.find('('))).second) log_warning("step ", now_.progression.step, ": ", text);
  }
}

}  // namespace fathom::train
