#include "convert/fit.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "convert/kept_fits.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "infer/dense_walk.h"
#include "kernels/kernels.h"

namespace fathom::convert {
namespace {

using infer::DenseWalk;
using routing::Part;
using routing::Path;
using routing::RoutedUnit;
using Rows = DenseWalk::Rows;

constexpr double kLeast = 1e-12;  // of a ratio, before its logarithm
constexpr size_t kSlice = 512;    // tokens whose rows are gathered at a time

double mean_square(const float* x, int64_t C) { return static_cast<double>(kernels::chosen().dot(x, x, C)) / static_cast<double>(C); }

// A unit in the walk: what it reads and writes, chunk by chunk.
struct Seen {
  const Rows& rows;
  std::span<const float> input;  // [N, C] of the block: what a router reads
  std::span<const float> before; // [N, C] of the unit's part
};

class Fitter {
 public:
  Fitter(std::shared_ptr<const infer::Weights> dense, std::span<const RoutedUnit> units, std::span<const std::span<const int32_t>> windows, const FitOptions& options,
         bool with_teacher, bool with_loss, const KeptFits& kept)
      : kept_(kept), C_(dense->config().hidden_size), eps_(static_cast<float>(dense->config().rms_norm_eps)), blocks_(dense->config().num_hidden_layers), units_(units), options_(options),
        threads_(options.threads > 0 ? options.threads : available_threads()), walk_(dense, windows, engine(), options.check), fitted_(units.size()) {
    if (with_teacher) teacher_.emplace(dense, windows, engine(), options.check);
    if (with_loss) {
      const std::vector<std::span<const int32_t>> few = spread(windows);
      loss_walk_.emplace(dense, few, engine(), options.check);
      loss_ = DenseWalk(dense, few, engine(), options.check).loss_if().mean();
    }
  }

  std::vector<FittedUnit> fit() {
    through([this](size_t u) { one(u); });
    return std::move(fitted_);
  }

  // refit_light_paths().
  void refit(std::span<const ScoreFit::Score> routers, std::span<const float> skips_below, std::vector<float> thresholds, std::vector<FittedUnit>& fitted) {
    routers_ = routers;
    skips_below_ = skips_below;
    thresholds_ = std::move(thresholds);
    fitted_ = std::move(fitted);
    through([this](size_t u) {
      if (units_[u].paths.light && !units_[u].is_static()) fit_light(u);
    });
    fitted = std::move(fitted_);
  }

 private:
  void through(const std::function<void(size_t)>& each) {
    size_t u = 0;
    for (int64_t block = 0; block < blocks_; ++block) {
      size_t end = u;
      while (end < units_.size() && units_[end].block == block) ++end;
      if (u == end && u == units_.size()) break;  // what follows changes nothing
      if (teacher_) advance_teacher();
      for (; u < end; ++u) {
        if (std::optional<FittedUnit> before = kept_.find(u)) {
          fitted_[u] = std::move(*before);
        } else {
          each(u);
          kept_.keep(u, fitted_[u]);
        }
      }
      advance(end);
      if (options_.progress) options_.progress(block + 1, blocks_);
    }
  }

  infer::EngineOptions engine() const { return {.threads = options_.threads, .kernels = nullptr, .kv_bytes = 0}; }

  std::vector<std::span<const int32_t>> spread(std::span<const std::span<const int32_t>> windows) const {
    int64_t total = 0;
    for (const auto& w : windows) total += static_cast<int64_t>(w.size());
    const double share = std::min(1.0, static_cast<double>(options_.loss_tokens) / static_cast<double>(std::max<int64_t>(total, 1)));
    std::vector<std::span<const int32_t>> out;
    for (size_t i = 0; i < windows.size(); ++i)
      if (std::floor(static_cast<double>(i + 1) * share) > std::floor(static_cast<double>(i) * share)) out.push_back(windows[i]);
    if (out.empty() && !windows.empty()) out.push_back(windows[0]);
    return out;
  }

