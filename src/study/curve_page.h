// The page of `fathom dial`: a measured curve, and maps of who goes how deep at some of its dials.
#pragma once
#include <string>
#include <vector>

#include "model/curve.h"
#include "study/depth.h"

namespace fathom::study {

// `depths`: of the curve's model, falling by dial; `chosen`: a sentence on the dial that was picked, or ""; `command`: how the page was made.
std::string curve_page(const model::DialCurve& curve, const std::vector<DepthStudy>& depths, const std::string& chosen, const std::string& command);

}  // namespace fathom::study
