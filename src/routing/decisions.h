// Which tokens run which routed block: the currency between routing, cost model, engine, network and reports.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fathom::routing {

// Of one sequence. run[r][t] is 1 when token t runs the r-th routed block in full.
struct Decisions {
  std::vector<std::vector<uint8_t>> run;   // [routed blocks][T]
  std::vector<std::vector<float>> score;   // [routed blocks][T] decision scores; empty when not asked for
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
