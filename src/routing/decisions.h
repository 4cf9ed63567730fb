// Which tokens run which routed block: the currency between routing, cost model, engine, network and reports.
#pragma once
#include <cstdint>
#include <vector>

namespace fathom::routing {

// Of one sequence. run[r][t] is 1 when token t runs the r-th routed block in full.
struct Decisions {
  std::vector<std::vector<uint8_t>> run;   // [routed blocks][T]
  std::vector<std::vector<float>> score;   // [routed blocks][T] decision scores; empty when not asked for
  bool operator==(const Decisions&) const = default;
};

}  // namespace fathom::routing
