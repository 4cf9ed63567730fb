// A measured curve of the dial as tables, for `fathom dial` and in short for `fathom info`.
#pragma once
#include <string>

#include "model/curve.h"

namespace fathom::cli {

std::string curve_text(const model::DialCurve& curve);
// What was picked of it, and what that saves. `bound`: how it was asked for, "" where the dial itself was; `stored`: it is the default now.
std::string chosen_text(const model::DialCurve& curve, const model::CurvePoint& chosen, const std::string& bound, bool stored);
// One line per dial; `current`: whether the model's thresholds are still those that were measured.
std::string curve_summary(const model::DialCurve& curve, bool current);

}  // namespace fathom::cli
