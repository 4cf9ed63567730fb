#include "study/divergence.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/thread_pool.h"
#include "study/statistics.h"

namespace fathom::study {
namespace {

double log_sum_exp(std::span<const float> logits) {
  double most = -INFINITY, sum = 0;
  for (const float x : logits) most = std::max<double>(most, x);
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - most);
  return most + std::log(sum);
}

// The lowest index among the greatest, as the kernels' argmax.
size_t argmax(std::span<const float> logits) { return static_cast<size_t>(std::ranges::max_element(logits) - logits.begin()); }

// One engine on its way through a window.
class Reader {
 public:
  Reader(const Subject& subject, Divergence::Side& side)
      : engine_(*subject.engine), policy_(policy_of(subject, infer::Rule::causal, {})), sequence_(engine_.new_sequence()), side_(side) {}

  void begin() {
    sequence_.clear();
    decisions_ = {};
  }
  const infer::StepResult& read(std::span<const int32_t> tokens) {
    const infer::WorkItem item{.sequence = &sequence_, .tokens = tokens, .policy = &policy_, .logits = infer::Logits::all};
    engine_.forward({&item, 1}, result_);
    result_.append_decisions(0, decisions_);
    return result_;
  }
  void end(int64_t tokens) {
    side_.spent += model::forward_cost(engine_.config(), tokens, decisions_, tokens);
    side_.dense += model::dense_cost(engine_.config(), tokens, tokens);
  }

 private:
  infer::Engine& engine_;
  infer::RoutingPolicy policy_;
  infer::Sequence sequence_;
  infer::StepResult result_;
  routing::Decisions decisions_;
  Divergence::Side& side_;
};

struct Token {
  double nll_original = 0, nll_result = 0, kl = 0;
  bool agreed = false;
};

Token compare(std::span<const float> original, std::span<const float> result, int32_t next) {
  Token t;
  t.nll_original = log_sum_exp(original) - original[static_cast<size_t>(next)];
  t.nll_result = log_sum_exp(result) - result[static_cast<size_t>(next)];
  t.kl = kl_divergence(original, result);
  t.agreed = argmax(original) == argmax(result);
  return t;
}

}  // namespace

double kl_divergence(std::span<const float> original, std::span<const float> result) {
  FATHOM_ASSERT(original.size() == result.size() && !original.empty(), original.size(), " and ", result.size());
  const double zp = log_sum_exp(original), zq = log_sum_exp(result);
  double sum = 0;
  for (size_t i = 0; i < original.size(); ++i) {
    const double p = static_cast<double>(original[i]) - zp, q = static_cast<double>(result[i]) - zq;
    sum += std::exp(p) * (p - q);
  }
  return sum;
}

double Divergence::Side::perplexity(int64_t tokens) const { return std::exp(nll / static_cast<double>(tokens)); }
double Divergence::Side::block_fraction() const { return model::block_fraction(spent, dense); }

Interval Divergence::kl_interval() const {
  return ratio_interval(units, [](const UnitSum& u) { return u.nll; }, [](const UnitSum& u) { return static_cast<double>(u.tokens); });
}

Json Divergence::to_json() const {
  const auto number = [](double x) { return std::isfinite(x) ? Json(x) : Json(); };
  const auto side = [&](const Side& s) {
    return Json{{"loss", number(s.nll / static_cast<double>(tokens))}, {"perplexity", number(s.perplexity(tokens))}, {"block_fraction", number(s.block_fraction())}};
  };
  const Interval interval = kl_interval();
  return {{"tokens", tokens}, {"windows", windows}, {"context", context}, {"original", side(original)}, {"result", side(result)},
          {"kl_divergence", {{"value", number(mean_kl())}, {"ci95", number(interval.half)}, {"units", interval.units}}},
          {"intervals_over", by_stretch ? "stretches" : "documents"}, {"top1_agreement", number(agreement())}, {"seconds", seconds}};
}

Divergence diverge(const Subject& original, const Subject& result, const HeldOut& text, const EvaluateProgress& progress, int64_t chunk) {
  FATHOM_ASSERT(chunk >= 1, chunk);
  const int64_t V = original.engine->config().vocab_size;
  if (result.engine->config().vocab_size != V)
    throw UserError({result.folder->path(), "vocab_size", str(result.engine->config().vocab_size), str(V, ", that of ", original.folder->path()), ""});
  Divergence d;
  d.windows = static_cast<int64_t>(text.windows.size());
  d.units.resize(text.units);
  d.by_stretch = text.by_stretch;
  Reader a(original, d.original), b(result, d.result);
  ThreadPool threads(original.engine->threads());
  std::vector<Token> tokens;
  const auto begin = std::chrono::steady_clock::now();
  for (const Window& w : text.windows) {
    const int64_t size = static_cast<int64_t>(w.tokens.size());
    d.context = std::max(d.context, size);
    a.begin(), b.begin();
    for (int64_t at = 0; at < size; at += chunk) {
      const int64_t here = std::min(chunk, size - at), predicted = std::min(here, size - 1 - at);  // the last token predicts nothing
      const auto part = w.tokens.subspan(static_cast<size_t>(at), static_cast<size_t>(here));
      const infer::StepResult &one = a.read(part), &other = b.read(part);
      tokens.resize(static_cast<size_t>(predicted));
      threads.parallel_for(predicted, [&](int64_t t) {
        tokens[static_cast<size_t>(t)] = compare(one.logits_of(0, t), other.logits_of(0, t), w.tokens[static_cast<size_t>(at + t + 1)]);
      });
      for (const Token& t : tokens) {
        if (!std::isfinite(t.nll_original) || !std::isfinite(t.nll_result) || !std::isfinite(t.kl))
          throw UserError({(std::isfinite(t.nll_original) ? result : original).folder->path(), str("document ", w.document), "a logit that is not finite", "numbers", "are its weights damaged?"});
        d.original.nll += t.nll_original, d.result.nll += t.nll_result, d.kl += t.kl;
        d.agreed += t.agreed;
        d.units[w.unit].nll += t.kl;
      }
      d.units[w.unit].tokens += predicted, d.tokens += predicted;
      if (progress) progress(d.tokens, text.predicted, d.tokens > 0 ? d.mean_kl() : 0);
    }
    a.end(size), b.end(size);
  }
  d.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return d;
}

}  // namespace fathom::study