  bool routed() const { return !routers_.empty(); }
  // Whether units before and after this one meet the stream that it makes, and not the dense model's.
  bool has_its_way(const RoutedUnit& unit) const { return unit.is_static() || routed(); }

  // f(n) for n below count, by all threads.
  template <class F>
  void each(size_t count, F f) const {
    constexpr size_t kAtOnce = 32;
    threads_.parallel_for(static_cast<int64_t>((count + kAtOnce - 1) / kAtOnce), [&](int64_t task) {
      const size_t first = static_cast<size_t>(task) * kAtOnce;
      for (size_t n = first; n < std::min(first + kAtOnce, count); ++n) f(n);
    });
  }

  // The rows of a chunk that count: that take the unit's substitute, or may, as long as nobody knows who will. `skipping` gets those that are known to
  // take a skip beside a light path.
  std::vector<size_t> counted_rows(size_t u, const Seen& seen, std::vector<size_t>* skipping = nullptr) const {
    const size_t rows = seen.rows.position.size();
    enum : uint8_t { full, counts, skips };
    std::vector<uint8_t> takes(rows, counts);
    if (!units_[u].is_static())
      each(rows, [&](size_t n) {
        thread_local std::vector<float> input;
        if (seen.rows.position[n] < options_.forced_positions) {
          takes[n] = full;
        } else if (routed()) {
          const double above = score(routers_[u], seen.input.data() + n * static_cast<size_t>(C_), input) - thresholds_[seen.rows.first + n];
          takes[n] = above >= 0 ? full : above < skips_below_[u] ? skips : counts;
        }
      });
    std::vector<size_t> out;
    for (size_t n = 0; n < rows; ++n) {
      if (takes[n] == counts) out.push_back(n);
      if (takes[n] == skips && skipping) skipping->push_back(n);
    }
    return out;
  }

  // Of x / rms(x), which `u` then holds.
  double score(const ScoreFit::Score& router, const float* x, std::vector<float>& u) const {
    u.resize(static_cast<size_t>(C_));
    normed(x, u.data());
    double sum = router.bias;
    for (size_t c = 0; c < u.size(); ++c) sum += static_cast<double>(router.weight[c]) * u[c];
    return sum;
  }

  // f for every chunk of `walk`, when the unit's part has been computed. What f writes to rows.now goes on.
  void at_unit(const RoutedUnit& unit, DenseWalk::Hooks& hooks, std::function<void(const Seen&)> f) {
    switch (unit.part) {
      case Part::block: hooks.mlp = [f](const Rows& rows) { f({rows, rows.before, rows.before}); }; break;
      case Part::attention: hooks.attention = [f](const Rows& rows) { f({rows, rows.before, rows.before}); }; break;
      case Part::mlp: {
        const auto earlier = hooks.attention;  // of the block's attention unit
        hooks.attention = [this, earlier](const Rows& rows) {
          if (earlier) earlier(rows);
          between_.assign(rows.now.begin(), rows.now.end());
        };
        hooks.mlp = [this, f](const Rows& rows) { f({rows, rows.before, between_}); };
      }
    }
  }

  // x / rms(x)
  void normed(const float* x, float* to) const { kernels::chosen().rms_norm(x, C_, 1, C_, nullptr, eps_, to, C_); }

  // The rows of a chunk that count, side by side: their inputs, their deltas and the weight of their errors.
  struct Counted {
    std::vector<size_t> row;
    std::vector<float> u, delta;  // [M, C]
    std::vector<double> size;     // [M] mean square of the stream behind the unit
  };
  Counted counted(size_t u, const Seen& seen) const {
    Counted out;
    out.row = counted_rows(u, seen);
    const size_t M = out.row.size();
    out.u.resize(M * static_cast<size_t>(C_)), out.delta.resize(out.u.size()), out.size.resize(M);
    each(M, [&](size_t m) {
      const size_t at = out.row[m] * static_cast<size_t>(C_), to = m * static_cast<size_t>(C_);
      normed(seen.before.data() + at, out.u.data() + to);
      const float* const after = has_its_way(units_[u]) ? target_of(units_[u]).data() + seen.rows.first * static_cast<size_t>(C_) + at : seen.rows.now.data() + at;
      for (int64_t c = 0; c < C_; ++c) out.delta[to + static_cast<size_t>(c)] = after[c] - seen.before[at + static_cast<size_t>(c)];
      out.size[m] = std::max(mean_square(after, C_), 1e-20);
    });
    return out;
  }

