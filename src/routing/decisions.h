// What tokens did at the routed units: the currency between routing, cost model, engine, network and reports.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fathom::routing {

// Of one sequence. run[u][t] is the path that token t took at the u-th unit: Path::skip (0), full (1) or light (2). Exits show as
// the cheapest path there and at every later unit.
struct Decisions {
  std::vector<std::vector<uint8_t>> run;   // [units][T]
  std::vector<std::vector<float>> score;   // [units][T] decision scores, 0 in a static unit; empty when not asked for
  bool operator==(const Decisions&) const = default;
};

// `to`, and after it the `count` tokens of `from` that begin at `first`.
inline void append(Decisions& to, const Decisions& from, size_t first, size_t count) {
  const auto rows = [&](auto& whole, const auto& more) {
    whole.resize(more.size());
    for (size_t r = 0; r < more.size(); ++r)
      whole[r].insert(whole[r].end(), more[r].begin() + static_cast<ptrdiff_t>(first), more[r].begin() + static_cast<ptrdiff_t>(first + count));
  };
  rows(to.run, from.run);
  rows(to.score, from.score);
}

}  // namespace fathom::routing
