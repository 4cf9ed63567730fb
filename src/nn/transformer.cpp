#include "nn/transformer.h"

#include "core/error.h"
#include "nn/pass.h"

namespace fathom::nn {

using at::Tensor;

Pick pick_of(routing::Selection selection) {
  switch (selection) {
    case routing::Selection::topk: return Pick::topk;
    case routing::Selection::threshold: return Pick::threshold;
    case routing::Selection::random: return Pick::random;
  }
  return Pick::topk;
}

namespace {

// 1 at unpadded tokens that ran, 0 elsewhere, [N] in the scores' type.
Tensor membership(const Selected& selected, const Tensor& like) {
  Tensor member = at::zeros_like(like);
  const Tensor rows = at::tensor(at::ArrayRef<int64_t>(selected.rows), at::kLong);
  return member.index_fill_(0, rows, 1.0);
}

void check(const model::ModelConfig& config, const ForwardOptions& options) {
  const size_t routed = config.routing.units.size();
  const bool causal_thresholds = options.pick == Pick::causal && config.routing.selection != routing::Selection::random;
  if (options.pick == Pick::threshold || causal_thresholds)
    FATHOM_ASSERT(options.thresholds.size() == routed, options.thresholds.size(), " thresholds for ", routed, " routed blocks");
  if (options.pick == Pick::imposed) FATHOM_ASSERT(options.imposed.size() == routed);
  FATHOM_ASSERT(options.capacity.empty() || options.capacity.size() == routed);
  for (const auto& [name, weight] : options.aux)
    FATHOM_ASSERT(name == kPredictorBce || name == kRouterBce || name == kRouterZ, "auxiliary loss ", name);
}

}  // namespace

ForwardResult Transformer::forward(const Batch& batch, const ForwardOptions& options) {
  const model::ModelConfig& config = state_->config;
  check(config, options);
  const Pass pass(*state_, batch, options.compute);
  const Rows& rows = pass.rows();
  const int64_t B = rows.batch, T = rows.tokens, unpadded = rows.token_count();

  ForwardResult result;
  // Sums over blocks of a mean over unpadded tokens.
  std::map<std::string, Tensor> aux;
  Tensor real_rows;  // [unpadded] row numbers, when there is padding
  if (unpadded < B * T && !options.aux.empty()) {
    std::vector<int64_t> real;
    for (int64_t b = 0; b < B; ++b)
      for (int64_t t = 0; t < rows.length[static_cast<size_t>(b)]; ++t) real.push_back(b * T + t);
    real_rows = at::tensor(at::ArrayRef<int64_t>(real), at::kLong);
  }
  const auto real = [&](const Tensor& t) { return real_rows.defined() ? t.index_select(0, real_rows) : t; };
  const auto add_aux = [&](const char* name, const auto& make) {
    if (!options.aux.contains(name) || unpadded == 0) return;
    const Tensor value = make();
    Tensor& sum = aux[name];
    sum = sum.defined() ? sum + value : value;
  };

  Stream stream = pass.embedded();
  for (size_t block = 0; block < state_->blocks.size(); ++block) {
    const int routed = config.routing.unit_of(static_cast<int64_t>(block), routing::Part::attention);
    if (routed < 0) {
      pass.dense_block(block, stream);
      continue;
    }
    Pass::Scores scores = pass.scores(block, stream);
    const Selected selected = select(options.pick, pass, config, static_cast<size_t>(routed), scores, options);
    const Tensor member = membership(selected, scores.raw.detach());
    pass.routed_block(block, stream, scores, selected, options.straight_through_tau);

    const auto bce = [&](const Tensor& logit) {
      return at::binary_cross_entropy_with_logits(real(logit), real(member), {}, {}, at::Reduction::Mean);
    };
    if (config.routing.rule == routing::CausalRule::predictor) add_aux(kPredictorBce, [&] { return bce(scores.decision); });
    add_aux(kRouterBce, [&] { return bce(scores.raw); });
    add_aux(kRouterZ, [&] { return real(scores.raw).square().mean(); });

    RoutedResult r;
    r.raw = scores.raw.detach().view({B, T});
    r.selecting = scores.noisy.defined() ? scores.noisy.view({B, T}) : r.raw;
    r.decision = scores.decision.detach().reshape({B, T});
    r.selected = member.to(at::kBool).view({B, T});
    r.selected_count = static_cast<int64_t>(selected.rows.size());
    r.token_count = unpadded;
    result.routed.push_back(std::move(r));
  }

  if (options.logits) result.logits = pass.logits(stream).to(state_->type).view({B, T, config.vocab_size});
  if (batch.targets.defined()) {
    const HeadLoss head = pass.loss(stream, batch.targets);
    result.loss = result.total = head.loss;
    result.target_count = head.targets;
    if (options.token_nll) result.nll = head.nll.view({B, T});
    const double share = 1.0 / static_cast<double>(std::max<size_t>(config.routing.units.size(), 1));
    for (const auto& [name, sum] : aux) {
      const Tensor mean = sum * share;
      result.aux[name] = mean;
      result.total = result.total + options.aux.at(name) * mean;
    }
  }
  return result;
}

}  // namespace fathom::nn