  // Units of the block before u have their way.
  DenseWalk::Hooks hooks_before(size_t u) {
    DenseWalk::Hooks hooks;
    for (size_t before = 0; before < u; ++before)
      if (units_[before].block == units_[u].block && has_its_way(units_[before])) replace(before, hooks);
    return hooks;
  }

  // Runs the block, and keeps what the unit reads and writes.
  void record(size_t u) {
    for (std::vector<float>* rows : {&input_, &before_, &after_}) rows->resize(static_cast<size_t>(walk_.tokens() * C_));
    position_.resize(static_cast<size_t>(walk_.tokens()));
    DenseWalk::Hooks hooks = hooks_before(u);
    at_unit(units_[u], hooks, [this](const Seen& seen) {
      const auto keep = [&](std::span<const float> rows, std::vector<float>& to) { std::ranges::copy(rows, to.begin() + static_cast<ptrdiff_t>(seen.rows.first * static_cast<size_t>(C_))); };
      keep(seen.input, input_), keep(seen.before, before_), keep(seen.rows.now, after_);
      std::ranges::copy(seen.rows.position, position_.begin() + static_cast<ptrdiff_t>(seen.rows.first));
    });
    walk_.look(hooks);
    recorded_ = u;
  }

  // f for some hundred tokens at a time, as often as one likes: the block runs once. What f writes to rows.now stays there.
  void look(size_t u, const std::function<void(const Seen&)>& f) {
    if (recorded_ != u) record(u);
    const auto C = static_cast<size_t>(C_);
    for (size_t first = 0; first < position_.size(); first += kSlice) {
      const size_t here = std::min(kSlice, position_.size() - first);
      const Rows rows{.before = std::span(input_).subspan(first * C, here * C), .now = std::span(after_).subspan(first * C, here * C), .position = std::span(position_).subspan(first, here), .first = first};
      f({rows, rows.before, std::span(before_).subspan(first * C, here * C)});
    }
  }

  void fit_light(size_t u) {
    const RoutedUnit& unit = units_[u];
    LowRankFit fit(C_);
    look(u, [&](const Seen& seen) {
      Counted rows = counted(u, seen);
      each(rows.row.size(), [&](size_t m) {
        const float weight = static_cast<float>(1 / std::sqrt(rows.size[m]));
        for (size_t i = m * static_cast<size_t>(C_); i < (m + 1) * static_cast<size_t>(C_); ++i) rows.u[i] *= weight, rows.delta[i] *= weight;
      });
      fit.add(rows.u, rows.delta, threads_);
    });
    const int64_t rank = std::min(unit.light_rank, C_);
    if (fit.rows() >= rank) fitted_[u].light = fit.solve(rank, options_.ridge);
    else if (!routed()) throw UserError({"text", "", str(fit.rows(), " tokens behind the forced positions"), str("at least ", rank, ", the rank of the light path"), "give more text"});
  }

  void one(size_t u) {
    if (units_[u].paths.light) fit_light(u);
    if (!units_[u].is_static()) fit_router(u);
    fitted_[u].loss_increase = std::numeric_limits<double>::quiet_NaN();
    if (!loss_walk_) return;
    DenseWalk::Hooks hooks = hooks_before(u);
    replace(u, hooks);
    fitted_[u].loss_increase = loss_walk_->loss_if(hooks).mean() - loss_;
  }

