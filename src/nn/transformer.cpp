#include "nn/transformer.h"

#include <algorithm>

#include "core/error.h"
#include "model/cost.h"
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

void require_tunable(const model::ModelConfig& config, const std::string& where) {
  const routing::RoutingConfig& r = config.routing;
  const auto require = [&](bool holds, const char* field, const char* found, const char* expected) {
    if (!holds) throw UserError({where, str("fathom.", field), found, expected, "tuning is for converted models; `fathom train` trains the others"});
  };
  require(r.decides(), "units", "none that decides", "a unit with full and another path");
  require(r.gate == routing::Gate::hard || r.gate == routing::Gate::one_plus_tanh, "gate", name_of(r.gate, routing::kGateNames), "hard or one_plus_tanh");
  require(r.selection != routing::Selection::random, "selection", "random", "topk or threshold");
}

namespace {

void check(const model::ModelConfig& config, const ForwardOptions& options) {
  const size_t units = config.routing.units.size(), cuts = config.routing.cuts();
  const bool tuning = options.pick == Pick::straight_through;
  if (tuning) require_tunable(config, "tuning");
  FATHOM_ASSERT(!tuning || options.thresholds.empty() || options.thresholds.size() == cuts, options.thresholds.size());
  const bool causal_thresholds = options.pick == Pick::causal && config.routing.selection != routing::Selection::random;
  if (options.pick == Pick::threshold || causal_thresholds)
    FATHOM_ASSERT(options.thresholds.size() == cuts, options.thresholds.size(), " thresholds for ", cuts, " cuts");
  if (options.pick == Pick::imposed) FATHOM_ASSERT(options.imposed.size() == units);
  FATHOM_ASSERT(options.capacity.empty() || options.capacity.size() == cuts);
  for (const auto& [name, weight] : options.aux)
    FATHOM_ASSERT(name == kPredictorBce || name == kRouterBce || name == kRouterZ || name == kDistillation || name == kBudget || name == kUnitBudget,
                  "auxiliary loss ", name);
  FATHOM_ASSERT(!options.aux.contains(kDistillation) || options.teacher.defined(), "distillation without a teacher");
  const bool budgets = options.aux.contains(kBudget) || options.aux.contains(kUnitBudget);
  FATHOM_ASSERT(!(budgets || options.budget) || (tuning && options.budget), "a budget is of straight-through tuning");
  FATHOM_ASSERT(!options.aux.contains(kUnitBudget) || options.budget->shares.size() == cuts, options.budget->shares.size(), " targets of shares");
}

constexpr double kBudgetSmoothing = 1e-4;  // under the root: a gradient that goes on to the target and does not jump there

Tensor distance(const Tensor& difference) { return (difference.square() + kBudgetSmoothing).sqrt(); }

// kBudget, kUnitBudget and c from the mean gates of all cuts.
void add_budget(const model::ModelConfig& config, const ForwardOptions& options, int64_t tokens, const std::vector<Tensor>& means, ForwardResult& result) {
  const Budget& budget = *options.budget;
  const model::BlockFractionTerms terms = model::block_fraction_terms(config, budget.context > 0 ? budget.context : tokens);
  const Tensor shares = at::stack(means);  // [cuts]
  const auto like = [&](const std::vector<double>& values) { return at::tensor(at::ArrayRef<double>(values), at::kDouble).to(shares.scalar_type()); };
  const Tensor c = (shares * (like(terms.linear) + like(terms.square) * shares)).sum() + terms.fixed;
  result.block_fraction = terms.at(result.shares);
  if (options.aux.contains(kBudget)) result.aux[kBudget] = distance(c - budget.target);
  if (options.aux.contains(kUnitBudget)) result.aux[kUnitBudget] = distance(shares - like(budget.shares)).mean();
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
  if (unpadded < B * T && (options.budget || !options.aux.empty())) {
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

  std::vector<Tensor> mean_gates;  // [cuts], with a budget
  const auto record = [&](size_t unit, const Pass::Scores& scores, const Selected& full, const Selected& light) {
    RoutedResult r;
    const bool decided = scores.raw.defined();
    const Tensor raw = decided ? scores.raw.detach() : at::zeros({B * T}, at::TensorOptions().dtype(state_->type));
    const Tensor member = membership(full, raw);
    const auto bce = [&](const Tensor& logit) {
      return at::binary_cross_entropy_with_logits(real(logit), real(member), {}, {}, at::Reduction::Mean);
    };
    if (decided) {
      if (config.routing.rule == routing::CausalRule::predictor) add_aux(kPredictorBce, [&] { return bce(scores.decision); });
      add_aux(kRouterBce, [&] { return bce(scores.raw); });
      add_aux(kRouterZ, [&] { return real(scores.raw).square().mean(); });
    }
    for (size_t cut = config.routing.first_cut(unit); cut < config.routing.first_cut(unit + 1); ++cut) {
      const bool is_full = cut == config.routing.full_cut(unit);
      const double reached = static_cast<double>(full.rows.size() + (is_full ? 0 : light.rows.size()));
      result.shares.push_back(reached / static_cast<double>(std::max<int64_t>(unpadded, 1)));
    }
    r.raw = raw.view({B, T});
    r.selecting = scores.noisy.defined() ? scores.noisy.view({B, T}) : r.raw;
    r.decision = decided ? scores.decision.detach().reshape({B, T}) : r.raw;
    r.selected = member.to(at::kBool).view({B, T});
    if (config.routing.units[unit].paths.light) r.light = membership(light, raw).to(at::kBool).view({B, T});
    r.selected_count = static_cast<int64_t>(full.rows.size());
    r.token_count = unpadded;
    result.routed.push_back(std::move(r));
  };

  Stream stream = pass.embedded();
  for (size_t block = 0; block < state_->blocks.size(); ++block) {
    const auto [first, last] = config.routing.units_of(static_cast<int64_t>(block));
    if (first == last) {
      pass.dense_block(block, stream);
    } else if (config.routing.units[first].is_plain() && options.pick != Pick::straight_through) {
      Pass::Scores scores = pass.scores(first, stream);
      const Selected selected = select(pass, config, first, 0, scores, options);
      pass.routed_block(first, stream, scores, selected, options.straight_through_tau);
      record(first, scores, selected, {});
    } else {
      std::vector<Pass::Decided> decided;
      for (size_t unit = first; unit < last; ++unit) decided.push_back(pass.decide(unit, stream, options));
      pass.run_block(block, stream, decided, options.straight_through_tau);
      for (const Pass::Decided& d : decided) {
        record(d.unit, d.scores, d.full, d.light);
        for (const Tensor& gate : d.gates)
          if (options.budget) mean_gates.push_back(real(gate).mean());
      }
    }
  }

  if (options.logits) result.logits = pass.logits(stream).to(state_->type).view({B, T, config.vocab_size});
  if (batch.targets.defined()) {
    const auto distillation = options.aux.find(kDistillation);
    HeadTerms terms{.loss_weight = options.loss_weight, .weights = options.target_weights};
    if (distillation != options.aux.end()) terms.teacher = options.teacher, terms.kl_weight = distillation->second;
    const HeadLoss head = pass.loss(stream, batch.targets, terms);
    result.loss = head.loss;
    result.total = head.total;
    result.target_count = head.targets;
    if (options.token_nll) result.nll = head.nll.view({B, T});
    if (options.budget) {
      add_budget(config, options, T, mean_gates, result);
      for (const auto& [name, value] : result.aux) result.total = result.total + options.aux.at(name) * value;
    }
    if (head.kl.defined()) result.aux[kDistillation] = head.kl;  // within head.total
    const auto deciding = std::ranges::count_if(config.routing.units, [](const routing::RoutedUnit& unit) { return !unit.is_static(); });
    const double share = 1.0 / static_cast<double>(std::max<std::ptrdiff_t>(deciding, 1));
    for (const auto& [name, sum] : aux) {
      const Tensor mean = sum * share;
      result.aux[name] = mean;
      result.total = result.total + options.aux.at(name) * mean;
    }
  }
  return result;
}

}  // namespace fathom::nn
