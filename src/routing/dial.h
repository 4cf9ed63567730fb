// The dial: a block fraction asked for at run time → a threshold per cut (routing/config.h: one per unit that tokens skip or
// run, two where light lies between). Calibrated on held-out text for a grid of dials, stored as fathom_dial.json,
// interpolated between grid points.
//
// The file: {"version": 1 or 2, "default_dial", "trained_dial" (version 2), "text", "tokens", "points": [{"dial", "block_fraction", "thresholds": [..],
// "capacity": [..], "loss"}]}. Thresholds are the shortest decimals that read back as the same f32; JSON has no
// infinity, so +∞ (nobody runs) is the string "inf" and −∞ "-inf". A loss that was not measured is null.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/json.h"
#include "routing/config.h"

namespace fathom::routing {

inline constexpr int kDialVersion = 2;  // written where trained_dial is needed, else 1

struct DialPoint {
  double dial = 1.0;               // block fraction that was asked for
  double block_fraction = 1.0;     // realised on the calibration text, under the causal rule
  std::vector<float> thresholds;   // per cut; at dial 1: the lowest score seen (only for interpolation)
  std::vector<double> capacity;    // per cut, realised: the share of tokens that took its path or a dearer one
  double loss = 0;                 // nats per token on the calibration text; NaN when not measured
};

struct DialTable {
  double default_dial = 1.0;       // what runs when nobody asks for another
  double trained_dial = 0;         // the point that the configured capacities are of; 0: the default, as training and conversion leave it
  std::vector<DialPoint> points;   // ascending by dial; the last is dial 1
  std::string text;                // what it was calibrated on: name, tokens, sequence length
  int64_t tokens = 0;

  // Thresholds for a dial: linear between grid points (where an end is infinite, the lower point's), −∞ at dial ≥ 1,
  // the lowest point's below it. Throws UserError when dial is not in (0, 1].
  std::vector<float> thresholds(double dial) const;
  double trained() const { return trained_dial > 0 ? trained_dial : default_dial; }
  void set_default(double dial);    // keeps what it was trained for
  double reachable(double dial) const;  // the dial, or that of the lowest point where it lies below
  DialPoint at(double dial) const;  // thresholds as above, the figures interpolated; `dial` as asked for

  static DialTable from_json(const Json& json, const std::string& where, size_t cuts);
  Json to_json() const;
  // UserError where a unit's thresholds fall: a token would take the dearer path at a lower score.
  void require_order(const RoutingConfig& routing, const std::string& where) const;
};

// The capacities (per cut) whose expected block fraction is `dial`: the trained capacities scaled down together (below the
// trained point) or moved together towards 1 (above it), so that a unit's stay falling. `block_fraction(capacities)` comes
// from the cost model: it falls with no capacity and rises with all together. The result is clamped to [0, 1] each.
std::vector<double> capacities_for_dial(double dial, const std::vector<double>& trained,
                                        const std::function<double(const std::vector<double>&)>& block_fraction);

// The largest f32 threshold that lets at least share `capacity` of `scores` run (score ≥ threshold); `scores` is
// reordered and must not be empty. A token that runs anyhow has +∞, so that it counts in the share, and one that cannot −∞. capacity 0 gives +∞ (nobody runs), capacity 1 the lowest score. NaN scores count in
// the share but never run; with nothing but NaN the threshold is −∞.
float threshold_for(std::vector<float>& scores, double capacity);

// One dial's calibration, unit by unit under the causal rule itself: upstream thresholds change a later unit's input, so
// `scores(u, thresholds_before)` must return the decision scores of unit u over the calibration text after the units before
// it were decided by `thresholds_before`. It is asked for units that decide, in order. capacities and the result [cuts].
std::vector<float> calibrate(const RoutingConfig& routing, const std::vector<double>& capacities,
                             const std::function<std::vector<float>(size_t, const std::vector<float>&)>& scores);

// The grid that training calibrates: dials between the least reachable block fraction (every capacity 0) and 1, with
// the trained one in it: two points below it, tenths above, 1.
std::vector<double> default_grid(double least, double trained);

}  // namespace fathom::routing