  void fit_router(size_t u) {
    const RoutedUnit& unit = units_[u];
    FittedUnit& fitted = fitted_[u];
    ScoreFit fit(C_);
    double sum = 0;
    int64_t tokens = 0;
    // The cheapest path is what a token misses the full one for.
    const LowRankFit::Map nothing, &cheapest = unit.cheapest() == Path::light ? fitted.light : nothing;
    look(u, [&](const Seen& seen) {
      const Counted rows = counted(u, seen);
      const std::vector<float> light = cheapest.apply(rows.u, C_, threads_);
      std::vector<float> target(rows.row.size()), input(rows.u.size());
      std::vector<double> ratio(rows.row.size());
      each(rows.row.size(), [&](size_t m) {
        double missed = 0;
        for (size_t c = m * static_cast<size_t>(C_); c < (m + 1) * static_cast<size_t>(C_); ++c) {
          const double difference = static_cast<double>(rows.delta[c]) - light[c];
          missed += difference * difference;
        }
        ratio[m] = missed / (static_cast<double>(C_) * rows.size[m]);
        target[m] = static_cast<float>(std::log(ratio[m] + kLeast));
        normed(seen.input.data() + rows.row[m] * static_cast<size_t>(C_), input.data() + m * static_cast<size_t>(C_));
      });
      sum = std::accumulate(ratio.begin(), ratio.end(), sum), tokens += std::ssize(ratio);
      fit.add(input, target, threads_);
    });
    if (tokens == 0) throw UserError({"text", "", "no token behind the forced positions", "text to fit routers on", ""});
    fitted.router = fit.solve(options_.ridge);
    fitted.miss = sum / static_cast<double>(tokens);
    fitted.scores.resize(position_.size());
    look(u, [&](const Seen& seen) {
      each(seen.rows.position.size(), [&](size_t n) {
        thread_local std::vector<float> input;
        fitted.scores[seen.rows.first + n] = seen.rows.position[n] < options_.forced_positions ? std::numeric_limits<float>::infinity()
                                                                                                : static_cast<float>(score(fitted.router, seen.input.data() + n * static_cast<size_t>(C_), input));
      });
    });
  }

  // Every token that counts takes the unit's cheapest path, or where it is known who takes what, that.
  std::function<void(const Seen&)> replacement(size_t u) {
    return [this, u](const Seen& seen) {
      std::vector<size_t> skipping;
      const std::vector<size_t> rows = counted_rows(u, seen, &skipping);
      for (const size_t n : skipping) std::copy_n(seen.before.data() + n * static_cast<size_t>(C_), C_, seen.rows.now.data() + n * static_cast<size_t>(C_));
      std::vector<float> input(rows.size() * static_cast<size_t>(C_));
      each(rows.size(), [&](size_t m) { normed(seen.before.data() + rows[m] * static_cast<size_t>(C_), input.data() + m * static_cast<size_t>(C_)); });
      const LowRankFit::Map nothing, &cheapest = routed() || units_[u].cheapest() == Path::light ? fitted_[u].light : nothing;
      const std::vector<float> light = cheapest.apply(input, C_, threads_);
      each(rows.size(), [&](size_t m) {
        for (size_t c = 0; c < static_cast<size_t>(C_); ++c) {
          const size_t at = rows[m] * static_cast<size_t>(C_) + c;
          seen.rows.now[at] = seen.before[at] + light[m * static_cast<size_t>(C_) + c];
        }
      });
    };
  }
  void replace(size_t u, DenseWalk::Hooks& hooks) { at_unit(units_[u], hooks, replacement(u)); }

  // The dense model's stream behind the unit, [tokens, C].
  const std::vector<float>& target_of(const RoutedUnit& unit) const { return unit.part == Part::attention ? target_between_ : target_after_; }

  // The dense model through the block, which is where units that have their way are to bring the stream.
  void advance_teacher() {
    const auto keep = [this](std::vector<float>& to) {
      to.resize(static_cast<size_t>(teacher_->tokens() * C_));
      return [this, &to](const Rows& rows) { std::ranges::copy(rows.now, to.begin() + static_cast<ptrdiff_t>(rows.first * static_cast<size_t>(C_))); };
    };
    teacher_->advance({.attention = keep(target_between_), .mlp = keep(target_after_)});
  }

