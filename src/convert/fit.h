// What a converted model's units get from one pass over text: light paths in closed form, routers that tell which tokens would
// miss the full path, and what each substitute costs in loss.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "convert/low_rank.h"
#include "infer/weights.h"
#include "routing/unit.h"

namespace fathom::convert {

struct FitOptions {
  double ridge = 1e-3;             // of light paths and routers, relative to the mean square of their inputs
  int64_t forced_positions = 2;    // run in full wherever a token decides, so they do not count there
  int64_t loss_tokens = 4096;      // tokens that the losses are measured on, in windows spread evenly; 0: none is measured
  int threads = 0;                 // 0: all cores that this process may use
  std::string kept;                // folder that keeps what is fitted, and has what was fitted before a stop of the same fit; "" = none
  std::function<void(int64_t done, int64_t of)> progress;  // blocks
  std::function<void()> check;                             // between steps; may throw to interrupt
};

struct FittedUnit {
  LowRankFit::Map light;     // of units with a light path; else empty
  // Of units that decide. The score of a token is the logarithm of what the cheapest path loses there: ‖full − cheapest‖² / ‖x‖²
  // of the stream behind the unit, by the regression.
  ScoreFit::Score router;
  double miss = 0;           // mean of that ratio over tokens
  double loss_increase = 0;  // nats per token if every token took the cheapest path; NaN when not measured
  std::vector<float> scores; // [tokens] of the router, text after text; +∞ at forced positions
};

// Fits `units` (ascending, RoutedUnit::before) of a dense model. Errors weigh by 1 / rms(x)² of the stream behind the unit, since every reader
// of the stream norms it. A light path of a unit that decides is fitted to the block's own delta. A static one sees the stream that
// earlier static units left, and is fitted to bring it back to the dense model's. Later units are fitted on that stream.
// UserError when the windows hold no token that counts.
std::vector<FittedUnit> fit_units(std::shared_ptr<const infer::Weights> dense, std::span<const routing::RoutedUnit> units,
                                  std::span<const std::span<const int32_t>> windows, const FitOptions& options = {});

// The light paths of units that decide anew, when it is known who takes them: tokens whose score, by `routers`, is below the threshold of their window
// and that are not forced. Several thresholds make light paths that serve several dials. Unit by unit the text goes its routed way, and a light path is fitted to bring its tokens back to the dense model's stream: so it makes up
// for what earlier light paths left out, too. Where a unit has a skip besides, tokens whose score is `skips_below` [units] under that threshold take it (a
// number below 0, or -infinity). Changes `fitted` in its light paths alone.
void refit_light_paths(std::shared_ptr<const infer::Weights> dense, std::span<const routing::RoutedUnit> units, std::span<const ScoreFit::Score> routers, std::span<const float> skips_below,
                       std::span<const std::span<const int32_t>> windows, std::span<const float> thresholds, const FitOptions& options, std::vector<FittedUnit>& fitted);

}  // namespace fathom::convert
