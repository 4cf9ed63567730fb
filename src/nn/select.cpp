#include "nn/select.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "routing/select.h"

namespace fathom::nn {

int64_t Rows::token_count() const { return std::accumulate(length.begin(), length.end(), int64_t{0}); }

namespace {

// Visits every unpadded token in order and keeps those that `keep(b, t, i)` (i = b·T + t) wants.
template <class Keep>
Selected select_each(const Rows& rows, const Keep& keep) {
  Selected s;
  s.begin.reserve(static_cast<size_t>(rows.batch + 1));
  s.begin.push_back(0);
  for (int64_t b = 0; b < rows.batch; ++b) {
    for (int64_t t = 0; t < rows.length[static_cast<size_t>(b)]; ++t)
      if (keep(b, t, b * rows.tokens + t)) s.rows.push_back(b * rows.tokens + t);
    s.begin.push_back(static_cast<int64_t>(s.rows.size()));
  }
  s.all = static_cast<int64_t>(s.rows.size()) == rows.batch * rows.tokens;
  return s;
}

}  // namespace

template <class Real>
Selected select_top_k(std::span<const Real> scores, const Rows& rows, double capacity, int64_t forced) {
  FATHOM_ASSERT(static_cast<int64_t>(scores.size()) == rows.batch * rows.tokens);
  Selected s;
  s.begin.push_back(0);
  std::vector<int64_t> order;
  for (int64_t b = 0; b < rows.batch; ++b) {
    const int64_t length = rows.length[static_cast<size_t>(b)], first = b * rows.tokens;
    const auto is_forced = [&](int64_t i) { return rows.position[static_cast<size_t>(i)] < forced; };
    int64_t k = routing::selected_count(capacity, length), forced_count = 0;
    order.clear();
    for (int64_t i = first; i < first + length; ++i) {
      if (is_forced(i)) ++forced_count;
      else if (std::isnan(scores[static_cast<size_t>(i)])) continue;  // a NaN never runs, as in routing::runs
      order.push_back(i);
    }
    k = std::min(std::max(k, forced_count), static_cast<int64_t>(order.size()));
    const auto before = [&](int64_t i, int64_t j) {
      if (forced_count > 0 && is_forced(i) != is_forced(j)) return is_forced(i);
      const Real a = scores[static_cast<size_t>(i)], c = scores[static_cast<size_t>(j)];
      return !is_forced(i) && a != c ? a > c : i < j;
    };
    // The order is strict and total, so the first k are one set whatever the algorithm.
    if (k < static_cast<int64_t>(order.size())) std::nth_element(order.begin(), order.begin() + k, order.end(), before);
    order.resize(static_cast<size_t>(k));
    std::sort(order.begin(), order.end());
    s.rows.insert(s.rows.end(), order.begin(), order.end());
    s.begin.push_back(static_cast<int64_t>(s.rows.size()));
  }
  s.all = static_cast<int64_t>(s.rows.size()) == rows.batch * rows.tokens;
  return s;
}

template <class Real>
Selected select_threshold(std::span<const Real> scores, const Rows& rows, float threshold, int64_t forced) {
  FATHOM_ASSERT(static_cast<int64_t>(scores.size()) == rows.batch * rows.tokens);
  return select_each(rows, [&](int64_t, int64_t, int64_t i) {
    return rows.position[static_cast<size_t>(i)] < forced ||
           routing::runs(static_cast<float>(scores[static_cast<size_t>(i)]), threshold);
  });
}

Selected select_random(const Rows& rows, uint64_t seed, int64_t block, double capacity, int64_t forced, std::optional<int64_t> first_row) {
  return select_each(rows, [&](int64_t b, int64_t t, int64_t i) {
    const int64_t position = rows.position[static_cast<size_t>(i)];
    if (position < forced) return true;
    // The place in the row, so that two documents of a row do not share their draws either.
    const double score = first_row ? routing::random_score(mix64(seed) ^ mix64(~static_cast<uint64_t>(*first_row + b)), block, t)
                                   : routing::random_score(seed, block, position);
    return score < capacity;
  });
}

Selected select_imposed(std::span<const bool> run, const Rows& rows) {
  FATHOM_ASSERT(static_cast<int64_t>(run.size()) == rows.batch * rows.tokens);
  return select_each(rows, [&](int64_t, int64_t, int64_t i) { return run[static_cast<size_t>(i)]; });
}

Selected select_everyone(const Rows& rows) {
  return select_each(rows, [](int64_t, int64_t, int64_t) { return true; });
}

Selected without(const Selected& all, const Selected& some) {
  Selected out;
  out.begin.push_back(0);
  auto taken = some.rows.begin();
  for (size_t s = 0; s + 1 < all.begin.size(); ++s) {
    for (int64_t i = all.begin[s]; i < all.begin[s + 1]; ++i) {
      const int64_t row = all.rows[static_cast<size_t>(i)];
      if (taken != some.rows.end() && *taken == row) ++taken;
      else out.rows.push_back(row);
    }
    out.begin.push_back(static_cast<int64_t>(out.rows.size()));
  }
  FATHOM_ASSERT(taken == some.rows.end(), "rows beside the others");
  out.all = all.all && some.rows.empty();
  return out;
}

template Selected select_top_k<float>(std::span<const float>, const Rows&, double, int64_t);
template Selected select_top_k<double>(std::span<const double>, const Rows&, double, int64_t);
template Selected select_threshold<float>(std::span<const float>, const Rows&, float, int64_t);
template Selected select_threshold<double>(std::span<const double>, const Rows&, float, int64_t);

}  // namespace fathom::nn