  // Through the block whose units end before `end`; those that have their way have it.
  void advance(size_t end) {
    DenseWalk::Hooks hooks;
    const bool any = end > 0 && units_[end - 1].block == walk_.block();
    if (any) {
      hooks = hooks_before(end - 1);
      if (has_its_way(units_[end - 1])) replace(end - 1, hooks);
    }
    if (loss_walk_) loss_walk_->advance(hooks);
    if (!any || !units_[end - 1].covers(Part::mlp)) return walk_.advance(hooks);
    look(end - 1, has_its_way(units_[end - 1]) ? replacement(end - 1) : [](const Seen&) {});  // what it wrote is the block's end
    walk_.go_on(after_);
  }

  const KeptFits& kept_;
  const int64_t C_;
  const float eps_;
  const int64_t blocks_;
  std::span<const RoutedUnit> units_;
  const FitOptions& options_;
  mutable ThreadPool threads_;
  DenseWalk walk_;                       // earlier units have their way, or those that are static
  std::optional<DenseWalk> teacher_;     // none has
  std::optional<DenseWalk> loss_walk_;   // as walk_, fewer texts
  double loss_ = 0;
  std::vector<float> between_;           // [N, C] of a chunk: behind attention
  std::vector<float> input_, before_, after_;  // [tokens, C] of the unit `recorded_`: the block's input, what it reads, what it wrote
  std::vector<int64_t> position_;        // [tokens]
  std::optional<size_t> recorded_;
  std::vector<float> target_between_, target_after_;  // [tokens, C] of the dense model, in the block at hand
  std::vector<FittedUnit> fitted_;
  std::span<const ScoreFit::Score> routers_;  // that decide who takes the light paths; empty: nobody knows yet
  std::span<const float> skips_below_;        // [units] beside them
  std::vector<float> thresholds_;             // [tokens]
};

// Where a stop came behind the pass.
std::optional<std::vector<FittedUnit>> all_of(const KeptFits& kept, size_t units) {
  std::vector<FittedUnit> out;
  while (out.size() < units) {
    std::optional<FittedUnit> unit = kept.find(out.size());
    if (!unit) return {};
    out.push_back(std::move(*unit));
  }
  return out;
}

}  // namespace

std::vector<FittedUnit> fit_units(std::shared_ptr<const infer::Weights> dense, std::span<const RoutedUnit> units, std::span<const std::span<const int32_t>> windows,
                                  const FitOptions& options) {
  const KeptFits kept(options.kept, "fit");
  if (auto before = all_of(kept, units.size())) return std::move(*before);
  return Fitter(std::move(dense), units, windows, options, std::ranges::any_of(units, &RoutedUnit::is_static), options.loss_tokens > 0, kept).fit();
}

void refit_light_paths(std::shared_ptr<const infer::Weights> dense, std::span<const RoutedUnit> units, std::span<const ScoreFit::Score> routers, std::span<const float> skips_below,
                       std::span<const std::span<const int32_t>> windows, std::span<const float> thresholds, const FitOptions& options, std::vector<FittedUnit>& fitted) {
  FATHOM_ASSERT(routers.size() == units.size() && skips_below.size() == units.size() && fitted.size() == units.size() && !units.empty() && thresholds.size() == windows.size());
  const KeptFits kept(options.kept, "refit");
  if (auto before = all_of(kept, units.size())) return void(fitted = std::move(*before));
  std::vector<float> of_tokens;
  for (size_t i = 0; i < windows.size(); ++i) of_tokens.insert(of_tokens.end(), windows[i].size(), thresholds[i]);
  Fitter(std::move(dense), units, windows, options, true, false, kept).refit(routers, skips_below, std::move(of_tokens), fitted);
}

}  // namespace fathom::convert
